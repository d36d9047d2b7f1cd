"""The part of the hub that takes any number of texts: vectors, scores, features."""

import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from fairseq import utils
from torch import Tensor

from fairseq_lambda.models.batching import MAX_TOKENS, Result, by_length
from fairseq_lambda.models.embedding import Pooling
from fairseq_lambda.models.scoring import METHODS, PseudoLogLikelihood


class ManyTexts:
    """Methods over texts, or ids (n,), in batches of similar length; an iterable is read as the work proceeds."""

    def embed(
        self,
        texts: str | Tensor | Iterable[str | Tensor],
        pooling: str = "mean",
        layer: int = -1,
        max_tokens: int = MAX_TOKENS,
    ) -> Tensor:
        """Return a matrix (texts, C), or (texts, dim_k * dim_v) with "lambda", in float32 on the CPU.

        Args:
            texts: any iterable; only the result takes memory in proportion to it. A single str, or ids (n,),
                count as one text.
            pooling: "mean" over all tokens of a text, ``<s>`` and ``</s>`` included; "cls", the features of ``<s>``;
                "lambda", the content lambda (dim_k, dim_v) row by row.
            layer: 0 for the embeddings, 1 to L for the layers; negative numbers count from the top. -1 is what
                ``extract_features`` returns.
            max_tokens: per batch.

        Raises:
            ValueError: an unknown pooling or layer, or "lambda" for a layer without a content lambda.
        """
        pool = Pooling(self.model, pooling, layer)
        with utils.model_eval(self.model):
            vectors = list(self._many(pool, texts, max_tokens))
        return torch.stack(vectors) if vectors else torch.empty(0, pool.width)

    def score(
        self,
        texts: str | Tensor | Iterable[str | Tensor],
        method: str = "original",
        per_piece: bool = False,
        precision: str = "float32",
        max_tokens: int = MAX_TOKENS,
    ):
        """Return the pseudo-log-likelihood of each text, in nats: a list of floats, or a float for one text.

        It is the sum over the pieces of log P(piece | the text with that piece masked). To compare texts of different
        length, divide by the number of pieces. See :class:`fairseq_lambda.models.scoring.PseudoLogLikelihood`.

        Args:
            texts: any iterable, or one text, a str or ids (n,). A text of n pieces costs n times as much as
                reading it once.
            method: "original" (Salazar et al., 2020), or "word_l2r", the rest of the piece's word masked as well (Kauf
                and Ivanova, 2023).
            per_piece: return for each text a list of (piece, log probability) instead.
            precision: "float32", "bfloat16", or "auto": bfloat16 where it is faster.
            max_tokens: per batch.

        Raises:
            ValueError: an unknown method or precision, or ``<mask>`` in a text.
        """
        dictionary = self.task.source_dictionary
        scorer = self.scorer([method], precision, max_tokens)

        def score(tokens: Tensor) -> Iterator[float | list[tuple[str, float]]]:
            if tokens.eq(self.task.mask_idx).any():
                raise ValueError("<mask> in a text to be scored: score texts as they are, or use fill_mask")
            for row, found in zip(tokens, scorer(tokens), strict=True):
                values = found[method].double()
                pieces = [dictionary[index] for index in row[scorer.is_scored(row)].tolist()] if per_piece else []
                yield list(zip(pieces, values.tolist(), strict=True)) if per_piece else values.sum().item()

        with utils.model_eval(self.model):
            scores = list(self._many(score, texts, max_tokens))
        return scores[0] if _is_one(texts) else scores

    def scorer(
        self, methods: Sequence[str] = METHODS, precision: str = "float32", max_tokens: int = MAX_TOKENS
    ) -> PseudoLogLikelihood:
        """Return this model's :class:`~fairseq_lambda.models.scoring.PseudoLogLikelihood`, for batches of ids."""
        space_behind = self.bpe is not None and self.bpe.space_behind
        return PseudoLogLikelihood(
            self.model, self.task.source_dictionary, space_behind, methods, precision, max_tokens
        )

    def _features_of_each(self, texts: Iterable[str | Tensor], *options: bool) -> list:
        """Return the result of ``extract_features`` with these options for each text alone."""
        states, with_lambdas = options

        def features(tokens: Tensor) -> Iterator:
            lengths = tokens.ne(self.task.source_dictionary.pad()).sum(1).tolist()
            batch = self.extract_features(tokens, *options)
            batch, lambdas = batch if with_lambdas else (batch, [])
            for row, n in enumerate(lengths):
                one = [x[row : row + 1, :n] for x in batch] if states else batch[row : row + 1, :n]
                own = [None if x is None else x[row : row + 1] for x in lambdas]
                yield (one, own) if with_lambdas else one

        return list(self._many(features, texts))

    def _many(
        self,
        function: Callable[[Tensor], Iterable[Result]],
        texts: str | Tensor | Iterable[str | Tensor],
        max_tokens: int = MAX_TOKENS,
    ) -> Iterator[Result]:
        """Yield what ``function``, of ids (b, n), returns for each text; a single str, or ids (n,), are one text."""
        texts = [texts] if _is_one(texts) else texts
        size = len(self.task.source_dictionary)
        tokens = (self.encode(text) if isinstance(text, str) else checked_ids(text, size, least=1) for text in texts)
        return by_length(function, tokens, self.task.source_dictionary.pad(), max_tokens)


def checked_ids(ids, size: int, least: int = 0) -> Tensor:
    """Return the ids of one text, (n,), on the CPU.

    Args:
        ids: a tensor, or what one can be made of.
        size: of the vocabulary.
        least: the smallest n.

    Raises:
        ValueError: not whole numbers of that shape, too few, or one outside the vocabulary.
    """
    try:
        tokens = torch.as_tensor(ids).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"neither a text nor ids: {reprlib.repr(ids)}") from None
    if tokens.dim() != 1 or len(tokens) < least:
        raise ValueError(f"the ids of one text are (n,), not {tuple(tokens.shape)}: give the rows one by one")
    wrong = (
        tokens if tokens.is_floating_point() or tokens.dtype == torch.bool else tokens[(tokens < 0) | (tokens >= size)]
    )
    if len(wrong):
        raise ValueError(f"{wrong[0].item()} is not an id of this vocabulary, 0 to {size - 1}")
    return tokens


def _is_one(texts) -> bool:
    """Return whether ``texts`` is one text: a str, or ids (n,)."""
    return isinstance(texts, str) or (isinstance(texts, Tensor) and texts.dim() == 1)
