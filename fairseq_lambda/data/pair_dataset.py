"""The dataset behind ``masked_lm_sop``: samples of a plan, read from the map, assembled, masked and batched."""

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils

from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.data.masking import Masking
from fairseq_lambda.data.sentence_pairs import FIXED, generator, plan_epoch


class MaskedPairDataset(FairseqDataset):
    """Returns samples ``<s> A </s> </s> B </s>`` or ``<s> A </s>``, masked; a function of (seed, epoch, index) alone.

    Args:
        corpus: the split.
        dictionary: fairseq's, ``<mask>`` included.
        masking: how to mask.
        objective: "sop", "nsp" or "none".
        tokens_per_sample: longest sample.
        seed: of pairs and masks.
        epoch: the first training epoch to plan, or ``FIXED`` for a split that is the same every time.
        short_sample_prob: see :func:`plan_epoch`.
    """

    def __init__(
        self,
        corpus: Corpus,
        dictionary: Dictionary,
        masking: Masking,
        objective: str,
        tokens_per_sample: int,
        seed: int,
        epoch: int = FIXED,
        short_sample_prob: float = 0.0,
    ):
        self.corpus, self.masking, self.objective = corpus, masking, objective
        self.bos, self.eos, self.pad = dictionary.bos(), dictionary.eos(), dictionary.pad()
        self.tokens_per_sample, self.seed = tokens_per_sample, seed
        self.short_sample_prob = short_sample_prob
        self.fixed = epoch == FIXED
        self.epoch = epoch
        self._plan()

    def _plan(self) -> None:
        self.pairs = plan_epoch(
            self.corpus,
            self.objective,
            self.tokens_per_sample,
            self.seed,
            self.epoch,
            0.0 if self.fixed else self.short_sample_prob,
        )

    def set_epoch(self, epoch: int) -> None:
        """Plan the pairs of ``epoch``; fairseq calls this several times an epoch, the first one counts."""
        if not self.fixed and epoch != self.epoch:
            self.epoch = epoch
            self._plan()

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return self.fixed  # new pairs have new sizes, so fairseq must make new batches

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """Return ``source`` and ``target`` (n,) int64, and the sentence ``label``."""
        a = self._text(self.pairs.first[index])
        label = int(self.pairs.label[index])
        parts = [[self.bos], a, [self.eos]]
        if label >= 0:
            parts += [[self.eos], self._text(self.pairs.second[index]), [self.eos]]
        tokens = np.concatenate(parts, dtype=np.int64, casting="unsafe")
        source, target = self.masking(tokens, generator(self.seed, self.epoch, int(index)))
        return {
            "id": int(index),
            "source": torch.from_numpy(source),
            "target": torch.from_numpy(target),
            "label": label,
        }

    def _text(self, span: np.ndarray) -> np.ndarray:
        """The tokens of a span of the corpus without the ``</s>`` of its sentences."""
        tokens = np.asarray(self.corpus.tokens[int(span[0]) : int(span[1])])
        return tokens[tokens != self.eos]

    def collater(self, samples: list[dict]) -> dict:
        """Return a right-padded batch: ids, ``net_input``, ``target`` and, unless "none", ``sentence_target``."""
        if not samples:
            return {}
        sources = [s["source"] for s in samples]
        lengths = torch.tensor([len(s) for s in sources])
        batch = {
            "id": torch.tensor([s["id"] for s in samples]),
            "nsentences": len(samples),
            "ntokens": int(lengths.sum()),
            "net_input": {
                "src_tokens": data_utils.collate_tokens(sources, self.pad),
                "src_lengths": lengths,
            },
            "target": data_utils.collate_tokens([s["target"] for s in samples], self.pad),
        }
        if self.objective != "none":
            batch["sentence_target"] = torch.tensor([s["label"] for s in samples])
        return batch

    @property
    def sizes(self) -> np.ndarray:
        return self.pairs.sizes

    def num_tokens(self, index: int) -> int:
        return int(self.pairs.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return self.pairs.sizes[indices].astype(np.int64)

    def size(self, index: int) -> int:
        return int(self.pairs.sizes[index])

    def ordered_indices(self) -> np.ndarray:
        """Return the samples by length, those of one length in random order: batches with little padding."""
        order = generator(self.seed, self.epoch, (1 << 40) - 2).permutation(len(self))
        return order[np.argsort(self.pairs.sizes[order], kind="stable")]
