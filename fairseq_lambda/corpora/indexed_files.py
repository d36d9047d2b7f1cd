"""fairseq's memory-mapped files, .bin and .idx, written in constant memory: fairseq's own writer keeps every line."""

import struct
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, _dtype_header_code, best_fitting_int_dtype

_LINES = 1 << 20  # per step
_SIZE = np.dtype(np.int32)


class IndexedFiles:
    """A split as ``fairseq-preprocess --dataset-impl mmap`` writes it; a context, after which it is complete.

    Args:
        target: the path of the split, without a suffix.
        symbols: the size of the dictionary, which determines the bytes per token.
    """

    def __init__(self, target: Path, symbols: int):
        self._target, self.dtype = target, np.dtype(best_fitting_int_dtype(symbols))

    def add(self, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Append lines: their tokens, and the number of tokens in each line."""
        self._tokens.write(tokens.astype(self.dtype, copy=False))
        self._lines.write(sizes.astype(_SIZE, copy=False))

    def __enter__(self) -> "IndexedFiles":
        with ExitStack() as files:
            self._tokens = files.enter_context(open(f"{self._target}.bin", "wb"))
            self._lines = files.enter_context(tempfile.TemporaryFile(dir=self._target.parent))
            self._files = files.pop_all()
        return self

    def __exit__(self, kind, *_) -> None:
        with self._files:
            if kind is None:
                self._write_index()

    def _write_index(self) -> None:
        count = self._lines.tell() // _SIZE.itemsize
        with open(f"{self._target}.idx", "wb") as index:
            index.write(MMapIndexedDataset.Index._HDR_MAGIC)
            index.write(struct.pack("<QBQ", 1, _dtype_header_code(self.dtype), count))  # version, token type, lines
            for sizes in self._steps():
                index.write(sizes)
            start = 0
            for sizes in self._steps():
                ends = start + np.cumsum(sizes, dtype=np.int64) * self.dtype.itemsize
                index.write(np.append(start, ends[:-1]).astype(np.int64))  # where each line starts, in bytes
                start = int(ends[-1])

    def _steps(self):
        self._lines.seek(0)
        while block := self._lines.read(_LINES * _SIZE.itemsize):
            yield np.frombuffer(block, dtype=_SIZE)
