"""Chunks: runs of consecutive sentences of one document, each filling a sample."""

from array import array

import numpy as np

from fairseq_lambda.data.corpus import Corpus

LINES_PER_STEP = 2**18  # random numbers are drawn per step, so another value gives another plan


def chunk_documents(
    corpus: Corpus,
    budget: int,
    rng: np.random.Generator,
    short_prob: float = 0.0,
    short_first: bool = False,
    whole_documents: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first line and the end (exclusive) of each chunk, in corpus order: two arrays (chunks,) int32.

    A chunk has as many whole sentences of its document as fit into its target length, but at least one. Only a chunk of
    a single sentence can exceed the budget. Every sentence is in exactly one chunk.

    A sentence that no longer fits starts the next chunk, and long sentences do so more often than short ones. If all
    documents were filled from the front, lengths alone would tell the first part of a chunk from the second with an
    accuracy of 0.55 (WikiText-2, 128 tokens). So each document is filled from its front or from its back with equal
    probability.

    The end of the chunk that would start there is computed for all lines at once. Only the steps from one chunk to the
    next are taken one by one.

    Args:
        corpus: the documents.
        budget: maximum number of tokens of a chunk, without ``</s>``.
        rng: the source of all random draws.
        short_prob: probability that a target length is drawn from 1..budget instead of being the budget.
        short_first: draw the target length of each document's first chunk from 1..budget, which moves all boundaries in
            the document. The first chunk is the one at which filling starts.
        whole_documents: apply ``short_first`` only to documents longer than the budget; the others then stay whole.
    """
    backward = rng.random(len(corpus) - corpus.num_sentences + 1) < 0.5  # per document
    content = np.concatenate(
        [_mirrored_content(corpus, backward, low) for low in range(0, len(corpus) + 1, LINES_PER_STEP)]
    )
    jump = np.empty(len(corpus), dtype=np.int32)
    document_starts = corpus.document_starts() if short_first else np.zeros(0, np.int32)
    for low in range(0, len(corpus), LINES_PER_STEP):
        lines = np.arange(low, min(low + LINES_PER_STEP, len(corpus)))
        targets = np.full(len(lines), budget)
        short = np.flatnonzero(rng.random(len(lines)) < short_prob) if short_prob else []
        targets[short] = rng.integers(1, budget, size=len(short), endpoint=True)
        here = slice(*np.searchsorted(document_starts, [low, low + LINES_PER_STEP]))
        starts = document_starts[here] - low
        if whole_documents:
            first, end = corpus.document_bounds(lines[starts])
            starts = starts[corpus.content[end] - corpus.content[first] > budget]
        targets[starts] = rng.integers(1, budget, size=len(starts), endpoint=True)

        ends = np.searchsorted(content, content[lines] + targets, side="right") - 1
        ends = np.minimum(ends, corpus.document_bounds(lines)[1])
        jump[lines] = np.maximum(ends, lines + 1)
    del content

    first = np.frombuffer(_hops(jump), dtype=np.int32)
    starts, ends = corpus.document_bounds(first)
    is_chunk = first < ends  # False for empty lines
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
    """Return ``corpus.content[low : low + LINES_PER_STEP]`` with the lines of backward documents in reverse order.

    Line i of a document from s to e (exclusive) is line s + e - 1 - i of the reversed one.
    """
    lines = np.arange(low, min(low + LINES_PER_STEP, len(corpus) + 1))
    starts, ends = corpus.document_bounds(lines)
    mirrored = corpus.content[starts] + corpus.content[ends] - corpus.content[starts + ends - lines]
    return np.where(backward[corpus.document_of(lines)], mirrored, corpus.content[lines])


def _hops(jump: np.ndarray) -> array:
    """Return 0, jump[0], jump[jump[0]] and so on, while they are indices of ``jump``."""
    hops, at, targets = array("i"), 0, memoryview(jump)
    while at < len(targets):
        hops.append(at)
        at = targets[at]
    return hops
