"""The plan of an epoch: the tokens of each sample and the label of each pair."""

from dataclasses import dataclass

import numpy as np

from fairseq_lambda.data.chunks import chunk_documents
from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.data.seeding import CHUNKS, PAIRS, generator

OBJECTIVES = ("sop", "nsp", "none")
NO_LABEL = -1
# special symbols in <s> A </s> </s> B </s>, and in <s> A </s>, which has no label
SPECIALS_OF_PAIR, SPECIALS_OF_SINGLE = 4, 2


@dataclass(frozen=True)
class Segments:
    """Runs of tokens in the file; each array is (segments,)."""

    start: np.ndarray  # int64
    size: np.ndarray  # int32, including the </s> between the sentences of a segment
    content: np.ndarray  # int32, without them

    def __getitem__(self, index) -> "Segments":
        return Segments(self.start[index], self.size[index], self.content[index])

    def put(self, index, other: "Segments") -> None:
        """Overwrite the segments at ``index`` with ``other``."""
        for name, array in vars(self).items():
            array[index] = getattr(other, name)


@dataclass(frozen=True)
class SamplePlan:
    """The samples of an epoch, in the order of the corpus; each array is (samples,), 21 bytes per sample in all.

    The starts are uint32 if the file has fewer than 2**32 tokens, else int64.
    """

    a_start: np.ndarray  # see Segments
    a_size: np.ndarray
    b_start: np.ndarray
    b_size: np.ndarray  # 0 without a label
    labels: np.ndarray  # int8: 0 in order or next, 1 swapped or from another document, -1 no label
    lengths: np.ndarray  # int32, in tokens, including special symbols
    long_sentences: int  # sentences longer than the budget
    pieces: int  # samples that they are cut into
    single_sentences: int  # samples of one whole sentence, which cannot be a pair

    def __len__(self) -> int:
        return len(self.labels)


def plan_samples(
    corpus: Corpus,
    objective: str,
    tokens_per_sample: int,
    seed: int,
    epoch: int,
    short_prob: float = 0.0,
    short_first: bool = False,
    whole_documents: bool = False,
) -> SamplePlan:
    """Return the samples of an epoch; they depend on the arguments only.

    - ``sop`` (ALBERT, Lan et al., 2020, section 3.1): a chunk of two or more sentences is split at a sentence boundary
      drawn uniformly, and its two parts are swapped with probability 1/2 (label 1).
    - ``nsp`` (BERT, Devlin et al., 2019, section 3.1): split in the same way, and with probability 1/2 the second part
      is replaced by one from another document (label 1), see :func:`exchange`.
    - ``none``: no pairs.

    Chunks that cannot be pairs become samples without a label: a chunk of one sentence, and each of the equal pieces
    into which a sentence longer than the budget is cut.

    Args:
        corpus: the documents.
        objective: ``sop``, ``nsp`` or ``none``.
        tokens_per_sample: maximum length of a sample, including special symbols; at least 8.
        seed, epoch: determine all random draws.
        short_prob, short_first, whole_documents: see :func:`chunk_documents`.
    """
    pairing = objective != "none"
    budget = tokens_per_sample - (SPECIALS_OF_PAIR if pairing else SPECIALS_OF_SINGLE)
    rng = generator(seed, CHUNKS, epoch)
    first, end = chunk_documents(corpus, budget, rng, short_prob, short_first, whole_documents)

    content = corpus.content[end] - corpus.content[first]
    parts = np.maximum(1, -(-content // budget))  # above 1 only for long sentences
    long = parts > 1
    several = end - first > 1
    if long.any():
        first, end, several = (np.repeat(x, parts) for x in (first, end, several))
    a = _cut(_segments(corpus, first, end), parts)

    count = len(first)
    b = Segments(*(np.zeros(count, dtype) for dtype in (np.int64, np.int32, np.int32)))
    labels = np.full(count, NO_LABEL, dtype=np.int8)
    pairs = np.flatnonzero(several) if pairing else np.zeros(0, np.int64)
    if len(pairs):
        rng = generator(seed, PAIRS, epoch)
        middle = first[pairs] + rng.integers(1, end[pairs] - first[pairs])
        labels[pairs] = rng.integers(0, 2, size=len(pairs))
        a.put(pairs, _segments(corpus, first[pairs], middle))
        b.put(pairs, _segments(corpus, middle, end[pairs]))
        negatives = np.flatnonzero(labels == 1)
        if objective == "sop":
            front = a[negatives]
            a.put(negatives, b[negatives])
            b.put(negatives, front)
        else:
            documents = corpus.document_of(first[negatives])
            giver = exchange(b.content[negatives], documents, rng)
            labels[negatives[giver < 0]] = 0
            b.put(negatives[giver >= 0], b[negatives[giver[giver >= 0]]])
    specials = np.where(labels == NO_LABEL, SPECIALS_OF_SINGLE, SPECIALS_OF_PAIR)
    pieces = int(parts[long].sum())
    position = np.uint32 if corpus.num_tokens < 2**32 else np.int64
    return SamplePlan(
        a_start=a.start.astype(position),
        a_size=a.size,
        b_start=b.start.astype(position),
        b_size=b.size,
        labels=labels,
        lengths=a.content + b.content + specials.astype(np.int32),
        long_sentences=int(np.count_nonzero(long)),
        pieces=pieces,
        single_sentences=count - len(pairs) - pieces if pairing else 0,
    )


def exchange(lengths: np.ndarray, documents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each segment the index of the segment that replaces it, or -1 for none: (segments,) int64.

    The replacement is the next shorter (or equally long) segment of another document, with segments of equal length in
    random order. So lengths hardly change and do not tell negatives from positives, no sample gets longer, and nearly
    all segments are used, most of them once.

    Args:
        lengths: (segments,) in tokens.
        documents: (segments,) the number of each segment's document.
        rng: orders segments of equal length.
    """
    order = np.lexsort((rng.random(len(lengths)), lengths))
    row = documents[order]
    # the nearest other document is just before the run of equal documents
    new_run = np.append(True, row[1:] != row[:-1])
    run_start = np.maximum.accumulate(np.where(new_run, np.arange(len(row)), 0))
    giver = np.full(len(row), -1, dtype=np.int64)
    found = run_start > 0
    giver[order[found]] = order[run_start[found] - 1]
    return giver


def _segments(corpus: Corpus, first: np.ndarray, end: np.ndarray) -> Segments:
    """Return the lines from ``first`` to ``end`` (exclusive), without the last ``</s>``."""
    start = corpus.token_start(first)
    size = corpus.token_start(end) - 1 - start
    content = corpus.content[end] - corpus.content[first]
    return Segments(start, size.astype(np.int32), content.astype(np.int32))


def _cut(segments: Segments, parts: np.ndarray) -> Segments:
    """Return the segments, already repeated ``parts`` times, each cut to one of that many equal pieces."""
    if len(segments.start) == len(parts):
        return segments
    piece = np.arange(len(segments.start)) - np.repeat(np.cumsum(parts) - parts, parts)
    parts = np.repeat(parts, parts)
    cut = parts > 1
    low = np.where(cut, segments.size * piece // parts, 0)
    high = np.where(cut, segments.size * (piece + 1) // parts, segments.size)
    size = (high - low).astype(np.int32)
    content = np.where(cut, size, segments.content)
    return Segments(segments.start + low, size, content)
