"""Prints the tables of the probes and draws a picture per task, from the JSON lines of probing.py alone.

``python benchmarks/quality/probing_report.py`` prints Markdown; the pictures go into a folder beside the lines. The
test accuracy of a feature is that of the layer that is best on dev, in the mean over the seeds.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
from probing import RESULTS, read_lines

# the report's name for each (model, feature); part_of_speech has states where the others have their mean
COLUMNS = {
    ("model", "lambda"): "content lambda",
    ("model", "lambda-small"): "content lambda, C dim.",
    ("model", "values"): "mean of values",
    ("model", "mean"): "mean of states",
    ("model", "mean-wide"): "mean of states, k v dim.",
    ("model", "first"): "<s>",
    ("untrained", "lambda"): "untrained lambda",
    ("untrained", "mean"): "untrained states",
    ("baseline", "mean"): "rotary states",
    ("text", "bag of words"): "bag of words",
    ("text", "length"): "length alone",
}
DRAWN = ["content lambda", "mean of values", "mean of states", "<s>", "untrained lambda", "untrained states",
         "rotary states"]  # fmt: skip
CHANCE_MARGIN = 20  # points above chance from which a probe counts as successful
NAMES = {"states": "mean"}


def column(line: dict) -> str | None:
    return COLUMNS.get((line["model"], NAMES.get(line["feature"], line["feature"])))


def in_the_model(lines: list[dict], lambda_layers: list[int]) -> list[dict]:
    """Return the lines with features of the n-th lambda layer placed at that layer's index among all layers."""
    counted = ("lambda", "lambda-small", "values")
    return [{**x, "layer": lambda_layers[x["layer"]]} if x["feature"] in counted else x for x in lines]


def by_layer(lines: Iterable[dict], task: str) -> dict[str, dict[int, list[dict]]]:
    """Return the lines of a task, one per seed, by column and layer."""
    found: dict[str, dict[int, list[dict]]] = {}
    for line in lines:
        if line["task"] == task and column(line):
            found.setdefault(column(line), {}).setdefault(line["layer"], []).append(line)
    return {name: dict(sorted(found[name].items())) for name in COLUMNS.values() if name in found}


def mean(lines: list[dict], key: str) -> float:
    return statistics.mean(line[key] for line in lines)


def best(layers: dict[int, list[dict]]) -> tuple[int, list[dict]]:
    """Return the layer with the best mean on dev, and its lines."""
    layer = max(layers, key=lambda index: mean(layers[index], "dev"))
    return layer, layers[layer]


