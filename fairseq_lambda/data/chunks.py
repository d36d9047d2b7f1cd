"""Chunks: consecutive sentences of one document that fill a sample."""

from array import array

import numpy as np

from fairseq_lambda.data.corpus import Corpus

BLOCK = 2**18  # lines a step; the draws go by blocks, so another value gives another plan


def chunk_documents(
    corpus: Corpus,
    budget: int,
    rng: np.random.Generator,
    short_prob: float = 0.0,
    short_first: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return first line and end (exclusive) of each chunk, along the corpus: two (chunks,) int32.

    A chunk takes as many whole sentences of its document as fit its target, and one at least. Only
    a chunk of a single sentence can exceed the budget. Every sentence is in exactly one chunk.

    Where a chunk that starts at line i ends is worked out for all i at once; what is left to do one
    by one is hopping from chunk to chunk.

    Args:
        budget: most tokens of a chunk, ``</s>`` not counted.
        short_prob: probability of a target drawn from 1..budget in place of the budget.
        short_first: draw the target of each document's first chunk from 1..budget, which moves all
            the boundaries in it.
    """
    jump = np.empty(len(corpus), dtype=np.int32)
    document_starts = corpus.document_starts() if short_first else np.zeros(0, np.int32)
    for low in range(0, len(corpus), BLOCK):
        lines = np.arange(low, min(low + BLOCK, len(corpus)))
        targets = np.full(len(lines), budget)
        short = np.flatnonzero(rng.random(len(lines)) < short_prob) if short_prob else []
        targets[short] = rng.integers(1, budget, size=len(short), endpoint=True)
        here = slice(*np.searchsorted(document_starts, [low, low + BLOCK]))
        starts = document_starts[here] - low
        targets[starts] = rng.integers(1, budget, size=len(starts), endpoint=True)

        limits = corpus.content[lines] + targets
        ends = np.searchsorted(corpus.content, limits, side="right") - 1
        ends = np.minimum(ends, corpus.document_ends(lines))
        jump[lines] = np.maximum(ends, lines + 1)

    first = np.frombuffer(_hops(jump), dtype=np.int32)
    first = first[corpus.sizes[first] > 1]  # without the empty lines
    return first, jump[first]


def _hops(jump: np.ndarray) -> array:
    """Return 0, jump[0], jump[jump[0]] and so on, as far as they are indices of ``jump``."""
    hops, at, targets = array("i"), 0, memoryview(jump)
    while at < len(targets):
        hops.append(at)
        at = targets[at]
    return hops
