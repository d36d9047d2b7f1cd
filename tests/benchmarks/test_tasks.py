"""The benchmark on labelled tasks: controls by hand, which runs are made, resuming, the table and its picture."""

import json
import lzma
from pathlib import Path

import bags_of_words
import pytest
import tasks
from fine_tunings import topics, write_tsv
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.models import LambdaBertModel


@pytest.fixture
def files(tmp_path):
    rows = topics(80)
    return {name: write_tsv(tmp_path / f"{name}.tsv", rows) for name in ("train", "test")}


def test_controls_of_texts(files):
    task = {"flags": "--metric macro_f1 --max-epoch 3"}
    found = bags_of_words.control("majority", task, files)
    share = max(sum(label == name for label, _ in topics(80)) for name in "abc") / 80
    assert found["test"]["accuracy"] == pytest.approx(share) and found["metric"] == "macro_f1"
    assert bags_of_words.control("bag of words", task, files)["test"]["accuracy"] == 1


def test_controls_of_words(tmp_path):
    """A word's most frequent tag, or N, the most frequent tag overall, for a word unknown from training."""
    (tmp_path / "train.conll").write_text("a N\na N\na V\nb V\n\nb V\nc N\n")
    (tmp_path / "test.conll").write_text("a V\nb V\nnew N\n")
    found = {
        kind: bags_of_words.control(
            kind, {"flags": ""}, {name: tmp_path / f"{name}.conll" for name in ("train", "test")}
        )
        for kind in tasks.CONTROLS
    }
    assert found["bag of words"]["test"]["accuracy"] == pytest.approx(2 / 3)
    assert found["majority"]["test"]["accuracy"] == pytest.approx(1 / 3)


def test_the_best_rate_on_valid_is_run_with_all_seeds_and_nothing_twice(tmp_path, monkeypatch, trained, capsys):  # noqa: F811
    data = tmp_path / "data" / "trec"
    data.mkdir(parents=True)
    for name in ("train", "test"):
        (data / f"{name}.txt").write_text("".join(f"{label} {text}\n" for label, text in topics(60)))
    made = []

    def finetune(task, model, files, folder, lr, seed, flags):
        made.append((Path(model).name, lr, seed))
        score = {"accuracy": {0.1: 0.5, 0.2: 0.7}[lr] + seed / 100, "texts": 1}
        test = {"accuracy": {0.1: 0.9, 0.2: 0.6}[lr] + seed / 100, "texts": 1}  # better on test: not chosen
        return {"metric": "accuracy", "splits": {"valid": score, "test": test}}

    monkeypatch.setattr(tasks, "finetune", finetune)
    arguments = ["--data", tmp_path / "data", "--model", f"ours={trained}", "--only", "trec", "--lrs", "0.1,0.2"]
    arguments += ["--work", tmp_path / "work", "--results", tmp_path / "tasks.jsonl"]
    tasks.main([str(word) for word in arguments])
    runs = [(0.1, 1), (0.2, 1), (0.2, 2), (0.2, 3)]
    assert made == [("run", *run) for run in runs] + [("ours-not-pretrained", *run) for run in runs]
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| trec | accuracy | ") and row.count("| 62.0 (1.0) ") == 2
    assert (tmp_path / "tasks.png").stat().st_size > 1000

    fresh = LambdaBertModel.from_pretrained(tmp_path / "work" / "ours-not-pretrained")
    old = LambdaBertModel.from_pretrained(trained)
    weights = [bert.model.state_dict()["encoder.bert.embed_tokens.weight"] for bert in (fresh, old)]
    assert weights[0].shape == weights[1].shape and (weights[0] != weights[1]).any()
    assert fresh.piece_ids("the river") == old.piece_ids("the river")

    made.clear()
    lines = (tmp_path / "tasks.jsonl").read_text()
    tasks.main([str(word) for word in arguments])
    tasks.main(["--report", "--results", str(tmp_path / "tasks.jsonl")])
    assert not made and (tmp_path / "tasks.jsonl").read_text() == lines
    assert {json.loads(line)["task"] for line in lines.splitlines()} == {"trec"}
    with (data / "test.txt").open("a") as file:
        file.write("a the town\n")
    with pytest.raises(SystemExit, match="^error: .* has trec, majority with other test file: remove its lines"):
        tasks.main([str(word) for word in arguments])


def test_a_cut_keeps_the_header(tmp_path):
    path = write_tsv(tmp_path / "train.tsv", topics(20))
    assert tasks.cut(path, {}, tmp_path) == path
    assert tasks.cut(path, {"lines": 5}, tmp_path).read_text().splitlines() == path.read_text().splitlines()[:6]
    packed = tmp_path / "a.tsv.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    thirds = tasks.cut(packed, {"every": 3}, tmp_path)
    assert thirds.suffix == ".tsv" and thirds.read_text().splitlines() == path.read_text().splitlines()[::3]


@pytest.mark.parametrize("arguments,message", [
    (["--report"], "contains no run"), ([], "--data and --model are needed"),
    (["--data", "x", "--model", "a=none"], "none: no such folder"),
])  # fmt: skip
def test_what_is_missing_is_one_line(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}[^\n]*$"):
        tasks.main([*arguments, "--results", str(tmp_path / "none.jsonl"), "--work", str(tmp_path)])