def spread(lines: list[dict], key: str = "test", digits: int = 1) -> str:
    """Return the mean and, for several seeds, the least and the most."""
    values = [line[key] for line in lines]
    middle, least, most = (f"{f(values):.{digits}f}" for f in (statistics.mean, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def tasks_of(lines: list[dict]) -> list[str]:
    return list(dict.fromkeys(line["task"] for line in lines))


def accuracy_table(lines: list[dict]) -> str:
    """Return accuracies in %, with the layer if a feature has several."""
    names = [name for name in COLUMNS.values() if any(column(line) == name for line in lines)]
    rows = [["task", "majority", *names]]
    for task in tasks_of(lines):
        features = by_layer(lines, task)
        row = [task, f"{next(iter(next(iter(features.values())).values()))[0]['majority']:.1f}"]
        for name in names:
            if name not in features:
                row.append("-")
                continue
            layer, found = best(features[name])
            row.append(f"{spread(found)}{f', layer {layer}' if len(features[name]) > 1 else ''}")
        rows.append(row)
    return measuring.markdown(rows)


def control_table(lines: list[dict]) -> str:
    """Return selectivity (points) and compression (uniform code over online code) at the same layers."""
    names = [n for n in ("content lambda", "mean of values", "mean of states", "untrained lambda", "untrained states",
                         "rotary states", "bag of words") if any(column(line) == n for line in lines)]  # fmt: skip
    rows = [["task", *(f"{name}: selectivity, compression" for name in names)]]
    for task in tasks_of(lines):
        features, row = by_layer(lines, task), [task]
        for name in names:
            if name not in features:
                row.append("-")
                continue
            _, found = best(features[name])
            selectivity = statistics.mean(line["test"] - line["control"] for line in found)
            row.append(f"{selectivity:.1f}, {mean(found, 'compression'):.2f}")
        rows.append(row)
    return measuring.markdown(rows)


def checks(lines: list[dict]) -> list[tuple[str, bool]]:
    """Return what must hold if the probes work, and whether it does.

    Without absolute positions, the content lambda of layer 0 is a function of a bag of pieces, and a sentence with a
    swapped bigram has the same bag.
    """
    found = []
    rules = [("word_content", "content lambda", 0, True), ("bigram_shift", "content lambda", 0, False),
             ("bigram_shift", "mean of states", None, True)]  # fmt: skip
    for task, name, layer, above in rules:
        features = by_layer(lines, task)
        if name not in features:
            continue
        layer, of_layer = best(features[name]) if layer is None else (layer, features[name][layer])
        chance, score = of_layer[0]["majority"], mean(of_layer, "test")
        holds = score >= chance + CHANCE_MARGIN if above else abs(score - chance) <= standard_errors(of_layer)
        wanted = f"{CHANCE_MARGIN} points above" if above else "at"
        found.append(
            (f"{task}, {name} of layer {layer}: {score:.1f} %, wanted {wanted} chance ({chance:.1f} %)", holds)
        )
    return found


def standard_errors(lines: list[dict], count: float = 3.0) -> float:
    """Return ``count`` standard errors of a test accuracy at chance, in points; seeds share their test examples."""
    p = lines[0]["majority"] / 100
    return 100 * count * (p * (1 - p) / lines[0]["examples"]["test"]) ** 0.5


def answer(lines: list[dict]) -> str:
    """Return whether content lambdas tell more about a text than the mean of the states, overall and per dimension."""
    states = "mean of states"
    pairs = {"overall": ("content lambda", states), "at C dimensions": ("content lambda, C dim.", states)}
    pairs["against the mean of values"] = ("content lambda", "mean of values")
    parts = []
    for what, (one, other) in pairs.items():
        gaps = []
        for task in tasks_of(lines):
            features = by_layer(lines, task)
            if one in features and other in features:
                gaps.append(mean(best(features[one])[1], "test") - mean(best(features[other])[1], "test"))
        if gaps:
            better = sum(gap > 0 for gap in gaps)
            parts.append(f"{what} {statistics.mean(gaps):+.1f} points, better in {better} of {len(gaps)} tasks")
    return "Content lambdas minus the mean of states: " + "; ".join(parts) + "."


def title(task: str, features: dict[str, dict[int, list[dict]]]) -> str:
    """Return the title of a task's picture, its one message."""
    states = mean(best(features["mean of states"])[1], "test") if "mean of states" in features else None
    if states is None:
        return f"{task}: probing is not finished"
    if "content lambda" not in features:
        other = features.get("rotary states")
        compared = "" if other is None else f", those of the rotary model {mean(best(other)[1], 'test'):.1f} %"
        return f"{task}: hidden states reach {states:.1f} %{compared}"
    gap = mean(best(features["content lambda"])[1], "test") - states
    if abs(gap) < 1:
        return f"{task}: content lambdas do as well as the mean of the states"
    more = "better" if gap > 0 else "worse"
    return f"{task}: content lambdas do {abs(gap):.1f} points {more} than the mean of the states"


def draw(lines: list[dict], task: str, path: Path) -> None:
    """Draw test accuracy by layer: a line per feature, with the spread of the seeds as a band."""
    from matplotlib.figure import Figure

    features = by_layer(lines, task)
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name in DRAWN:
        if name not in features:
            continue
        layers, color = features[name], f"C{DRAWN.index(name)}"
        x, middle = list(layers), [mean(found, "test") for found in layers.values()]
        low, high = ([f(line["test"] for line in found) for found in layers.values()] for f in (min, max))
        style = {"color": color, "linestyle": "--" if "untrained" in name else "-"}
        axis.plot(x, middle, marker="o", markersize=3, label=name, **style)
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    first = next(iter(next(iter(features.values())).values()))[0]
    constants = {"majority": first["majority"]}
    constants |= {n: mean(features[n][0], "test") for n in ("bag of words", "length alone") if n in features}
    for name, style in zip(constants, (":", "-.", (0, (1, 3))), strict=False):
        axis.axhline(constants[name], color="0.3", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="layer that reads it (the last states are above the top layer)", ylabel="test accuracy, %")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.suptitle(title(task, features), fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, default=RESULTS, help="JSON lines of probing.py (%(default)s)")
    args = parser.parse_args(argv)
    header, lines = read_lines(args.lines)
    if not lines:
        sys.exit(f"error: {args.lines} contains no probe: run benchmarks/quality/probing.py first")
    lines = in_the_model(lines, header["lambda_layers"])
    print("Test accuracy in %, mean over seeds (least to most), at the layer that is best on dev:\n")
    print(accuracy_table(lines), control_table(lines), answer(lines), sep="\n\n")
    held = checks(lines)
    print("", *(f"- {'holds' if holds else 'DOES NOT HOLD'}: {what}" for what, holds in held), sep="\n")
    names = ", ".join(f"{role} {name}" for role, name in header["names"].items())
    print(f"\nOf {names}. {measuring.setting_line(header['setting'])}")
    for task in tasks_of(lines):
        draw(lines, task, args.lines.with_suffix("") / f"{task}.png")


if __name__ == "__main__":
    main()
