"""Running a model over any number of texts: batches of similar length, constant memory, results in order."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MAX_TOKENS = 8192  # of a batch, padding included
WINDOW = 2048  # texts that are read ahead and sorted

Result = TypeVar("Result")


def by_length(
    function: Callable[[Tensor], Iterable[Result]],
    texts: Iterable[Tensor],
    padding_idx: int,
    max_tokens: int = MAX_TOKENS,
    window: int = WINDOW,
) -> Iterator[Result]:
    """Yield what ``function`` returns for each text, in the order of the texts.

    Texts are read a window at a time and sorted by length, so that a batch has little padding. An iterable of any
    length is read as its results are consumed.

    Args:
        function: takes ids (b, n), right-padded, and returns one result for each row.
        texts: ids (n,) each.
        padding_idx: the id that pads a row.
        max_tokens: most b * n; a longer text is a batch of its own.
        window: texts held at a time.
    """
    texts = iter(texts)
    while some := list(itertools.islice(texts, window)):
        order = sorted(range(len(some)), key=lambda index: len(some[index]))
        results = {}
        for indices in _batches(order, [len(text) for text in some], max_tokens):
            batch = pad_sequence([some[index] for index in indices], batch_first=True, padding_value=padding_idx)
            results.update(zip(indices, function(batch), strict=True))
        for index in range(len(some)):
            yield results.pop(index)


def _batches(order: list[int], lengths: list[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut ``order``, indices by rising length, into batches of at most ``max_tokens`` tokens once padded."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
