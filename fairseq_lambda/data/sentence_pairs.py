"""The samples of an epoch: which tokens make A, which make B, and in what order; a function of (seed, epoch)."""

from dataclasses import dataclass

import numpy as np

from fairseq_lambda.data.corpus import Corpus

OBJECTIVES = ("sop", "nsp", "none")
MAX_RUN = 1000  # sentences of a document that are cut into chunks one after another; see _chunks
FIXED = 0  # the epoch of splits that are the same every time; training counts from 1


def generator(seed: int, epoch: int, index: int | None = None) -> np.random.Generator:
    """Return the random numbers of one sample, or of the plan of an epoch; all streams are independent.

    Philox is a counter-based generator: a key (here seed; epoch and index) is all its state.
    """
    low = (1 << 40) - 1 if index is None else index
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, (epoch << 40) | low]))


def special_tokens(objective: str) -> int:
    """Return how many tokens ``<s> A </s> </s> B </s>`` or ``<s> A </s>`` has beside the text."""
    return 2 if objective == "none" else 4


@dataclass
class SentencePairs:
    """Samples of one epoch, an entry each; ranges are of positions in the corpus's flat token array.

    ``first`` and ``second`` (samples, 2): begin and end of A and of B, ``</s>`` of their sentences included; B is
    empty for a text without a sentence label. ``label``: 0 in order / next, 1 swapped / random, -1 none.
    ``sizes``: tokens of the finished sample.
    """

    first: np.ndarray
    second: np.ndarray
    label: np.ndarray
    sizes: np.ndarray
    long_pieces: int  # samples that are pieces of sentences over the budget

    def __len__(self) -> int:
        return len(self.label)


def plan_epoch(
    corpus: Corpus,
    objective: str,
    tokens_per_sample: int,
    seed: int,
    epoch: int,
    short_sample_prob: float = 0.0,
) -> SentencePairs:
    """Return the samples of ``epoch``; of ``FIXED`` those of validation, which are always the same.

    1. Each document is cut into chunks: as many whole sentences as fit the budget, tokens_per_sample less the special
       tokens. With ``short_sample_prob`` a chunk's own budget is drawn uniformly below. In training the first chunk of
       each document gets such a budget too, so that all boundaries behind it move from epoch to epoch. A sentence
       over the budget is cut into pieces, each a sample. Every token is in exactly one sample.
    2. A chunk of two sentences or more is split at one of its sentence boundaries, uniformly; only now, so that no
       truncation can tell A from B.
    3. ``sop``: in one half of the pairs A and B change places. ``nsp``: in one half, B is another document's; each
       takes the B next in length, not longer, so that length says nothing about the label and the budget holds.
    """
    rng = generator(seed, epoch)
    budget = tokens_per_sample - special_tokens(objective)
    sizes = corpus.index.sizes
    bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # sentence -> position in the flat tokens
    begin, end, document = _chunks(corpus, bounds, budget, rng, epoch != FIXED, short_sample_prob)

    count = end - begin
    pairs = np.flatnonzero(count > 1) if objective != "none" else np.empty(0, dtype=np.int64)
    split = end.copy()
    split[pairs] = begin[pairs] + 1 + (rng.random(len(pairs)) * (count[pairs] - 1)).astype(np.int64)
    lengths = bounds[end] - bounds[begin] - count  # without </s>
    first = np.stack([bounds[begin], bounds[split]], axis=1)
    second = np.stack([bounds[split], bounds[end]], axis=1)
    label = np.full(len(begin), -1, dtype=np.int8)
    label[pairs] = 0
    chosen = pairs[rng.random(len(pairs)) < 0.5]
    if objective == "sop":
        label[chosen] = 1
        first[chosen], second[chosen] = second[chosen], first[chosen].copy()
    elif objective == "nsp":
        b_lengths = bounds[end] - bounds[split] - (end - split)
        takers, givers = _others(chosen, b_lengths, document, rng)
        label[takers] = 1
        lengths[takers] += b_lengths[givers] - b_lengths[takers]
        second[takers] = second[givers]  # the right side is a copy made before the left changes

    first, second, label, lengths, pieces = _cut_long(first, second, label, lengths, budget)
    sample_sizes = lengths + np.where(label < 0, 2, 4)
    position = np.uint32 if bounds[-1] < 2**32 else np.int64
    size = np.uint16 if tokens_per_sample < 2**16 else np.int32
    return SentencePairs(
        first.astype(position), second.astype(position), label, sample_sizes.astype(size), pieces
    )


def _chunks(corpus, bounds, budget, rng, vary, short_sample_prob):
    """Return begin and end sentence and document number of every chunk, in the order of the text.

    Greedy filling is sequential in a document, so the documents go side by side: a round finds the next chunk of all
    of them by one binary search. Documents over MAX_RUN sentences count as several, or one huge one would go alone.
    """
    starts, stops = corpus.documents()
    runs = -(-(stops - starts) // MAX_RUN)
    document = np.repeat(np.arange(len(starts)), runs)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(runs) - runs, runs)
    here = starts[document] + nth * MAX_RUN
    stop = np.minimum(here + MAX_RUN, stops[document])
    text = bounds - np.arange(len(bounds))  # text tokens before a sentence: every line has one </s>
    begins, ends, documents = [], [], []
    first_round = vary
    while len(here):
        target = np.full(len(here), budget)
        short = rng.random(len(here)) < (1.0 if first_round else short_sample_prob)
        target[short] = rng.integers(1, budget + 1, size=int(short.sum()))
        first_round = False
        end = np.searchsorted(text, text[here] + target, side="right") - 1
        end = np.clip(end, here + 1, stop)  # a sentence that is alone over its target is taken whole
        begins.append(here)
        ends.append(end)
        documents.append(document)
        more = end < stop
        here, stop, document = end[more], stop[more], document[more]
    begin, end, document = map(np.concatenate, (begins, ends, documents))
    order = np.argsort(begin)
    return begin[order], end[order], document[order]


def _others(chosen, b_lengths, document, rng):
    """Return the chunks that get another document's B, and whose B each gets: the next shorter, or as long, of chosen."""
    ranked = rng.permutation(chosen)
    ranked = ranked[np.argsort(b_lengths[ranked], kind="stable")]
    owner = document[ranked]
    giver = np.arange(len(ranked)) - 1
    while True:
        same = (giver >= 0) & (owner[giver] == owner)
        if not same.any():
            break
        giver[same] -= 1
    found = giver >= 0
    return ranked[found], ranked[giver[found]]


def _cut_long(first, second, label, lengths, budget):
    """Cut the samples over the budget, each one sentence, into pieces of at most the budget, the rest untouched."""
    long = np.flatnonzero(lengths > budget)
    if not len(long):
        return first, second, label, lengths, 0
    pieces = np.ones(len(lengths), dtype=np.int64)
    pieces[long] = -(-lengths[long] // budget)
    source = np.repeat(np.arange(len(lengths)), pieces)
    nth = np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first, second, label, lengths = first[source], second[source], label[source], lengths[source]
    cut = pieces[source] > 1
    begin = first[cut, 0] + nth[cut] * budget
    lengths[cut] = np.minimum(lengths[cut] - nth[cut] * budget, budget)
    first[cut] = np.stack([begin, begin + lengths[cut]], axis=1)
    return first, second, label, lengths, int(cut.sum())
