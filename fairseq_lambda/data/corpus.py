"""The documents of a binarised split, read from fairseq's memory maps."""

import os

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path

BLOCK = 2**20  # tokens or sentences looked at in one step: bounds the memory that loading takes
REMEDY = "binarise the text again with scripts/preprocess_wikitext.sh"


class Corpus:
    """One split of a ``fairseq-preprocess`` output: a sentence a line, each ended by ``</s>``, and between documents an
    empty line, that is a lone ``</s>``.

    The tokens stay on disk, memory-mapped. Held in memory are 8 bytes a sentence: ``content`` (sentences + 1) int64, the
    number of tokens other than ``</s>`` before each sentence. As every sentence ends with exactly one ``</s>``, sentence
    i starts at token ``content[i] + i`` of the file.

    Args:
        path: the files without their endings, such as ``data-bin/wikitext-2/train``.
        eos: id of ``</s>``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the two files disagree, are damaged, hold no sentence, or were not made as said above.
    """

    def __init__(self, path: str, eos: int):
        self.path, self.eos = path, eos
        self._open()

    def _open(self):
        for file in (index_file_path(self.path), data_file_path(self.path)):
            if not os.path.isfile(file):
                raise FileNotFoundError(f"{file} is missing: {REMEDY}")
        try:
            # fairseq's index closes its map when it goes, and its arrays with it: keep it
            self._index = MMapIndexedDataset.Index(index_file_path(self.path))
        except Exception as error:  # fairseq checks by assert, struct and numpy raise their own
            raise ValueError(
                f"{index_file_path(self.path)} is damaged, or not of fairseq-preprocess with "
                f"--dataset-impl mmap ({error}): {REMEDY}"
            ) from error
        self.sizes = self._index.sizes  # (sentences,) int32, mapped; with the </s>
        if len(self.sizes) == 0 or self.sizes.max() <= 1:
            raise ValueError(f"{self.path} has no sentence: {REMEDY} from a text that is not empty")
        if self.sizes.min() < 1:
            raise ValueError(f"{self.path} has sentences without a </s>: {REMEDY}")
        self.content = np.zeros(len(self.sizes) + 1, dtype=np.int64)
        np.cumsum(self.sizes - 1, out=self.content[1:])
        self.blank = np.flatnonzero(self.sizes == 1).astype(np.int32)  # numbers of the empty lines

        bytes_found = os.path.getsize(data_file_path(self.path))
        bytes_expected = self.num_tokens * np.dtype(self._index.dtype).itemsize
        if bytes_found != bytes_expected:
            raise ValueError(
                f"{data_file_path(self.path)} has {bytes_found} bytes where its .idx says {bytes_expected}: one of the "
                f"two is truncated or of another run; {REMEDY}"
            )
        mapped = np.memmap(data_file_path(self.path), dtype=self._index.dtype, mode="r")
        self._tokens = np.asarray(mapped)  # the same map; slices of np.memmap itself are slow

    # A worker process opens the maps for itself.
    def __getstate__(self):
        return {"path": self.path, "eos": self.eos}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        """Return the number of lines, empty ones included."""
        return len(self.sizes)

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens in the file, ``</s>`` included."""
        return int(self.content[-1]) + len(self)

    def read(self, start: int, size: int) -> np.ndarray:
        """Return ``size`` tokens of the file from ``start`` on, less the ``</s>`` among them: (<= size,) int64."""
        tokens = self._tokens[start : start + size].astype(np.int64)
        return tokens[tokens != self.eos]

    def token_start(self, sentences: np.ndarray) -> np.ndarray:
        """Return where in the file the sentences start: int64, in tokens."""
        return self.content[sentences] + sentences

    def document_starts(self) -> np.ndarray:
        """Return the number of each document's first sentence: (documents,) int32."""
        after = np.concatenate([np.zeros(1, np.int32), self.blank + 1])
        after = after[after < len(self)]
        return after[self.sizes[after] > 1]

    def document_ends(self, sentences: np.ndarray) -> np.ndarray:
        """Return the number of the line behind the document of each sentence (behind an empty line: itself)."""
        return np.append(self.blank, len(self))[self.document_of(sentences)]

    def document_of(self, sentences: np.ndarray) -> np.ndarray:
        """Return a number for the document of each sentence, growing along the corpus, with gaps."""
        return np.searchsorted(self.blank, sentences)

    def check_tokens(self, vocabulary: int, pad: int, unk: int) -> int:
        """Read the whole file once and return how many tokens are ``<unk>``.

        Raises:
            ValueError: an id of ``vocabulary`` or more, a ``<pad>``, or a ``</s>`` that does not end a sentence.
        """
        unknown = ends = 0
        for start in range(0, self.num_tokens, BLOCK):
            block = self._tokens[start : start + BLOCK]
            if block.max() >= vocabulary:
                raise ValueError(
                    f"{data_file_path(self.path)} holds token {block.max()} and dict.txt has {vocabulary} symbols: it "
                    f"was binarised with another dictionary; {REMEDY}"
                )
            if (block == pad).any():
                raise ValueError(
                    f"{data_file_path(self.path)} holds padding: take the literal <pad> out of the text"
                )
            unknown += np.count_nonzero(block == unk)
            ends += np.count_nonzero(block == self.eos)
        last = np.arange(BLOCK)
        ended = 0
        for first in range(0, len(self), BLOCK):
            sentences = last[: len(self) - first] + first
            stop = self.content[sentences + 1] + sentences
            ended += np.count_nonzero(self._tokens[stop] == self.eos)
        if ended != len(self) or ends != len(self):
            raise ValueError(
                f"{self.path}: {len(self)} sentences, {ended} of them end with </s>, {ends} </s> in all. Each must end "
                f"with one and hold no other; take a literal </s> out of the text and {REMEDY}"
            )
        return unknown
