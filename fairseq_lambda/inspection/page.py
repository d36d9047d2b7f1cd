"""A page about one text: all pictures, and the predictions with and without content lambdas."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fairseq_lambda.inspection import pictures
from fairseq_lambda.inspection.contributions import check_layer, from_trace
from fairseq_lambda.inspection.interventions import leave_one_out, mask_distribution, swap_content, zero_content
from fairseq_lambda.inspection.maps import norm_map, rollout
from fairseq_lambda.inspection.reader import Reader, Text, is_lambda_layer, trace
from fairseq_lambda.inspection.rendering import Section, render
from fairseq_lambda.inspection.slots import position_kernels, slots

MAX_TOKENS = 128  # maps of longer texts are illegible


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
        layers: the layers whose contributions and slots are drawn; None: all.
        head: the head whose contributions are drawn; None: per layer, the one that contributes most at the mask.
        other: a text whose content lambdas replace this one's, in a further column of predictions.
        progress: called with a description of each picture before it is drawn, and with what cannot be drawn.

    Raises:
        ValueError: a text that is too long; no such layer or head; ``other``, but nothing that it changes.
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
            raise ValueError(f"--head {head}: layer {layer} has {reads.mixings[layer].heads} heads, counted from 0")
    page = _Page(reads, ids, folder, list(chosen), head, progress)
    if other is not None and (lacking := page.lacking_for_other()):
        raise ValueError(f"--other changes predictions at <mask> through content lambdas, but {lacking}")
    sections = [page.predictions(other), page.leave_one_out()] if page.masks else [page.without_head()]
    sections += [page.reaching(), page.contributions(), page.terms(), page.slots(), page.position_kernels()]
    sections = [section for section in sections if section is not None]
    (folder / "index.html").write_text(render(name, _shown(reads, text), sections), encoding="utf-8")
    return ["index.html", *page.files]


class _Page:
    def __init__(self, reads: Reader, ids: Tensor, folder: Path, layers: list[int], head: int | None, progress):
        self.reads, self.ids, self.folder, self.layers, self.head = reads, ids, folder, layers, head
        self.progress, self.files = progress, []
        self.tokens = reads.tokens(ids)
        found = [] if reads.mask_index is None else ids.eq(reads.mask_index).nonzero().flatten().tolist()
        self.has_mask = bool(found)
        self.masks = [] if reads.lm_head is None else found
        self.at = self.masks[0] if self.masks else 0
        self.layer_contributions = [from_trace(reads, ids, i, traced) for i, traced in enumerate(trace(reads, ids))]
        self.with_lambda = [
            i for i in self.layers if is_lambda_layer(reads.mixings[i]) and reads.mixings[i].k_proj is not None
        ]

    def draw(self, name: str, description: str, figure) -> tuple[str, str]:
        self.progress(description)
        self.files += pictures.save(figure, self.folder / name)
        return name, description

    def lacking_for_other(self) -> str | None:
        """Return what the model or the text lacks for another text's content lambdas to change a prediction."""
        if self.reads.lm_head is None:
            return "the model has no masked-LM head: leave it out"
        if not self._any_lambda():
            return "the model has none: leave it out"
        return None if self.masks else "the first text has no <mask>: write <mask> where a word is to be predicted"

    def without_head(self) -> Section | None:
        if self.reads.lm_head is not None:
            return None
        text = "This model has no masked-LM head, so there are no predictions."
        if self.has_mask:
            self.progress(text)
        return Section("What the model predicts", text)

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
        if self.reads.fine_tuned:
            text += " This model was fine-tuned after its masked-LM head was trained, so the two may not fit."
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
