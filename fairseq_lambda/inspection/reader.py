"""What inspection needs from a model, whatever wraps it: the core, its masked-LM head, and text to ids and back."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairseq_lambda.symbols import MASK

Text = str | tuple[str, ...] | Tensor  # a text, a pair of texts, or ids (n,)


@dataclass
class Reader:
    """A core model that reads texts; :func:`reader` makes one from any of the models that users have.

    Args:
        core: a :class:`fairseq_lambda.modules.LambdaBert`.
        lm_head: turns features (..., C) into logits (..., V); None: the model has no head.
        encode: turns one text, or a pair, into ids (n,); None: the model reads ids only.
        symbol: returns the symbol of an id.
        mask_index: the id of ``<mask>``; None: unknown.
        fine_tuned: the core was trained further after ``lm_head`` was.
    """

    core: nn.Module
    lm_head: Callable[[Tensor], Tensor] | None
    encode: Callable[..., Tensor] | None = None
    symbol: Callable[[int], str] = str
    mask_index: int | None = None
    fine_tuned: bool = False

    @property
    def mixings(self) -> list[nn.Module]:
        """The lambda and attention layers, bottom first."""
        return [layer.mixing for layer in self.core.encoder.layers]

    def ids(self, text: Text) -> Tensor:
        """Return the ids (n,) of a text, a pair of texts, or of ids themselves, on the model's device.

        Raises:
            ValueError: a text, but the model came without a vocabulary; ids of another shape.
        """
        if isinstance(text, str | tuple):
            if self.encode is None:
                raise ValueError("this model came without a vocabulary, so text cannot be encoded: give ids (n,)")
            text = self.encode(*((text,) if isinstance(text, str) else text))
        ids = torch.as_tensor(text)
        if ids.dim() != 1 or not ids.numel():
            raise ValueError(f"ids of shape {tuple(ids.shape)}: inspection reads one text, (n,), at a time")
        return ids.long().to(self.core.embed_tokens.weight.device)

    def tokens(self, ids: Tensor) -> list[str]:
        return [self.symbol(int(index)) for index in ids]

    def masks(self, ids: Tensor) -> Tensor:
        """Return the positions (masks,) of ``<mask>``.

        Raises:
            ValueError: there is none.
        """
        positions = ids.eq(-1 if self.mask_index is None else self.mask_index).nonzero().squeeze(1)
        if not len(positions):
            raise ValueError(f"no {MASK} in the text: write {MASK} where a word is to be predicted")
        return positions

    def mask_logits(self, ids: Tensor) -> Tensor:
        """Return the logits (b, masks, V) at the masks of ids (b, n); all rows must have the same mask positions.

        Raises:
            ValueError: no mask, or no masked-LM head.
        """
        if self.lm_head is None:
            raise ValueError("this model has no masked-LM head, so there is no distribution at a mask")
        features = self.core(ids).features
        return self.lm_head(features[:, self.masks(ids[0])]).float()

    def padded(self, texts: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return a batch (b, n) of ids, right-padded, and its padding mask, or None if there is no padding."""
        lengths = torch.tensor([len(ids) for ids in texts], device=texts[0].device)
        batch = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=self.core.options.padding_idx)
        padding = torch.arange(batch.size(1), device=batch.device) >= lengths[:, None]
        return batch, padding if bool(padding.any()) else None


def reader(model, tokenizer=None) -> Reader:
    """Return a :class:`Reader` for a model.

    Args:
        model: fairseq's hub interface (``LambdaBertModel.from_pretrained(folder)``), a transformers model, a
            :class:`fairseq_lambda.modules.LambdaBert`, which reads ids only, or a Reader.
        tokenizer: the tokenizer of a transformers model.

    Raises:
        ValueError: there is no LambdaBert in ``model``.
    """
    if isinstance(model, Reader):
        return model
    # By name, because transformers loads the code in a model's folder as separate classes.
    modules = model.modules() if isinstance(model, nn.Module) else ()
    core = next((module for module in modules if type(module).__name__ == "LambdaBert"), None)
    if core is None:
        raise ValueError(f"{type(model).__name__} contains no LambdaBert, the only model that inspection reads")
    head = next((h for h in (core.lm_head, getattr(model, "lm_head", None)) if h is not None), None)
    if tokenizer is not None:
        return Reader(
            core,
            head,
            lambda *texts: torch.tensor(tokenizer(*texts)["input_ids"]),
            lambda index: tokenizer.convert_ids_to_tokens(index),
            tokenizer.mask_token_id,
        )
    task = getattr(model, "task", None)
    if task is None:
        return Reader(core, head)
    encode = model.encode if getattr(model, "bpe", None) is not None else None
    return Reader(
        core,
        head,
        encode,
        task.source_dictionary.__getitem__,
        getattr(task, "mask_idx", None),
        fine_tuned=getattr(task, "labels", None) is not None,
    )


def is_lambda_layer(mixing: nn.Module) -> bool:
    return type(mixing).__name__ == "LambdaLayer"


@contextlib.contextmanager
def reading(core: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode and records no gradients."""
    training = [module for module in core.modules() if module.training]
    core.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class LayerTrace(NamedTuple):
    """An encoder layer's tensors for one text, (n, C) each: its input, its mixing's input and its mixing's output."""

    residual: Tensor
    mixing_input: Tensor
    mixing_output: Tensor


def trace(reads: Reader, ids: Tensor) -> list[LayerTrace]:
    """Return the trace of each layer for ids (n,)."""
    found: list[dict[str, Tensor]] = [{} for _ in reads.mixings]
    hooks = []
    for layer, record in zip(reads.core.encoder.layers, found, strict=True):

        def enter(_, args, record=record):
            record["residual"] = args[0][0]

        def mix(_, args, output, record=record):
            record["mixing_input"] = args[0][0]
            record["mixing_output"] = (output[0] if isinstance(output, tuple) else output)[0]

        hooks += [layer.register_forward_pre_hook(enter), layer.mixing.register_forward_hook(mix)]
    try:
        with reading(reads.core):
            reads.core(ids[None])
    finally:
        for hook in hooks:
            hook.remove()
    return [LayerTrace(**record) for record in found]
