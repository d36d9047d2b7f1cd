"""Pictures of the results of inspection. They need matplotlib: ``pip install -e ".[inspection]"``."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from fairseq_lambda.inspection.contributions import Contributions
from fairseq_lambda.inspection.interventions import MaskChange
from fairseq_lambda.inspection.slots import PositionKernel, Slots
from fairseq_lambda.symbols import WORD_START

SIGNED, SIZES = "RdBu_r", "viridis"
CELL, SMALL_CELL = 0.24, 0.15  # inches per row or column of a token, normally and in a large map
BAR = {"fraction": 0.05, "aspect": 25, "shrink": 0.9}
DPI = 130
MARGIN = 1.5  # inches beside the axes, for labels and the colour bar
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Devanagari")


def labels(tokens: Sequence[str]) -> list[str]:
    """Return readable names of symbols: words as they are, pieces within a word as ``+ing``."""
    starts = any(token.startswith(WORD_START) for token in tokens)
    found = []
    for token in tokens:
        plain = token.replace(WORD_START, " ").strip() or "\u2423"
        special = token.startswith("<") and token.endswith(">")
        inside = starts and not special and not token.startswith(WORD_START)
        found.append(f"+{plain}" if inside else plain)
    return found


def save(figure: Figure, path: Path) -> list[str]:
    """Write PATH.png and PATH.svg; return their names."""
    names = [f"{path.name}.png", f"{path.name}.svg"]
    figure.get_layout_engine().execute(figure)  # a first pass: only then is the size of the labels known
    for name in names:
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # text, for which the browser has the fonts
            figure.savefig(path.with_name(name), dpi=DPI)
        figure.set_layout_engine("none")  # lay out once only: it takes most of the time
    return names


def draw_contributions(c: Contributions, head: int) -> Figure:
    """Draw what each token adds to a head's output, along that output; the parts are side by side on one scale."""
    parts = {part: c.along(part)[:, head].numpy() for part in c.parts}
    # A few large cells would leave all others white, so these get the colour at the end of the scale.
    most = max(np.quantile(np.abs(values), 0.98) for values in parts.values()) or 1.0
    side = max(len(c.tokens) * min(CELL, max(SMALL_CELL, 9 / len(c.tokens))), 2.0)
    figure = _figure(MARGIN + (side + 1.0) * len(parts), side + 1.6)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axis, (part, values) in zip(axes, parts.items(), strict=True):
        image = axis.imshow(values, cmap=SIGNED, norm=TwoSlopeNorm(0, -most, most), aspect="equal")
        _name_columns(axis, c.tokens)
        _name_rows(axis, labels(c.tokens) if axis is axes[0] else [])
        axis.set_title(part, fontsize=11)
        axis.set_xlabel("from this token")
    axes[0].set_ylabel("to this token")
    bar = figure.colorbar(image, ax=axes, pad=0.01, extend="both", **BAR)
    bar.set_label("length along the head's output\n0 (white): adds nothing; below: works against it", fontsize=9)
    _title(figure, f"Layer {c.layer}, head {head}: what each token adds")
    return figure


def draw_slots(found: Slots) -> Figure:
    """Draw each token's share in each slot of the content lambda, relative to the average share."""
    share = found.keys.clamp(min=1e-9) * len(found.tokens)  # (m, k, u); 1: the share in a plain mean of the values
    rows = share.flatten(1).T.log2().clamp(-3, 3).numpy()
    evenness = found.evenness.flatten().tolist()
    dim_u = found.keys.size(2)
    names = [f"{i // dim_u}.{i % dim_u}" if dim_u > 1 else str(i) for i in range(len(rows))]
    figure = _figure(MARGIN + 1.6 + max(len(found.tokens) * CELL, 2.5), 1.9 + len(rows) * CELL)
    axis = figure.subplots()
    image = axis.imshow(rows, cmap=SIGNED, norm=TwoSlopeNorm(0, -3, 3), aspect="auto")
    _name_columns(axis, found.tokens)
    _name_rows(axis, [f"{name}  ({even:.2f})" for name, even in zip(names, evenness, strict=True)])
    axis.set_ylabel("slot (evenness)")
    bar = figure.colorbar(image, ax=axis, pad=0.01, **BAR, ticks=range(-3, 4))
    bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    bar.set_label("share of the token, relative to the mean\n1 (white): as in a plain mean", fontsize=9)
    _title(figure, f"Layer {found.layer}: which tokens fill which slot")
    return figure


def draw_position_kernels(kernels: Sequence[PositionKernel]) -> Figure:
    """Draw the size of the weight of each offset (:attr:`PositionKernel.size`), for each head of each layer."""
    heads = kernels[0].mean.size(0) * kernels[0].mean.size(1)
    width = min(max(len(kernels[0].offsets) * 0.2, 4.5), 10.0)
    panel = max(heads * CELL, 0.7) + 0.5
    figure = _figure(width + MARGIN + 1.2, panel * len(kernels) + 1.2)
    axes = figure.subplots(len(kernels), 1, squeeze=False, sharex=True)[:, 0]
    most = max(float(kernel.size.max()) for kernel in kernels) or 1.0
    for axis, kernel in zip(axes, kernels, strict=True):
        low, high = int(kernel.offsets[0]) - 0.5, int(kernel.offsets[-1]) + 0.5
        image = axis.imshow(
            kernel.size.flatten(0, 1).numpy(), cmap=SIZES, vmin=0, vmax=most, aspect="auto",
            extent=(low, high, heads - 0.5, -0.5),
        )  # fmt: skip
        dim_u = kernel.mean.size(1)
        _name_rows(axis, [f"{i // dim_u}.{i % dim_u}" if dim_u > 1 else str(i) for i in range(heads)])
        axis.set_ylabel(f"layer {kernel.layer}\nhead", fontsize=9)
        axis.set_title(
            "mean distance read, per head: " + ", ".join(f"{reach:.1f}" for reach in kernel.reach), fontsize=8
        )
    axes[-1].set_xlabel("offset of the token that is read (negative: before)")
    bar = figure.colorbar(image, ax=axes, pad=0.01, **BAR)
    bar.set_label("root mean square of the weight q . E[offset]\nover the tokens; 0: not read", fontsize=9)
    _title(figure, "Position kernels: which neighbours each head reads")
    return figure


