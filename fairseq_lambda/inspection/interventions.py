"""What a prediction owes to the content lambda: swap it, zero it or take one token out, and predict the mask again."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_lambda.inspection.contributions import check_layer
from fairseq_lambda.inspection.reader import Reader, Text, is_lambda_layer, reader, reading

TERMS = ("content", "both")
MAX_TOKENS = 8192  # of a batch

# (layer index, its mixing, x (b, n, C), padding mask, content lambda (b, k, v)) -> the content lambda to use
Edit = Callable[[int, nn.Module, Tensor, Tensor | None, Tensor], Tensor]


def zero(layer: int, mixing: nn.Module, x: Tensor, padding_mask: Tensor | None, content_lambda: Tensor) -> Tensor:
    """An edit: a content lambda of zeros."""
    return torch.zeros_like(content_lambda)


def replaced_by(lambdas: list[Tensor | None]) -> Edit:
    """Return an edit: the content lambdas of another text, one per layer, as ``LambdaBert`` returns them."""
    return lambda layer, mixing, x, padding_mask, content_lambda: lambdas[layer].expand_as(content_lambda)


def without(hidden: Tensor) -> Edit:
    """Return an edit: the content lambda as if the tokens in ``hidden`` (b, n) bool were not there.

    The lambda is recomputed, not obtained by subtraction: the softmax of the keys runs over the other tokens.
    """

    def edit(layer, mixing, x, padding_mask, content_lambda):
        _, keys, values, _ = mixing.projections(x, hidden if padding_mask is None else hidden | padding_mask)
        return torch.einsum("bmku,bmvu->bkv", keys, values)

    return edit


@contextlib.contextmanager
def edited(model, edit: Edit, layers: Iterable[int] | None = None) -> Iterator[None]:
    """A context in which ``edit`` replaces the content lambdas of ``layers`` and nothing else changes.

    The layer's output is linear in its content lambda, so with any backend it changes by gate * (new - old)^T q.

    Args:
        model: see :func:`fairseq_lambda.inspection.reader`.
        edit: :func:`zero`, the result of :func:`replaced_by` or :func:`without`, or your own.
        layers: indices; None: all lambda layers. Attention layers have nothing to edit.

    Raises:
        ValueError: no such layer, or a layer without a content lambda.
    """
    reads = reader(model)

    def hook_of(index):
        def hook(mixing, args, output):
            x, padding_mask = args[0], args[1] if len(args) > 1 else None
            y = output[0] if isinstance(output, tuple) else output
            q, keys, values, _ = mixing.projections(x, padding_mask)
            old = torch.einsum("bmku,bmvu->bkv", keys, values)
            new = edit(index, mixing, x, padding_mask, old)
            change = torch.einsum("bnhk,bkv->bnhv", q, new - old).flatten(2)
            gate = mixing.gate(x)
            y = y + (change if gate is None else gate * change)
            return (y, new) if isinstance(output, tuple) else y

        return hook

    hooks = [reads.mixings[i].register_forward_hook(hook_of(i)) for i in _with_content(reads, layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def hidden_from(model, hidden: Tensor, layers: Iterable[int] | None = None) -> Iterator[None]:
    """A context in which the tokens in ``hidden`` (b, n) bool reach no other token through ``layers``, by any term.

    These layers treat them as padding when they mix tokens. The tokens stay in the residual stream.

    Args:
        model: see :func:`fairseq_lambda.inspection.reader`.
        hidden: (b, n) bool, True for the tokens to hide.
        layers: indices; None: all layers.

    Raises:
        ValueError: no such layer.
    """
    reads = reader(model)

    def hook(_, args):
        padding_mask = args[1] if len(args) > 1 and args[1] is not None else torch.zeros_like(hidden)
        return (args[0], padding_mask | hidden, *args[2:])

    indices = range(len(reads.mixings)) if layers is None else [check_layer(reads, i) for i in layers]
    hooks = [reads.mixings[i].register_forward_pre_hook(hook) for i in indices]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _with_content(reads: Reader, layers: Iterable[int] | None) -> list[int]:
    having = [i for i, m in enumerate(reads.mixings) if is_lambda_layer(m) and m.k_proj is not None]
    if layers is None:
        return having
    chosen = [check_layer(reads, i) for i in layers]
    if missing := sorted(set(chosen) - set(having)):
        raise ValueError(f"layers={missing}: have no content lambda; choose from {having}")
    return chosen


@dataclass
class MaskChange:
    """The distribution at the masks, ``before`` (masks, V) and ``after`` (masks, V), or (n, masks, V) for n edits."""

    before: Tensor
    after: Tensor
    symbol: Callable[[int], str] = str

    @property
    def divergence(self) -> Tensor:
        """KL(before || after) in nats, (masks,) or (n, masks); 0 where nothing changed."""
        before, after = (p.double().clamp(min=torch.finfo(torch.float64).tiny) for p in (self.before, self.after))
        return (before * (before.log() - after.log())).sum(-1).clamp(min=0).to(self.before.dtype)

    def top(self, count: int = 5) -> list[list[tuple[str, float, float]]]:
        """Return, per mask, the most likely symbols before or after: (symbol, probability before, after).

        Raises:
            ValueError: there are several edits.
        """
        if self.after.dim() != 2:
            raise ValueError("top works on one edit; choose one: MaskChange(before, after[i], symbol)")
        rows = []
        for before, after in zip(self.before, self.after, strict=True):
            best = dict.fromkeys([*before.topk(count).indices.tolist(), *after.topk(count).indices.tolist()])
            rows.append([(self.symbol(i), float(before[i]), float(after[i])) for i in best])
        return rows


def mask_distribution(model, text: Text, tokenizer=None) -> Tensor:
    """Return the probabilities (masks, V) at the masks of a text.

    Raises:
        ValueError: no mask in the text, or no masked-LM head.
    """
    reads = reader(model, tokenizer)
    with reading(reads.core):
        return reads.mask_logits(reads.ids(text)[None])[0].softmax(dim=-1)


def zero_content(model, text: Text, layers: Iterable[int] | None = None, tokenizer=None) -> MaskChange:
    """Return the change at the masks if the content lambdas of ``layers`` (None: all) are zero.

    Raises:
        ValueError: no mask in the text, or a layer without a content lambda.
    """
    return _change(reader(model, tokenizer), text, zero, layers)


def swap_content(
    model, text: Text, other: Text, layers: Iterable[int] | None = None, tokenizer=None
) -> tuple[MaskChange, MaskChange | None]:
    """Return the changes at the masks of both texts if each has the other's content lambdas in ``layers`` (None: all).

    The second is None if ``other`` has no mask. The lambdas are those of the unchanged texts.

    Raises:
        ValueError: no mask in ``text``, or a layer without a content lambda.
    """
    reads = reader(model, tokenizer)
    ids = [reads.ids(text), reads.ids(other)]
    with reading(reads.core):
        found = [reads.core(i[None], return_lambdas=True).lambdas for i in ids]
    layers = None if layers is None else list(layers)
    changes = [_change(reads, ids[0], replaced_by(found[1]), layers), None]
    if reads.mask_index is not None and bool(ids[1].eq(reads.mask_index).any()):
        changes[1] = _change(reads, ids[1], replaced_by(found[0]), layers)
    return tuple(changes)


def leave_one_out(
    model, text: Text, layers: Iterable[int] | None = None, terms: str = "content", tokenizer=None
) -> MaskChange:
    """Return the change at the masks when each token in turn is taken out: ``after`` is (n, masks, V).

    Args:
        model, tokenizer: see :func:`fairseq_lambda.inspection.reader`.
        text: with ``<mask>``.
        layers: the layers to take it out of; None: all.
        terms: "content": out of the content lambdas (:func:`without`); "both": out of the position lambdas, too, and in
            a hybrid out of softmax attention (:func:`hidden_from`).

    Raises:
        ValueError: no mask; unknown ``terms``; no such layer.
    """
    if terms not in TERMS:
        raise ValueError(f"terms={terms}: choose one of {', '.join(TERMS)}")
    reads = reader(model, tokenizer)
    ids = reads.ids(text)
    layers = None if layers is None else list(layers)
    after = []
    with reading(reads.core):
        before = reads.mask_logits(ids[None])[0].softmax(dim=-1)
        for rows in torch.arange(len(ids), device=ids.device).split(max(1, MAX_TOKENS // len(ids))):
            hidden = torch.zeros(len(rows), len(ids), dtype=torch.bool, device=ids.device)
            hidden[torch.arange(len(rows)), rows] = True
            both = terms == "both"
            with hidden_from(reads, hidden, layers) if both else edited(reads, without(hidden), layers):
                after.append(reads.mask_logits(ids.expand(len(rows), -1)).softmax(dim=-1))
    return MaskChange(before, torch.cat(after), reads.symbol)


def _change(reads: Reader, text: Text, edit: Edit, layers: Iterable[int] | None) -> MaskChange:
    ids = reads.ids(text)
    before = mask_distribution(reads, ids)
    with edited(reads, edit, layers):
        return MaskChange(before, mask_distribution(reads, ids), reads.symbol)
