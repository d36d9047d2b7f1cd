"""Pictures for the benchmarks: panels side by side, with each line labelled at its right end."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Panel:
    """One pair of axes.

    Args:
        x, y: labels of the axes.
        lines: name and points (x, y) of each; lines with the same name look the same.
        ticks: of x, which makes its axis logarithmic.
        top: upper limit of y.
        linear: y is linear between these limits, instead of logarithmic; None: as high as the lines.
    """

    x: str
    y: str
    lines: list[tuple[str, list[tuple[float, float]]]]
    ticks: list[int] | None = None
    top: float | None = None
    linear: tuple[float, float | None] | None = None


def by_model(rows: list[dict], y: Callable[[dict], float]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return a line for each model in the rows: ``y`` of each row against its length."""
    names = dict.fromkeys(row["model"] for row in rows)
    return [(name, [(row["length"], y(row)) for row in rows if row["model"] == name]) for name in names]


def draw(path: Path, title: str, panels: list[Panel]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        names = list(dict.fromkeys(name for name, _ in panel.lines))
        for name, points in panel.lines:
            i = names.index(name)
            marker = "o" if panel.ticks else None
            axis.plot(*zip(*points, strict=True), marker=marker, color=f"C{i}", linestyle=("-", "--", "-.", ":")[i % 4])
        axis.set(xlabel=panel.x, ylabel=panel.y)
        if panel.ticks:
            axis.set_xscale("log", base=2)
            axis.set_xticks(panel.ticks, [f"{n:,}" if n < 10000 else f"{n // 1024}k" for n in panel.ticks], fontsize=8)
        else:
            axis.xaxis.set_major_formatter("{x:,g}")
        if panel.linear:
            axis.set_ylim(*panel.linear)
        else:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:,g}")
            axis.yaxis.set_minor_formatter("{x:,g}" if panel.top else "")
        if panel.top:
            axis.set_ylim(top=min(axis.get_ylim()[1], panel.top))
        axis.tick_params(axis="y", which="both", labelsize=8)
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
        label_ends(axis, {name: (points[-1][1], f"C{names.index(name)}") for name, points in panel.lines})
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def label_ends(axis, ends: dict[str, tuple[float, str]]) -> None:
    """Write each line's name at the right of the axis, in its colour, at the height of its end or the next free one."""
    place = axis.transData + axis.transAxes.inverted()
    heights = {name: place.transform((1, y))[1] for name, (y, _) in ends.items()}
    free = -1.0
    for name in sorted(heights, key=heights.get):
        text = textwrap.fill(name, 20)
        half = 0.03 * (text.count("\n") + 1)
        middle = max(heights[name], free + half)
        free = middle + half
        axis.text(1.02, middle, text, color=ends[name][1], transform=axis.transAxes, va="center", fontsize=9)