def draw_terms(terms: list[dict[str, Tensor]]) -> Figure:
    """Draw the ratio of the norms of the content part and the position part, for each token and layer."""
    ratios = {
        layer: (parts["content"] / parts["position"].clamp(min=1e-9)).numpy()
        for layer, parts in enumerate(terms)
        if {"content", "position"} <= set(parts)
    }
    figure = _figure(max(4.5, 2.5 + 0.7 * len(ratios)), 3.6)
    axis = figure.subplots()
    axis.axhline(1, color="0.6", linewidth=1)
    for layer, values in ratios.items():
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0]
        axis.plot(layer + np.asarray(spread), values, ".", color="C0", alpha=0.5, markersize=5)
        middle = np.median(values)
        axis.plot([layer - 0.3, layer + 0.3], [middle, middle], color="C3", linewidth=2)
        axis.text(layer + 0.33, middle, f"{middle:.2f}", color="C3", va="center", fontsize=9)
    axis.set(xlabel="layer", ylabel="norm of content / norm of position", yscale="log", xticks=list(ratios))
    axis.set_xlim(min(ratios) - 0.5, max(ratios) + 0.8)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())
    axis.tick_params(axis="y", which="both", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    medians = [float(np.median(values)) for values in ratios.values()]
    moved = f"{min(medians):.2f} to {max(medians):.2f}"
    _title(figure, f"Content adds {moved} times as much as position\n(medians in red, one point per token)")
    return figure


def draw_layers(maps: Tensor, tokens: Sequence[str], at: int, title: str, label: str) -> Figure:
    """Draw what reaches token ``at`` from each token, by layer, given maps (layers, n, m)."""
    rows = maps[:, at].numpy()
    figure = _figure(MARGIN + 1.2 + max(len(tokens) * CELL, 2.5), 2.1 + len(rows) * CELL)
    axis = figure.subplots()
    image = axis.imshow(rows, cmap=SIZES, vmin=0, aspect="auto")
    _name_columns(axis, tokens)
    _name_rows(axis, [str(layer) for layer in range(len(rows))])
    axis.set(xlabel="from this token", ylabel="layer")
    figure.colorbar(image, ax=axis, pad=0.01, **BAR).set_label(label, fontsize=9)
    _title(figure, title)
    return figure


def draw_leave_one_out(changes: dict[str, MaskChange], tokens: Sequence[str], mask: int, at: int) -> Figure:
    """Draw how much the distribution at a mask changes when each token is taken out; one panel per kind of change.

    Args:
        changes: the change for each panel, by title.
        tokens: n symbols.
        mask: which of the text's masks, from 0.
        at: its position.
    """
    figure = _figure(2.0 + 3.2 * len(changes), 1.4 + max(len(tokens) * CELL, 1.5))
    axes = figure.subplots(1, len(changes), squeeze=False, sharey=True)[0]
    for axis, (title, change) in zip(axes, changes.items(), strict=True):
        values = change.divergence[:, mask].numpy()
        colors = ["C1" if position == at else "C0" for position in range(len(tokens))]
        axis.barh(range(len(tokens)), values, color=colors)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"change in nats (KL), up to {values.max():.2g}", fontsize=9)  # scales differ widely
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(len(tokens) - 0.5, -0.5)
    _name_rows(axes[0], labels(tokens))
    _title(figure, f"What the prediction at mask {mask + 1} loses with each token (orange: itself)")
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _title(figure: Figure, text: str) -> None:
    """Write the title at the left, where a narrow window shows it."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=12)


def _name_columns(axis, tokens: Sequence[str]) -> None:
    axis.set_xticks(range(len(tokens)))
    _set_labels(axis.set_xticklabels, labels(tokens), rotation=90)


def _name_rows(axis, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)))
    _set_labels(axis.set_yticklabels, names)


def _set_labels(setter, names: Sequence[str], **options) -> None:
    """Write labels in installed fonts; a dollar sign does not start a formula."""
    installed = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in installed]
    setter(names, fontsize=8, family=[*fonts, "sans-serif"], parse_math=False, **options)


def strongest_head(c: Contributions, at: int | None) -> int:
    """Return the head whose contributions to token ``at`` (None: to all tokens) have the largest norms."""
    norms = c.norms()
    return int((norms if at is None else norms[at : at + 1]).sum(dim=(0, 2)).argmax())


def stack_shares(maps: Sequence[Tensor]) -> Tensor:
    """Return maps (n, m) stacked as (layers, n, m), with rows that sum to 1."""
    stacked = torch.stack(list(maps))
    return stacked / stacked.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(stacked.dtype).tiny)
