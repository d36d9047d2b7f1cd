"""Prints the tables of the probes and draws a picture per task, from the JSON lines of probing.py alone.

``python benchmarks/quality/probing_report.py`` prints Markdown; the pictures go into a folder beside the lines. The
test accuracy of a feature is that of the layer that is best on dev, in the mean over the seeds. Lines from before
November 2026 do not say which test examples were right: then there are no intervals, and nothing is called better.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
from probing import RESULTS, read_lines
from probing_findings import GAPS, answer, checks, gap, notes
from probing_rows import Layers, best, by_layer, chance, columns_of, in_the_model, mean, score, tasks_of

DRAWN = ["content lambda", "mean of values", "mean of states", "<s>", "untrained lambda", "untrained values",
         "untrained states", "rotary states"]  # fmt: skip
CODED = [name for name in DRAWN if name != "<s>"] + ["bag of words"]  # in the table of code lengths


def spread(lines: list[dict], key: str = "test", digits: int = 1) -> str:
    """Return the mean and, for several seeds, the least and the most."""
    values = [line[key] for line in lines]
    middle, least, most = (f"{f(values):.{digits}f}" for f in (statistics.mean, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def accuracy_table(lines: list[dict]) -> str:
    """Return accuracies in %, with the layer if a feature has several."""
    names = columns_of(lines)
    rows = [["task", "test examples", "chance", *names]]
    for task in tasks_of(lines):
        features = by_layer(lines, task)
        first = best(next(iter(features.values())))[1][0]
        row = [task, f"{first['examples']['test']:,}", f"{chance(first):.1f}"]
        for name in names:
            if name not in features:
                row.append("-")
                continue
            layer, found = best(features[name])
            row.append(f"{spread(found)}{f', layer {layer}' if len(features[name]) > 1 else ''}")
        rows.append(row)
    return measuring.markdown(rows)


def gap_table(lines: list[dict]) -> str:
    """Return the differences in points of each task, with their 95 % intervals."""
    pairs = [pair for of_sentence in GAPS.values() for pair in of_sentence.values()]
    pairs = [pair for pair in pairs if {*pair} <= {*columns_of(lines)}]
    rows = [["task", *(f"{one} minus {other}" for one, other in pairs)]]
    for task in tasks_of(lines):
        features = by_layer(lines, task)
        cells = [str(gap(features[a], features[b])) if {a, b} <= features.keys() else "-" for a, b in pairs]
        if {*cells} != {"-"}:
            rows.append([task, *cells])
    return measuring.markdown(rows)


def code_table(lines: list[dict]) -> str:
    """Return the compression (uniform code over online code) at the same layers; for tokens, selectivity in points."""
    names = [name for name in CODED if name in columns_of(lines)]
    rows = [["task", *names]]
    for task in tasks_of(lines):
        features = by_layer(lines, task)
        of_tokens = "mean of states" in features and "content lambda" not in features
        row = [f"{task}: compression, selectivity" if of_tokens else f"{task}: compression"]
        for name in names:
            found = best(features[name])[1] if name in features else [{}]
            cell = f"{mean(found, 'compression'):.2f}" if "compression" in found[0] else "-"
            if of_tokens and "control" in found[0]:
                cell += f", {mean(found, 'test') - mean(found, 'control'):.1f}"
            row.append(cell)
        rows.append(row)
    return measuring.markdown(rows)


def title(task: str, features: dict[str, Layers]) -> str:
    """Return the title of a task's picture, its one message: a difference only if it is clear."""
    if "mean of states" not in features:
        return f"{task}: probing is not finished"
    states = f"{score(features['mean of states']):.1f} %"
    if "content lambda" not in features:
        other = features.get("rotary states")
        compared = "" if other is None else f", those of the rotary model {score(other):.1f} %"
        return f"{task}: hidden states reach {states}{compared}"
    found = gap(features["content lambda"], features["mean of states"])
    if found.clear:
        more = "better" if found.points > 0 else "worse"
        return f"{task}: content lambdas do {abs(found.points):.1f} points {more} than the mean of the states"
    if found.interval:
        return f"{task}: no clear difference between content lambdas and the mean of the states"
    return f"{task}: content lambdas reach {score(features['content lambda']):.1f} %, the mean of the states {states}"


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
    constants = {"chance": chance(next(iter(next(iter(features.values())).values()))[0])}
    constants |= {n: score(features[n]) for n in ("bag of words", "length alone") if n in features}
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
    print(accuracy_table(lines), gap_table(lines), code_table(lines), answer(lines), sep="\n\n")
    held = [f"- {'holds' if holds else 'DOES NOT HOLD'}: {what}" for what, holds in checks(lines)]
    print("", *held, *(f"- {note}" for note in notes(lines)), sep="\n")
    names = ", ".join(f"{role} {name}" for role, name in header["names"].items())
    print(f"\nOf {names}. {measuring.setting_line(header['setting'])}")
    for task in tasks_of(lines):
        draw(lines, task, args.lines.with_suffix("") / f"{task}.png")


if __name__ == "__main__":
    main()
