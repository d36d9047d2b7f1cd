"""The lines of probing.py by task, feature and layer, and the layer of each feature that is best on dev."""

import statistics
from collections.abc import Iterable

# the report's name for each (model, feature); part_of_speech has states where the others have their mean
COLUMNS = {
    ("model", "lambda"): "content lambda",
    ("model", "lambda-small"): "content lambda, C dim.",
    ("model", "lambda-values"): "content lambda, v u dim.",
    ("model", "values"): "mean of values",
    ("model", "mean"): "mean of states",
    ("model", "mean-wide"): "mean of states, k v dim.",
    ("model", "first"): "<s>",
    ("untrained", "lambda"): "untrained lambda",
    ("untrained", "lambda-values"): "untrained lambda, v u dim.",
    ("untrained", "values"): "untrained values",
    ("untrained", "mean"): "untrained states",
    ("baseline", "mean"): "rotary states",
    ("text", "bag of words"): "bag of words",
    ("text", "length"): "length alone",
}
NAMES = {"states": "mean"}
Layers = dict[int, list[dict]]  # a feature's lines, one per seed, by layer


def column(line: dict) -> str | None:
    return COLUMNS.get((line["model"], NAMES.get(line["feature"], line["feature"])))


def columns_of(lines: list[dict]) -> list[str]:
    """Return the columns that have a line."""
    there = {column(line) for line in lines}
    return [name for name in COLUMNS.values() if name in there]


def in_the_model(lines: list[dict], lambda_layers: list[int]) -> list[dict]:
    """Return the lines with features of the n-th lambda layer placed at that layer's index among all layers."""
    counted = ("lambda", "lambda-small", "lambda-values", "values")
    return [{**x, "layer": lambda_layers[x["layer"]]} if x["feature"] in counted else x for x in lines]


def tasks_of(lines: list[dict]) -> list[str]:
    return list(dict.fromkeys(line["task"] for line in lines))


def by_layer(lines: Iterable[dict], task: str) -> dict[str, Layers]:
    """Return the lines of a task, one per seed, by column and layer."""
    found: dict[str, Layers] = {}
    for line in lines:
        if line["task"] == task and column(line):
            found.setdefault(column(line), {}).setdefault(line["layer"], []).append(line)
    return {name: dict(sorted(found[name].items())) for name in COLUMNS.values() if name in found}


def mean(lines: list[dict], key: str) -> float:
    return statistics.mean(line[key] for line in lines)


def best(layers: Layers) -> tuple[int, list[dict]]:
    """Return the layer with the best mean on dev, and its lines."""
    layer = max(layers, key=lambda index: mean(layers[index], "dev"))
    return layer, layers[layer]


def score(layers: Layers) -> float:
    """Return the test accuracy at the layer that is best on dev."""
    return mean(best(layers)[1], "test")


def chance(line: dict) -> float:
    """Return the accuracy in % that needs no features.

    Lines from before November 2026 have instead that of the most frequent training label, which may be below a guess.
    """
    return line["chance"] if "chance" in line else max(line["majority"], 100 / line["classes"])
