"""A split as fairseq-preprocess writes it, memory-mapped and checked: sentences, documents, tokens."""

import os
from dataclasses import dataclass

import numpy as np
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path

BLOCK = 1 << 22  # tokens looked at together while checking, to bound memory


@dataclass
class CorpusCounts:
    documents: int
    sentences: int
    tokens: int  # without the </s> of each line
    unknown: int


class Corpus:
    """One split: a flat array of tokens, in which each sentence ends with ``</s>`` and a lone ``</s>`` parts documents.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        dictionary: the one that it was binarised with.

    Holds the maps and nothing that grows with the corpus; pickles as its path.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: files that disagree, tokens beyond the dictionary, lines without ``</s>``, no sentence at all.
    """

    def __init__(self, prefix: str, dictionary: Dictionary):
        self.prefix, self.eos = prefix, dictionary.eos()
        self._open()
        self.counts = self._check(dictionary)

    def _open(self) -> None:
        for path in (data_file_path(self.prefix), index_file_path(self.prefix)):
            if not os.path.isfile(path):
                raise FileNotFoundError(
                    f"{path} is missing: binarise the corpus with scripts/preprocess_wikitext.sh, "
                    "or check --data and the name of the split"
                )
        data = data_file_path(self.prefix)
        try:
            self.index = MMapIndexedDataset.Index(index_file_path(self.prefix))
        except Exception as error:
            raise ValueError(
                f"{index_file_path(self.prefix)} is not an index of fairseq-preprocess "
                "(--dataset-impl mmap), or torn: binarise the corpus again"
            ) from error
        expected = int(self.index.sizes.sum(dtype=np.int64)) * np.dtype(self.index.dtype).itemsize
        if os.path.getsize(data) != expected:
            raise ValueError(
                f"{data} has {os.path.getsize(data)} bytes and its index speaks of {expected}: "
                "torn or mixed up files, binarise the corpus again"
            )
        if expected == 0:
            raise ValueError(f"{data} is empty: the split has no sentence")
        self.tokens = np.memmap(data, dtype=self.index.dtype, mode="r")

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("index", "tokens")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def _check(self, dictionary: Dictionary) -> CorpusCounts:
        largest = lines = unknown = 0
        for begin in range(0, len(self.tokens), BLOCK):
            block = self.tokens[begin : begin + BLOCK]
            largest = max(largest, int(block.max()))
            lines += int(np.count_nonzero(block == self.eos))
            unknown += int(np.count_nonzero(block == dictionary.unk()))
        if largest >= len(dictionary):
            raise ValueError(
                f"{data_file_path(self.prefix)} has token {largest} and the dictionary only "
                f"{len(dictionary)} symbols: it was binarised with another dictionary"
            )
        sizes = self.index.sizes
        if lines != len(sizes):
            raise ValueError(
                f"{data_file_path(self.prefix)} has {lines} </s> in {len(sizes)} lines, where each line "
                "must end with its only one: binarise with fairseq-preprocess as it is (--append-eos)"
            )
        sentences = int(np.count_nonzero(sizes > 1))
        if sentences == 0:
            raise ValueError(f"{data_file_path(self.prefix)} has blank lines only: no sentence")
        starts, _ = self.documents()
        return CorpusCounts(len(starts), sentences, len(self.tokens) - lines, unknown)

    def documents(self) -> tuple[np.ndarray, np.ndarray]:
        """Return first and one past the last sentence of each document, int64; blank lines belong to none."""
        text = np.concatenate([[False], self.index.sizes > 1, [False]])
        edges = np.flatnonzero(text[1:] != text[:-1])
        return edges[::2], edges[1::2]
