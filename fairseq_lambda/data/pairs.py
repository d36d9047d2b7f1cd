"""The plan of an epoch: which tokens make up each sample, and the label of each pair."""

from dataclasses import dataclass

import numpy as np

from fairseq_lambda.data.chunks import chunk_documents
from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.data.seeding import CHUNKS, PAIRS, generator

OBJECTIVES = ("sop", "nsp", "none")
NO_LABEL = -1
# <s> A </s> </s> B </s> for the pairs, <s> A </s> without
SPECIALS_OF_PAIR, SPECIALS_OF_SINGLE = 4, 2


@dataclass(frozen=True)
class SamplePlan:
    """One epoch's samples, along the corpus; all arrays are (samples,).

    A segment is ``size`` tokens of the file from ``start`` on, ``</s>`` between its sentences included.
    """

    a_start: np.ndarray  # int64
    a_size: np.ndarray  # int32
    b_start: np.ndarray  # int64
    b_size: np.ndarray  # int32, 0: a sample without B
    labels: (
        np.ndarray
    )  # int8: 0 in order (or next), 1 swapped (or of another document), -1 without B
    lengths: np.ndarray  # int32: tokens of the assembled sample
    long_sentences: int  # sentences over the budget
    pieces: int  # samples that they were cut into
    single_sentences: int  # samples of one whole sentence, where a pair was wanted

    def __len__(self) -> int:
        return len(self.a_start)

    @property
    def nbytes(self) -> int:
        """Return the memory of the arrays, in bytes."""
        return sum(v.nbytes for v in vars(self).values() if isinstance(v, np.ndarray))


def plan_samples(
    corpus: Corpus,
    objective: str,
    tokens_per_sample: int,
    seed: int,
    epoch: int,
    short_prob: float = 0.0,
    short_first: bool = False,
) -> SamplePlan:
    """Return the samples of an epoch: a function of its arguments alone, whatever was planned before.

    ``sop`` (Lan et al., ALBERT, 2020, section 3.1): a chunk of two or more sentences is split at a sentence boundary
    drawn uniformly, and a fair coin swaps its two parts (label 1). ``nsp`` (Devlin et al., BERT, 2019, section 3.1): a
    fair coin gives the second part to a chunk of another document, see :func:`exchange`. ``none``: no pairs. What cannot
    be a pair is a sample without a label: a chunk of one sentence, and the pieces of a sentence longer than the budget.

    Args:
        objective: ``sop``, ``nsp`` or ``none``.
        tokens_per_sample: most tokens of a sample, special symbols included; at least 8.
        short_prob, short_first: see :func:`chunk_documents`.
    """
    pairing = objective != "none"
    budget = tokens_per_sample - (SPECIALS_OF_PAIR if pairing else SPECIALS_OF_SINGLE)
    rng = generator(seed, CHUNKS, epoch)
    first, end = chunk_documents(corpus, budget, rng, short_prob, short_first)

    content = (corpus.content[end] - corpus.content[first]).astype(np.int32)
    is_long = content > budget
    parts = np.where(is_long, -(-content // budget), 1)
    if (
        is_long.any()
    ):  # a long sentence becomes parts of equal length, one sample each, in its place
        piece = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        first, end, content, is_long, parts = (
            np.repeat(x, parts) for x in (first, end, content, is_long, parts)
        )
    else:
        piece = np.zeros_like(parts)
    start = corpus.token_start(first)
    size = (corpus.token_start(end) - 1 - start).astype(np.int32)
    low, high = content * piece // parts, content * (piece + 1) // parts
    a_start = np.where(is_long, start + low, start)
    a_size = np.where(is_long, high - low, size)
    a_content = np.where(is_long, high - low, content)

    count = len(first)
    labels = np.full(count, NO_LABEL, dtype=np.int8)
    b_start, b_size = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int32)
    b_content = np.zeros(count, dtype=np.int32)
    several = end - first > 1
    if pairing and several.any():
        rng = generator(seed, PAIRS, epoch)
        chosen = np.flatnonzero(several)
        split = first[chosen] + rng.integers(1, end[chosen] - first[chosen])
        label = rng.integers(0, 2, size=len(chosen))
        b_start[chosen] = corpus.token_start(split)
        a_size[chosen] = b_start[chosen] - 1 - start[chosen]
        b_size[chosen] = size[chosen] - a_size[chosen] - 1
        a_content[chosen] = corpus.content[split] - corpus.content[first[chosen]]
        b_content[chosen] = content[chosen] - a_content[chosen]
        if objective == "sop":
            swap = chosen[label == 1]
            for a, b in ((a_start, b_start), (a_size, b_size), (a_content, b_content)):
                a[swap], b[swap] = b[swap], a[swap]
        else:
            negative = chosen[label == 1]
            documents = corpus.document_of(first[negative])
            giver = exchange(b_content[negative], documents, rng)
            label[np.flatnonzero(label == 1)[giver < 0]] = 0
            negative, giver = negative[giver >= 0], negative[giver[giver >= 0]]
            for b in (b_start, b_size, b_content):
                b[negative] = b[giver]
        labels[chosen] = label

    specials = np.where(labels == NO_LABEL, SPECIALS_OF_SINGLE, SPECIALS_OF_PAIR)
    pieces = int(is_long.sum())
    return SamplePlan(
        a_start=a_start,
        a_size=a_size.astype(np.int32),
        b_start=b_start,
        b_size=b_size,
        labels=labels,
        lengths=(a_content + b_content + specials).astype(np.int32),
        long_sentences=int((is_long & (piece == 0)).sum()),
        pieces=pieces,
        single_sentences=int(count - several.sum()) - pieces if pairing else 0,
    )


def exchange(lengths: np.ndarray, documents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each segment the index of another one that can stand in for it, or -1: (segments,) int64.

    The substitute is the next shorter (or as long) segment of another document, segments of one length in random order:
    lengths hardly change, so that they do not tell the negatives from the positives, and no sample gets longer.

    Args:
        lengths: (segments,) in tokens.
        documents: (segments,) number of the document of each.
    """
    order = np.lexsort((rng.random(len(lengths)), lengths))
    sorted_documents = documents[order]
    # in the sorted row the nearest other document is just before the run of equal documents
    new_run = np.ones(len(order), dtype=bool)
    new_run[1:] = sorted_documents[1:] != sorted_documents[:-1]
    run_start = np.maximum.accumulate(np.where(new_run, np.arange(len(order)), 0))
    giver = np.full(len(order), -1, dtype=np.int64)
    found = run_start > 0
    giver[order[found]] = order[run_start[found] - 1]
    return giver
