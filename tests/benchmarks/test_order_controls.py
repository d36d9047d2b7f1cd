"""The controls of sentence order find what they look for, and nothing in the pairs of the task on random text."""

import json

import numpy as np
import order_controls
import pytest
import torch
from training import write_data


def random_pairs(seed, told_by):
    rng, firsts, seconds, labels = np.random.default_rng(seed), [], [], []
    for _ in range(400):
        label = int(rng.integers(2))
        sizes = rng.integers(3, 12, size=2)
        if told_by == "lengths":
            sizes = np.sort(np.add(sizes, [0, 1]))[:: 1 if label else -1]
        parts = [rng.integers(10, 50, size=size) for size in sizes]
        if told_by == "pieces":
            parts[label][0] = 7
        firsts.append(parts[0])
        seconds.append(parts[1])
        labels.append(float(label))
    return firsts, seconds, torch.tensor(labels)


@pytest.mark.parametrize(
    "kind,told_by,finds",
    [
        (order_controls.Lengths, "lengths", True),
        (order_controls.Lengths, "pieces", False),
        (order_controls.Bags, "pieces", True),
        (order_controls.Bags, "nothing", False),
    ],
)
def test_each_rule_sees_its_own_sign(kind, told_by, finds):
    sets = []
    for seed in range(3):
        firsts, seconds, labels = random_pairs(seed, told_by)
        sets.append((kind(firsts, seconds, 50), labels))
    train, held, valid = sets
    weights, bias = order_controls.fit(*train, *held, steps=200)
    accuracy = order_controls.accuracy(*valid, weights, bias)
    assert accuracy > 0.9 if finds else 0.4 < accuracy < 0.6


def test_command_writes_its_scores(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    file = tmp_path / "controls.jsonl"
    flags = ["--tokens-per-sample", "32", "--epochs", "2", "--steps", "5", "--json", str(file)]
    order_controls.main([str(data), *flags])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["rule"] for row in rows] == ["chance", "lengths", "bag of words"] and rows[0]["pairs"] > 0
    assert f"| chance | {rows[0]['accuracy']:.1f} % |" in capsys.readouterr().out
