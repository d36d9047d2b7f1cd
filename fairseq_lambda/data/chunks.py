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

    The sentence that did not fit any more begins the next chunk, and long ones do so more often
    than short ones: were all documents filled from the front, lengths would tell the first part of
    a chunk from the second with an accuracy of 0.55 (WikiText-2, 128 tokens). So a fair coin says
    for each document whether it is filled from its front or from its back.

    Where a chunk that starts at line i ends is worked out for all i at once; what is left to do one
    by one is hopping from chunk to chunk.

    Args:
        budget: most tokens of a chunk, ``</s>`` not counted.
        short_prob: probability of a target drawn from 1..budget in place of the budget.
        short_first: draw the target of each document's first chunk from 1..budget, which moves all
            the boundaries in it; the first chunk is the one where the filling starts.
    """
    backward = rng.random(len(corpus) - corpus.num_sentences + 1) < 0.5  # by document
    content = np.concatenate([_mirrored_content(corpus, backward, low) for low in range(0, len(corpus) + 1, BLOCK)])
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

        ends = np.searchsorted(content, content[lines] + targets, side="right") - 1
        ends = np.minimum(ends, corpus.document_bounds(lines)[1])
        jump[lines] = np.maximum(ends, lines + 1)
    del content

    first = np.frombuffer(_hops(jump), dtype=np.int32)
    starts, ends = corpus.document_bounds(first)
    is_chunk = first < ends  # and not an empty line
    first, starts, ends = first[is_chunk], starts[is_chunk], ends[is_chunk]
    end = jump[first]
    mirrored = backward[corpus.document_of(first)]
    first, end = (
        np.where(mirrored, starts + ends - end, first),
        np.where(mirrored, starts + ends - first, end),
    )
    order = np.argsort(first, kind="stable")
    return first[order], end[order]


def _mirrored_content(corpus: Corpus, backward: np.ndarray, low: int) -> np.ndarray:
    """Return ``corpus.content[low : low + BLOCK]`` as if backward documents ran from back to front.

    Line i of a document from s up to e is line s + e - 1 - i of the mirrored one.
    """
    lines = np.arange(low, min(low + BLOCK, len(corpus) + 1))
    starts, ends = corpus.document_bounds(lines)
    mirrored = corpus.content[starts] + corpus.content[ends] - corpus.content[starts + ends - lines]
    return np.where(backward[corpus.document_of(lines)], mirrored, corpus.content[lines])


def _hops(jump: np.ndarray) -> array:
    """Return 0, jump[0], jump[jump[0]] and so on, as far as they are indices of ``jump``."""
    hops, at, targets = array("i"), 0, memoryview(jump)
    while at < len(targets):
        hops.append(at)
        at = targets[at]
    return hops
