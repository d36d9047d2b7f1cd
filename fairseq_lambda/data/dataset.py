"""The dataset that fairseq iterates over: masked sentence pairs."""

import numpy as np
import torch

from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.data.masking import TokenMasker
from fairseq_lambda.data.padded import PaddedDataset
from fairseq_lambda.data.pairs import NO_LABEL, plan_samples
from fairseq_lambda.data.seeding import MASKS, ORDER, generator


class SentencePairDataset(PaddedDataset):
    """Samples ``<s> A </s> </s> B </s>`` or ``<s> A </s>``, masked.

    A sample is a function of (seed, epoch, index). In training, each epoch has its own chunks, pairs, labels, masks and
    number of samples. Otherwise every epoch is the same as epoch 1, so that losses can be compared.

    Args:
        corpus: the tokens.
        masker: the masking to apply.
        bos: id of ``<s>``.
        objective: ``sop``, ``nsp`` or ``none``.
        tokens_per_sample: maximum length of a sample, including special symbols.
        seed: together with the epoch, determines all random draws.
        epoch: the first epoch.
        short_sample_prob: share of the samples that are filled only up to a random length.
        training: whether epochs differ, see above.
        length_multiple: batches are padded to a multiple of this many tokens, but not beyond tokens_per_sample.
    """

    whole_documents = False  # see chunk_documents

    def __init__(
        self,
        corpus: Corpus,
        masker: TokenMasker,
        bos: int,
        objective: str = "sop",
        tokens_per_sample: int = 512,
        seed: int = 1,
        epoch: int = 1,
        short_sample_prob: float = 0.0,
        training: bool = False,
        length_multiple: int = 1,
    ):
        super().__init__(masker.pad_idx, tokens_per_sample, length_multiple, training)
        self.corpus, self.masker, self.bos, self.eos = corpus, masker, bos, corpus.eos
        self.objective, self.seed, self.short_sample_prob = objective, seed, short_sample_prob
        self.epoch = self.plan = None
        self._plan_epoch(epoch if training else 1)

    def set_epoch(self, epoch: int) -> None:
        """Plan ``epoch``, unless it is the current one: fairseq calls this twice per epoch."""
        if self.training and epoch != self.epoch:
            self._plan_epoch(epoch)

    def _plan_epoch(self, epoch: int) -> None:
        self.plan = None  # released first, so that old and new plans are never in memory together
        self.plan = plan_samples(
            self.corpus,
            self.objective,
            self.longest,
            self.seed,
            epoch,
            short_prob=self.short_sample_prob,
            short_first=self.training,
            whole_documents=self.whole_documents,
        )
        self.epoch = epoch

    @property
    def sizes(self) -> np.ndarray:
        """Return the length of each sample, including special symbols: (samples,) int32."""
        return self.plan.lengths

    def ordered_indices(self) -> np.ndarray:
        """Return all indices sorted by size, (samples,) int64; samples of equal size are in random order.

        In training, each epoch has its own order.
        """
        order = generator(self.seed, ORDER, self.epoch).permutation(len(self))
        return order[np.argsort(self.sizes[order], kind="stable")]

    def tokens(self, index: int) -> np.ndarray:
        """Return a sample before masking: (size,) int64."""
        plan = self.plan
        parts = [[self.bos], self.corpus.read(plan.a_start[index], plan.a_size[index]), [self.eos]]
        if plan.b_size[index] > 0:
            parts += [[self.eos], self.corpus.read(plan.b_start[index], plan.b_size[index]), [self.eos]]
        return np.concatenate(parts)

    def __getitem__(self, index: int) -> dict:
        """Return ``id``, ``source`` and ``target`` (size,) int64, and ``label``: 0, 1, or -1 for none.

        ``target`` is padding where ``source`` is not masked.
        """
        rng = generator(self.seed, MASKS, self.epoch, int(index))
        source, target = self.masker(self.tokens(index), rng)
        return {
            "id": int(index),
            "source": torch.from_numpy(source),
            "target": torch.from_numpy(target),
            "label": int(self.plan.labels[index]),
        }

    def collater(self, samples: list[dict]) -> dict:
        """Return a batch of b samples, padded on the right to n tokens.

        Without samples, return a batch of padding with nothing to predict: no loss, no gradient, and no token in the
        statistics of batch norm. A worker gets such a batch if the batches of an epoch do not divide evenly among the
        workers. fairseq would replace an empty batch with a copy of another one, and would leave the worker's other
        micro-batches of that update out of the sample size.

        The batch is that of :meth:`batch_of` with more entries: ``target`` (b, n) is padding where nothing is masked;
        ``masked_positions`` (masked,) are the masked positions in the flattened (b * n); ``sentence_target`` (b,) is 0,
        1, or -1 for no label, and is left out for the objective ``none``.

        Everything that can be counted is counted here, by a worker on the CPU, because the training loop would have to
        wait for a GPU to count.
        """
        if not samples:
            return self._idle_batch()
        batch = self.batch_of(samples)
        width = batch["net_input"]["src_tokens"].size(1)
        target = self.padded([sample["target"] for sample in samples], width)
        batch |= {"target": target, "masked_positions": target.flatten().ne(self.pad).nonzero().squeeze(1)}
        if self.objective != "none":
            batch["sentence_target"] = torch.tensor([sample["label"] for sample in samples])
        return batch

    def _idle_batch(self) -> dict:
        padding = torch.full((2,), self.pad)
        batch = self.collater([{"id": 0, "source": padding, "target": padding, "label": NO_LABEL}])
        batch["net_input"].update(src_lengths=torch.tensor([0]), has_padding=True)
        return batch | {"id": batch["id"][:0], "nsentences": 0, "ntokens": 0}
