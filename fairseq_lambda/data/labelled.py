"""The datasets for fine-tuning: texts or words with their labels."""

import abc
import os

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path

from fairseq_lambda.data.padded import PaddedDataset
from fairseq_lambda.data.seeding import ORDER, generator
from fairseq_lambda.data.shorten import SPECIAL, cut_at_words, join, pair_lengths

BLOCK = 2048  # samples sorted by length together, so that batches are random and yet have little padding
NO_LABEL = -1


def read_list(path: str) -> MMapIndexedDataset:
    """Return a memory-mapped list of ids.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the index is damaged.
    """
    for file in (index_file_path(path), data_file_path(path)):
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{file} is missing: make the folder with lambda-bert finetune")
    try:
        return MMapIndexedDataset(path)
    except Exception as error:  # fairseq uses assert; struct and numpy raise their own errors
        raise ValueError(f"{path}.idx is damaged ({error}): make the folder again with lambda-bert finetune") from error


class LabelledDataset(PaddedDataset, abc.ABC):
    """What the two datasets below share: the order of samples, and batches.

    In training each epoch has its own order, a function of (seed, epoch); otherwise samples are sorted by length.

    Args:
        dictionary: fairseq's.
        max_length: of a sample, including special symbols.
        seed: with the epoch, determines the order.
        training, length_multiple: see :class:`PaddedDataset`.
    """

    def __init__(self, dictionary, max_length: int, seed: int, training: bool, length_multiple: int):
        super().__init__(dictionary.pad(), max_length, length_multiple, training)
        self.bos, self.eos, self.seed, self.epoch = dictionary.bos(), dictionary.eos(), seed, 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def ordered_indices(self) -> np.ndarray:
        """Return all indices, (samples,): in training shuffled in each epoch and sorted by length in blocks."""
        if not self.training:
            return np.argsort(self.sizes, kind="stable")
        order = generator(self.seed, ORDER, self.epoch).permutation(len(self))
        blocks = np.array_split(order, max(len(order) // BLOCK, 1))
        return np.concatenate([block[np.argsort(self.sizes[block], kind="stable")] for block in blocks])

    @abc.abstractmethod
    def tokens_and_target(self, index: int) -> tuple[np.ndarray, object]:
        """Return the ids of a sample, (n,), and what it is labelled with."""

    @abc.abstractmethod
    def collate_targets(self, targets: list, width: int) -> torch.Tensor:
        """Return the targets of a batch as one tensor; ``width`` is the batch's number of tokens."""

    def __getitem__(self, index: int) -> dict:
        tokens, target = self.tokens_and_target(int(index))
        return {"id": int(index), "source": torch.from_numpy(tokens), "target": target}

    def collater(self, samples: list[dict]) -> dict:
        """Return a batch of b samples, right-padded to n tokens, laid out as in pretraining, and its ``target``."""
        if not samples:
            return {}
        batch = self.batch_of(samples)
        width = batch["net_input"]["src_tokens"].size(1)
        return batch | {"target": self.collate_targets([sample["target"] for sample in samples], width)}


class LabelledTexts(LabelledDataset):
    """One or two texts per sample, and what to predict from them.

    Args:
        inputs: one or two lists of texts, each text as ids with a ``</s>`` at its end.
        targets: (samples,) or (samples, labels).
        dictionary, max_length, options: see :class:`LabelledDataset`.
    """

    def __init__(self, inputs: list[MMapIndexedDataset], targets: np.ndarray, dictionary, max_length: int, **options):
        super().__init__(dictionary, max_length, **options)
        self.inputs, self.targets = inputs, targets
        pieces = [np.asarray(texts.sizes, dtype=np.int64) - 1 for texts in inputs]
        special = SPECIAL[len(inputs)]
        self.shortened = int((sum(pieces) > max_length - special).sum())
        if len(pieces) == 2:
            pieces = pair_lengths(*pieces, max_length - special)
        self.sizes = np.minimum(sum(pieces), max_length - special) + special

    def tokens_and_target(self, index: int) -> tuple[np.ndarray, object]:
        texts = [np.asarray(texts[index])[:-1] for texts in self.inputs]
        return join(texts, self.longest, self.bos, self.eos), self.targets[index]

    def collate_targets(self, targets: list, width: int) -> torch.Tensor:
        return torch.from_numpy(np.stack(targets))


class LabelledWords(LabelledDataset):
    """Words with one label each; a text longer than ``max_length`` is split between words, and no word is lost.

    Args:
        words: the ids of each text, with a ``</s>`` at the end.
        marks: per piece, the word's label plus one if a word starts there, else 0.
        dictionary, max_length, options: see :class:`LabelledDataset`.
    """

    def __init__(self, words: MMapIndexedDataset, marks: MMapIndexedDataset, dictionary, max_length: int, **options):
        super().__init__(dictionary, max_length, **options)
        self.words, self.marks = words, marks
        room = max_length - SPECIAL[1]
        pieces = np.asarray(words.sizes, dtype=np.int64) - 1
        self.shortened = int((pieces > room).sum())
        parts = []
        for index, count in enumerate(pieces):
            if count <= room:
                parts.append((index, 0, count))
            else:
                starts = np.flatnonzero(np.asarray(marks[index])[:-1])
                parts += [(index, *part) for part in cut_at_words(starts, int(count), room)]
        self.parts = np.array(parts)  # (samples, 3): text, start, end
        self.sizes = self.parts[:, 2] - self.parts[:, 1] + SPECIAL[1]

    def tokens_and_target(self, index: int) -> tuple[np.ndarray, object]:
        text, start, end = self.parts[index]
        tokens = join([np.asarray(self.words[text])[start:end]], self.longest, self.bos, self.eos)
        target = np.full(len(tokens), NO_LABEL)
        target[1:-1] = np.asarray(self.marks[text])[start:end] - 1
        return tokens, target

    def collate_targets(self, targets: list, width: int) -> torch.Tensor:
        """Return labels (b, n), -1 where no word starts."""
        padded = np.full((len(targets), width), NO_LABEL)
        for row, target in zip(padded, targets, strict=True):
            row[: len(target)] = target
        return torch.from_numpy(padded)
