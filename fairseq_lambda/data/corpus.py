"""The documents of a binarised split, read from fairseq's memory-mapped files."""

import os

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path, infer_dataset_impl

STEP = 2**20  # tokens or lines checked at a time; limits the memory that loading needs
REMEDY = "make it (again) with scripts/preprocess_wikitext.sh"


class Corpus:
    """A split as fairseq-preprocess writes it: one sentence per line, empty lines between documents.

    Every line ends with ``</s>``; an empty line is just ``</s>``. The tokens stay on disk and are memory-mapped. Only
    ``content`` (lines + 1,) int64 is kept in memory, 8 bytes per line: the number of tokens other than ``</s>`` before
    each line. Line i starts at token ``content[i] + i``.

    Args:
        path: the common path of the two files, without suffixes, such as ``data-bin/wikitext-2/train``.
        eos: id of ``</s>``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the two files disagree, are damaged, or contain no sentence.
    """

    def __init__(self, path: str, eos: int):
        self.path, self.eos = path, eos
        self._open()

    def _open(self):
        idx, data = index_file_path(self.path), data_file_path(self.path)
        for file in (idx, data):
            if not os.path.isfile(file):
                raise FileNotFoundError(f"{file} is missing: {REMEDY}")
        if infer_dataset_impl(self.path) != "mmap":
            raise ValueError(f"{idx} is damaged, or not from fairseq-preprocess --dataset-impl mmap: {REMEDY}")
        try:
            # kept because `sizes` is a view of its memory map, which fairseq closes when the index is deleted
            self._index = MMapIndexedDataset.Index(idx)
        except Exception as error:  # fairseq uses assert; struct and numpy raise their own errors
            raise ValueError(
                f"{idx} is damaged, or not from fairseq-preprocess --dataset-impl mmap ({error}): {REMEDY}"
            ) from error
        self.sizes = self._index.sizes  # (lines,) int32, mapped; including the </s>
        if len(self.sizes) == 0 or self.sizes.max() <= 1:
            raise ValueError(f"{self.path} has no sentence: {REMEDY} from a text that is not empty")
        if self.sizes.min() < 1:
            raise ValueError(f"{idx} has lines without a </s>: {REMEDY}")
        self.content = np.zeros(len(self.sizes) + 1, dtype=np.int64)
        np.cumsum(self.sizes - 1, out=self.content[1:])
        # where documents end: the indices of the empty lines, and the number of lines
        self._boundaries = np.append(np.flatnonzero(self.sizes == 1), len(self)).astype(np.int32)

        found = os.path.getsize(data)
        expected = self.num_tokens * np.dtype(self._index.dtype).itemsize
        if found != expected:
            raise ValueError(
                f"{data} has {found} bytes, but its .idx says {expected}: one of the two is "
                f"truncated or from another run; {REMEDY}"
            )
        mapped = np.memmap(data, dtype=self._index.dtype, mode="r")
        self._tokens = np.asarray(mapped)  # the same memory, but np.memmap is slow to slice

    # a worker process opens the files itself
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

    @property
    def num_sentences(self) -> int:
        """Return the number of lines that are not empty."""
        return len(self) - (len(self._boundaries) - 1)

    def read(self, start: int, size: int) -> np.ndarray:
        """Return the ``size`` tokens starting at ``start``, as int64, with every ``</s>`` removed."""
        tokens = self._tokens[start : start + size].astype(np.int64)
        return tokens[tokens != self.eos]

    def token_start(self, lines: np.ndarray) -> np.ndarray:
        """Return the index in the file of each line's first token: int64, of the same shape as ``lines``."""
        return self.content[lines] + lines

    def document_starts(self) -> np.ndarray:
        """Return the index of each document's first line: (documents,) int32."""
        starts = self._starts()
        return starts[starts < self._boundaries]

    def document_bounds(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first line and the end (exclusive) of each line's document.

        An empty line counts as the end of the document before it.
        """
        document = self.document_of(lines)
        return self._starts()[document], self._boundaries[document]

    def _starts(self) -> np.ndarray:
        # an empty line after another one starts and ends a document without sentences
        return np.append(np.int32(0), self._boundaries[:-1] + np.int32(1))

    def document_of(self, lines: np.ndarray) -> np.ndarray:
        """Return a number for the document of each line; it increases along the corpus, with gaps.

        It is the number of empty lines before the line, at most ``len(self) - num_sentences``.
        """
        return np.searchsorted(self._boundaries, lines)

    def check_tokens(self, vocabulary: int, pad: int, unk: int) -> int:
        """Read the whole file once and return how many tokens are ``<unk>``.

        Raises:
            ValueError: an id of ``vocabulary`` or more, padding, or a ``</s>`` within a sentence.
        """
        data = data_file_path(self.path)
        unknown = ends = 0
        for start in range(0, self.num_tokens, STEP):
            tokens = self._tokens[start : start + STEP]
            for token in (tokens.max(), tokens.min()):
                if not 0 <= token < vocabulary:
                    raise ValueError(
                        f"{data} contains token {token}, but dict.txt has {vocabulary} symbols: it was "
                        f"binarised with another dictionary; {REMEDY}"
                    )
            if (tokens == pad).any():
                raise ValueError(f"{data} contains padding: remove any literal <pad> from the text")
            unknown += np.count_nonzero(tokens == unk)
            ends += np.count_nonzero(tokens == self.eos)
        ended = 0
        for first in range(0, len(self), STEP):
            lines = np.arange(first, min(first + STEP, len(self)))
            ended += np.count_nonzero(self._tokens[self.token_start(lines + 1) - 1] == self.eos)
        if not ended == ends == len(self):
            raise ValueError(
                f"{data}: {len(self)} lines, {ended} of them end with </s>, {ends} </s> in all. "
                "Each line must end with one and contain no other: remove any literal </s> from the "
                "text, and binarise with fairseq-preprocess"
            )
        return unknown
