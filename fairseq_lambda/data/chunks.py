"""Chunks: consecutive sentences of one document that fill a sample."""

from array import array

import numpy as np

from fairseq_lambda.data.corpus import Corpus

BLOCK = (
    2**18
)  # sentences a step; the draws follow the blocks, so another value gives another (as good) plan


def chunk_documents(
    corpus: Corpus,
    budget: int,
    rng: np.random.Generator,
    short_prob: float = 0.0,
    short_first: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return first sentence and end (exclusive) of each chunk, along the corpus: two (chunks,) int32.

    A chunk takes as many whole sentences of its document as fit its target, one at least. Only a chunk of a single
    sentence can exceed the budget. Every sentence is in one chunk.

    Where a chunk from sentence s would end is worked out for every s at once; what is left to do one by one is hopping
    from chunk to chunk.

    Args:
        budget: most tokens of a chunk, ``</s>`` not counted.
        short_prob: probability of a target drawn from 1..budget in place of the budget.
        short_first: draw the target of every document's first chunk from 1..budget, which moves all its boundaries.
    """
    lines = len(corpus)
    jump = np.empty(lines, dtype=np.int32)
    document_starts = corpus.document_starts() if short_first else np.zeros(0, np.int32)
    for low in range(0, lines, BLOCK):
        sentences = np.arange(low, min(low + BLOCK, lines))
        targets = np.full(len(sentences), budget, dtype=np.int64)
        if short_prob > 0:
            short = rng.random(len(sentences)) < short_prob
            targets[short] = rng.integers(1, budget, size=short.sum(), endpoint=True)
        here = slice(*np.searchsorted(document_starts, [low, low + BLOCK]))
        starts = document_starts[here] - low
        targets[starts] = rng.integers(1, budget, size=len(starts), endpoint=True)

        limits = corpus.content[sentences] + targets
        ends = np.searchsorted(corpus.content, limits, side="right") - 1
        ends = np.minimum(ends, corpus.document_ends(sentences))
        jump[low : low + BLOCK] = np.maximum(ends, sentences + 1)

    first = np.frombuffer(_hops(jump), dtype=np.int32)
    first = first[corpus.sizes[first] > 1]  # the empty lines
    return first, jump[first]


def _hops(jump: np.ndarray) -> array:
    """Return 0, jump[0], jump[jump[0]] and so on, as far as they are indices of ``jump``."""
    hops, at, targets, lines = array("i"), 0, memoryview(jump), len(jump)
    while at < lines:
        hops.append(at)
        at = targets[at]
    return hops
