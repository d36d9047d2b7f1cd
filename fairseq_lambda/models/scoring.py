"""Pseudo-log-likelihoods: how likely a text is under a masked language model, with one piece masked at a time."""

from collections.abc import Iterator, Sequence

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_lambda.hardware import bfloat16_is_faster
from fairseq_lambda.models.batching import MAX_TOKENS
from fairseq_lambda.symbols import MASK, WORD_START

METHODS = ("original", "word_l2r")
PRECISIONS = ("float32", "bfloat16", "auto")


class PseudoLogLikelihood:
    """Returns log P(piece | rest of the text) of every piece of a batch of texts, in nats.

    Two ways to hide what is predicted:

    - "original": the piece alone (Salazar et al., 2020, arXiv 1910.14659).
    - "word_l2r": the piece and those that follow it in its word (Kauf and Ivanova, 2023, arXiv 2305.10588).
      The rest of a rare word gives the piece away, so that "original" favours rare words in several pieces.

    A word is a piece that starts with U+2581 and the pieces that follow it. A piece without letters and digits, such as
    a full stop, is a word of its own, as with the tokenisers that Kauf and Ivanova used.

    Only the logits of the predicted pieces are computed. Where both methods hide the same pieces, one result serves
    both.

    Args:
        model: a :class:`fairseq_lambda.models.LambdaBertModel` in evaluation mode.
        dictionary: the model's, ``<mask>`` included.
        space_behind: U+2581 ends a word, see :class:`fairseq_lambda.models.pieces.SentencePieceEncoder`.
        methods: some of ``METHODS``.
        precision: of the encoder's matrix products: "float32", "bfloat16", or "auto": bfloat16 where it is faster.
            The projection to the vocabulary is always done in the dtype of the weights.
        max_tokens: per batch of masked copies; a longer text is a batch of its own.

    Raises:
        ValueError: an unknown method or precision.
    """

    def __init__(
        self,
        model,
        dictionary: Dictionary,
        space_behind: bool = False,
        methods: Sequence[str] = METHODS,
        precision: str = "float32",
        max_tokens: int = MAX_TOKENS,
    ):
        for method in methods:
            if method not in METHODS:
                raise ValueError(f"method={method}: choose one of {', '.join(METHODS)}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose one of {', '.join(PRECISIONS)}")
        self.model, self.methods, self.max_tokens = model, tuple(methods), max_tokens
        self.padding_idx, self.mask_idx = dictionary.pad(), dictionary.index(MASK)
        self.special = torch.tensor([dictionary.bos(), dictionary.pad(), dictionary.eos()])
        self.starts, self.after_start = word_boundaries(dictionary, space_behind)
        self.device = next(model.parameters()).device
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and bfloat16_is_faster(self.device))

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> list[dict[str, Tensor]]:
        """Return for each text and method the log probabilities (pieces,) of its pieces, special symbols left out.

        Args:
            tokens: ids (b, n), right-padded.
        """
        text, position = self.is_scored(tokens).nonzero(as_tuple=True)  # each (pieces,)
        ends = {"original": position, "word_l2r": self._word_ends(tokens)[text, position]}
        found: dict[str, Tensor] = {}
        for method in self.methods:
            end, before = ends[method], found.get("original")
            needed = torch.ones_like(end, dtype=torch.bool) if before is None else end.ne(position)
            found[method] = torch.empty(len(end)) if before is None else before.clone()
            found[method][needed] = self._predict(tokens, text[needed], position[needed], end[needed])
        pieces = torch.bincount(text, minlength=len(tokens)).tolist()
        by_text = {method: values.split(pieces) for method, values in found.items()}
        return [{method: values[row] for method, values in by_text.items()} for row in range(len(tokens))]

    def is_scored(self, tokens: Tensor) -> Tensor:
        """Return whether tokens, of any shape, are pieces and not ``<s> <pad> </s>``."""
        return torch.isin(tokens, self.special, invert=True)

    def _word_ends(self, tokens: Tensor) -> Tensor:
        """Return (b, n): the position of the last piece of each piece's word."""
        starts = self.starts[tokens]
        starts[:, 1:] |= self.after_start[tokens[:, :-1]]
        position = torch.arange(tokens.size(1)).expand_as(tokens)
        next_start = torch.where(starts, position, tokens.size(1)).flip(1).cummin(1).values.flip(1)
        return torch.cat((next_start[:, 1:] - 1, position[:, -1:]), dim=1)

    def _predict(self, tokens: Tensor, text: Tensor, position: Tensor, end: Tensor) -> Tensor:
        """Return log P (pieces,) of the piece at ``position`` of row ``text``, with ``position`` to ``end`` masked."""
        lengths, values = tokens.ne(self.padding_idx).sum(1), []
        with self._autocast(self.bfloat16):  # around the loop, so that weights are converted once
            for rows in _slices(lengths[text], self.max_tokens):
                copies, first = tokens[text[rows], : int(lengths[text[rows]].max())], position[rows, None]
                target, place = copies.gather(1, first), torch.arange(copies.size(1))
                copies = copies.masked_fill((place >= first) & (place <= end[rows, None]), self.mask_idx)
                flat = torch.arange(len(copies)) * copies.size(1) + first[:, 0]
                features, _ = self.model(copies.to(self.device), features_only=True, masked_tokens=flat.to(self.device))
                values.append(self._log_probabilities(features, target.to(self.device)).cpu())
        return torch.cat(values) if values else torch.empty(0)

    def _log_probabilities(self, features: Tensor, target: Tensor) -> Tensor:
        """Return log P (r,) of ``target`` (r, 1), given ``features`` (r, C)."""
        head = self.model.encoder.bert.lm_head
        with self._autocast(False):
            logits = head(features.to(head.weight.dtype)).float()
        return logits.gather(1, target)[:, 0] - logits.logsumexp(dim=1)

    def _autocast(self, enabled: bool) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled)


def word_boundaries(dictionary: Dictionary, space_behind: bool) -> tuple[Tensor, Tensor]:
    """Return two tables (V,) bool: whether a symbol starts a word, and whether what follows it does."""
    size = len(dictionary)
    starts, after = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    for index, symbol in enumerate(dictionary.symbols):
        bare = symbol.strip(WORD_START)
        alone = index in (dictionary.bos(), dictionary.pad(), dictionary.eos())  # an <unk> stands for letters
        alone = alone or (bare != "" and not any(character.isalnum() for character in bare))
        starts[index] = alone or (not space_behind and symbol.startswith(WORD_START))
        after[index] = alone or (space_behind and symbol.endswith(WORD_START))
    return starts, after


def _slices(lengths: Tensor, max_tokens: int) -> Iterator[slice]:
    """Cut rows of these lengths, in their order, into slices of at most ``max_tokens`` tokens once padded."""
    begin, longest = 0, 0
    for index, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if index > begin and (index - begin + 1) * longest > max_tokens:
            yield slice(begin, index)
            begin, longest = index, length
    if begin < len(lengths):
        yield slice(begin, len(lengths))
