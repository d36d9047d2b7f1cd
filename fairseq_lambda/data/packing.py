"""Documents packed into long samples: samples are full, and no document is cut if it fits into one."""

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from fairseq_lambda.data.dataset import SentencePairDataset
from fairseq_lambda.data.seeding import PACKS, generator


@dataclass(frozen=True)
class Packing:
    """Which texts share a sample."""

    order: np.ndarray  # (texts,) int32, sample after sample
    bounds: np.ndarray  # (samples + 1,) int64: sample i has the texts order[bounds[i] : bounds[i + 1]]
    lengths: np.ndarray  # (samples,) int32, in tokens

    def __len__(self) -> int:
        return len(self.lengths)

    def texts(self, sample: int) -> np.ndarray:
        """Return the texts of a sample, in their order in it."""
        return self.order[self.bounds[sample] : self.bounds[sample + 1]]


def pack(lengths: np.ndarray, capacity: int, rng: np.random.Generator) -> Packing:
    """Pack texts of these lengths into samples of at most ``capacity`` tokens: best fit, the longest first.

    Each text goes into the fullest sample that has room for it. Texts whose lengths lie between the same two powers of
    two come in random order, so that each call combines different texts. If some texts are short, all samples but the
    last are full to within a few tokens. This takes about a second per million texts.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-np.frexp(lengths[order])[1], kind="stable")]
    sample_of = np.empty(len(lengths), dtype=np.int32)
    spaces, samples = [], defaultdict(list)  # the distinct amounts of free space, ascending; the samples that have them
    count = 0
    for text, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(spaces, length)
        if at == len(spaces):
            sample, space = count, capacity
            count += 1
        else:
            space = spaces[at]
            sample = samples[space].pop()
            if not samples[space]:
                del spaces[at]
        sample_of[text] = sample
        space -= length
        if not samples[space]:
            insort(spaces, space)
        samples[space].append(sample)
    order = order[np.argsort(sample_of[order], kind="stable")]
    bounds = np.append(0, np.cumsum(np.bincount(sample_of, minlength=count)))
    totals = np.bincount(sample_of, weights=lengths, minlength=count)
    return Packing(order.astype(np.int32), bounds, totals.astype(np.int32))


class PackedDocumentsDataset(SentencePairDataset):
    """Samples ``<s> A </s> <s> B </s> ...``, masked: texts of different documents, which the model keeps apart.

    A document that fits into a sample is one text. A longer one is cut into texts of whole sentences, in different
    places in each training epoch.

    The arguments are those of :class:`SentencePairDataset`, with the objective ``none``.
    """

    whole_documents = True

    def _plan_epoch(self, epoch: int) -> None:
        self.packing = None
        super()._plan_epoch(epoch)
        self.packing = pack(self.plan.lengths, self.longest, generator(self.seed, PACKS, epoch))

    @property
    def sizes(self) -> np.ndarray:
        return self.packing.lengths

    def tokens(self, index: int) -> np.ndarray:
        return np.concatenate([super(PackedDocumentsDataset, self).tokens(text) for text in self.packing.texts(index)])

    def __getitem__(self, index: int) -> dict:
        """Return a sample with its ``document_lengths``, a list of int."""
        lengths = self.plan.lengths[self.packing.texts(index)].tolist()
        return {**super().__getitem__(index), "document_lengths": lengths}

    def collater(self, samples: list[dict]) -> dict:
        """Return a batch whose ``net_input`` has ``document_lengths``, a list per row."""
        batch = super().collater(samples)
        if samples:  # else this is the idle batch, whose dummy sample has been collated here already
            lengths = [sample.get("document_lengths", [len(sample["source"])]) for sample in samples]
            batch["net_input"]["document_lengths"] = lengths
        return batch
