"""A page about one text: all pictures, and the predictions with and without content lambdas."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fairseq_lambda.inspection import pictures
from fairseq_lambda.inspection.contributions import check_layer, from_trace
from fairseq_lambda.inspection.interventions import leave_one_out, mask_distribution, swap_content, zero_content
from fairseq_lambda.inspection.maps import norm_map, rollout
from fairseq_lambda.inspection.reader import Reader, Text, is_lambda_layer, trace
from fairseq_lambda.inspection.slots import position_kernels, slots

MAX_TOKENS = 128  # maps of longer texts are illegible


@dataclass
class Section:
    """A heading, an explanation, and pictures (name without suffix, description) or a table, header first."""

    title: str
    text: str
    pictures: list[tuple[str, str]] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def write_page(
    reads: Reader,
    text: Text,
    folder: Path,
    name: str,
    layers: Sequence[int] | None = None,
    head: int | None = None,
    other: Text | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> list[str]:
    """Draw all pictures of a text into an existing ``folder``, with ``index.html``; return the file names.

    Args:
        reads: the model.
        text: a text, a pair of texts, or ids (n,), of at most ``MAX_TOKENS`` tokens; if it has a ``<mask>``, there are
            sections about the predictions.
        folder: where to write.
        name: of the model, for the title.
        layers: the layers to draw pictures of; None: all.
        head: the head whose contributions are drawn; None: per layer, the one that contributes most at the mask.
        other: a text whose content lambdas replace this one's, in a further column of predictions.
        progress: called with a description of each picture before it is drawn.

    Raises:
        ValueError: a text that is too long; no such layer or head.
    """
    ids = reads.ids(text)
    if len(ids) > MAX_TOKENS:
        raise ValueError(
            f"the text has {len(ids)} tokens, and pictures of more than {MAX_TOKENS} are illegible: give a shorter "
            "one, or call fairseq_lambda.inspection from Python"
        )
    chosen = range(len(reads.mixings)) if layers is None else [check_layer(reads, layer) for layer in layers]
    for layer in chosen:
        if head is not None and not 0 <= head < reads.mixings[layer].heads:
            raise ValueError(f"head={head}: layer {layer} has {reads.mixings[layer].heads} heads, counted from 0")
    page = _Page(reads, ids, folder, list(chosen), head, progress)
    sections = [page.predictions(other), page.leave_one_out()] if page.masks else []
    sections += [page.reaching(), page.contributions(), page.terms(), page.slots(), page.position_kernels()]
    sections = [section for section in sections if section is not None]
    (folder / "index.html").write_text(render(name, _shown(reads, text), sections), encoding="utf-8")
    return ["index.html", *page.files]


class _Page:
    def __init__(self, reads: Reader, ids: Tensor, folder: Path, layers: list[int], head: int | None, progress):
        self.reads, self.ids, self.folder, self.layers, self.head = reads, ids, folder, layers, head
        self.progress, self.files = progress, []
        self.tokens = reads.tokens(ids)
        self.masks = [] if reads.mask_index is None else ids.eq(reads.mask_index).nonzero().flatten().tolist()
        if reads.lm_head is None:
            self.masks = []
        self.at = self.masks[0] if self.masks else 0
        self.layer_contributions = [from_trace(reads, ids, i, traced) for i, traced in enumerate(trace(reads, ids))]
        self.with_lambda = [
            i for i in self.layers if is_lambda_layer(reads.mixings[i]) and reads.mixings[i].k_proj is not None
        ]

    def draw(self, name: str, description: str, figure) -> tuple[str, str]:
        self.progress(description)
        self.files += pictures.save(figure, self.folder / name)
        return name, description

    def predictions(self, other: Text | None) -> Section:
        columns = {"without content lambdas": zero_content(self.reads, self.ids)} if self._any_lambda() else {}
        if other is not None:
            columns["with the other text's content lambdas"] = swap_content(self.reads, self.ids, other)[0]
        rows, before = [["mask", "unchanged", *columns]], mask_distribution(self.reads, self.ids)
        for mask in range(len(self.masks)):
            row = [str(mask + 1), self.best(before[mask])]
            row += [f"{self.best(c.after[mask])} (KL {c.divergence[mask]:.3f})" for c in columns.values()]
            rows.append(row)
        text = "The most likely predictions and their probabilities."
        text += " KL measures the change of the whole distribution, in nats." if columns else ""
        if other is not None:
            text += f" The other text: {_shown(self.reads, other)}"
        return Section("What the model predicts", text, table=rows)

    def leave_one_out(self) -> Section:
        changes = {"out of the content lambdas": leave_one_out(self.reads, self.ids)} if self._any_lambda() else {}
        changes["out of all mixing"] = leave_one_out(self.reads, self.ids, terms="both")
        drawn = []
        for mask, at in enumerate(self.masks):
            figure = pictures.draw_leave_one_out(changes, self.tokens, mask, at)
            drawn.append(self.draw(f"leave-one-out-mask{mask + 1}", f"The effect on mask {mask + 1}", figure))
        text = (
            "Each token is removed from all layers at once; this is exact, because the softmax of the keys runs over "
            "the others. Its position stays. Each panel has its own scale."
        )
        return Section("How each token affects the prediction", text, drawn)

    def reaching(self) -> Section:
        target = f"mask {self.masks.index(self.at) + 1}" if self.masks else pictures.labels(self.tokens)[self.at]
        norms = pictures.stack_shares([norm_map(c) for c in self.layer_contributions])
        share = "share of all contributions"
        drawn = [
            self.draw(
                "layers",
                f"What reaches {target} in each layer",
                pictures.draw_layers(norms, self.tokens, self.at, f"What reaches {target} in each layer", share),
            ),
            self.draw(
                "rollout",
                f"What has reached {target} up to each layer",
                pictures.draw_layers(
                    rollout(self.reads, self.ids), self.tokens, self.at,
                    f"What has reached {target} up to each layer", "share, by rollout",
                ),
            ),
        ]  # fmt: skip
        text = (
            "First, the norms of what each token adds within a layer. Then, the product of the layers' maps, with "
            "residuals and norms (rollout), which is an estimate."
        )
        return Section("What reaches the token, layer by layer", text, drawn)

    def contributions(self) -> Section:
        drawn = []
        for layer in self.layers:
            c = self.layer_contributions[layer]
            head = pictures.strongest_head(c, self.at) if self.head is None else self.head
            figure = pictures.draw_contributions(c, head)
            drawn.append(
                self.draw(
                    f"contributions-layer{layer}-head{head}", f"Contributions in layer {layer}, head {head}", figure
                )
            )
        which = "the head that adds most to the mask" if self.masks else "the head that adds most to the first token"
        text = (
            f"In each layer, {which if self.head is None else f'head {self.head}'}. Rows are the tokens written to, "
            "columns the tokens read. White adds nothing, red makes the head's output longer, blue works against it. "
            "The numbers of a row, over all panels, sum to the length of the output."
        )
        return Section("What each token adds to each other token", text, drawn)

    def terms(self) -> Section | None:
        terms = [{part: c.output(part).norm(dim=-1) for part in c.parts} for c in self.layer_contributions]
        if not any({"content", "position"} <= set(parts) for parts in terms):
            return None
        drawn = self.draw("content-over-position", "Content over position by layer", pictures.draw_terms(terms))
        return Section("Content over position", "How much content lambdas add, relative to position lambdas.", [drawn])

    def slots(self) -> Section | None:
        drawn = [
            self.draw(
                f"slots-layer{layer}",
                f"Slots of layer {layer}",
                pictures.draw_slots(slots(self.reads, self.ids, layer)),
            )
            for layer in self.with_lambda
        ]
        text = (
            "A content lambda has one row per slot, a weighted mean of all tokens' values. White: the token has the "
            "same share as in a plain mean; red: more; blue: less. Evenness 1: a plain mean."
        )
        return Section("What fills the slots of the content lambda", text, drawn) if drawn else None

    def position_kernels(self) -> Section | None:
        kernels = position_kernels(self.reads, [self.ids])
        if not kernels:
            return None
        drawn = self.draw("position-kernels", "Position kernels of all layers", pictures.draw_position_kernels(kernels))
        text = (
            "The size of the weights, whatever their sign: the root mean square over this text's tokens. 0: not read. "
            "The mean distance is weighted by its square."
        )
        return Section("Which neighbours the heads read", text, [drawn])

    def best(self, probabilities: Tensor, count: int = 5) -> str:
        best = probabilities.topk(min(count, len(probabilities)))
        names = pictures.labels([self.reads.symbol(i) for i in best.indices.tolist()])
        return ", ".join(f"{name} {p:.2f}" for name, p in zip(names, best.values.tolist(), strict=True))

    def _any_lambda(self) -> bool:
        return any(is_lambda_layer(m) and m.k_proj is not None for m in self.reads.mixings)


def _shown(reads: Reader, text: Text) -> str:
    if isinstance(text, Tensor):
        return " ".join(pictures.labels(reads.tokens(text)))
    return text if isinstance(text, str) else " / ".join(text)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem; }
.text { background: #f3f3f3; padding: .6rem .8rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.5rem; } figcaption { font-size: .9rem; color: #444; }
.wide { overflow-x: auto; } .wide img { display: block; max-width: none; }
table { border-collapse: collapse; min-width: 40rem; } th, td { text-align: left; vertical-align: top;
  padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ddd; }
"""


def render(name: str, text: str, sections: list[Section]) -> str:
    """Return the page as HTML; it needs no files except the pictures beside it."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(name)}: one text from the inside</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(name)}: one text from the inside</h1>",
        f'<p class="text">{html.escape(text)}</p>',
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
        if section.table:
            parts.append(_table(section.table))
        for picture, description in section.pictures:
            alt = html.escape(description, quote=True)
            parts.append(
                f'<figure><div class="wide"><img src="{picture}.svg" alt="{alt}"></div><figcaption>{alt} '
                f'(<a href="{picture}.png">PNG</a>, <a href="{picture}.svg">SVG</a>)</figcaption></figure>'
            )
    return "\n".join([*parts, "</body></html>", ""])


def _table(rows: list[list[str]]) -> str:
    header, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
