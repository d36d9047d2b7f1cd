"""Text files as lines of bytes, compressed or not: .xz, .gz, .bz2 and .zst are recognised by their first bytes."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fairseq_lambda.corpora.errors import PrepareError

# no text in UTF-8 starts with any of them
_XZ, _GZIP, _ZSTD = b"\xfd7zXZ\x00", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_NO_TEXTS = {
    b"PK\3\4": "a zip archive, or a document such as .docx: unpack it with `unzip`, or save it as text",
    b"%PDF-": "a PDF: convert it with `pdftotext`",
}
LONGEST_LINE = 64 << 20  # bytes: the most text that is in memory at once
_BLOCK = 1 << 20


class TextFile:
    """A text file that is read once, from its start, in constant memory.

    Args:
        path: a text, plain or compressed with xz, gzip, bzip2 or zstd.

    Raises:
        PrepareError: it cannot be opened, it is a zip archive or a PDF, or it is compressed with zstd and the package
            ``zstandard`` is missing.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise PrepareError(f"cannot read {path}: {error.strerror}") from None
        try:
            self._text, self._damage = _unpacked(self._file, path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    @property
    def position(self) -> int:
        """How many bytes have been read of the file as it is on the disk."""
        return self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines with their line ends.

        Raises:
            PrepareError: the file is damaged, cut short, or has a line of more than 64 MB.
        """
        number = 0
        try:
            while line := self._text.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    raise PrepareError(
                        f"{self.path}, line {number}: longer than {LONGEST_LINE >> 20} MB; divide the text into lines, "
                        "one per paragraph"
                    )
                yield line
        except (OSError, *self._damage) as error:
            if isinstance(error, OSError) and error.errno:  # gzip's and bzip2's own errors have no number
                raise PrepareError(f"cannot read {self.path}: {error.strerror}") from None
            raise PrepareError(f"{self.path} is damaged or cut short ({error}): get or compress it again") from None


def _unpacked(file: BinaryIO, path: Path) -> tuple[BinaryIO, tuple[type[Exception], ...]]:
    """Return the text in a file, and the exceptions that mean that the file is damaged."""
    start = file.peek(10)
    for mark, what in _NO_TEXTS.items():
        if start.startswith(mark):
            raise PrepareError(f"{path} is {what}")
    if start.startswith(_XZ):
        return lzma.open(file), (lzma.LZMAError, EOFError)
    if start.startswith(_GZIP):
        return gzip.open(file), (zlib.error, EOFError)
    if _BZIP2.match(start):
        return io.BufferedReader(_Frames(file, bz2.BZ2Decompressor), _BLOCK), (EOFError,)
    if start.startswith(_ZSTD):
        try:
            import zstandard
        except ImportError:
            raise PrepareError(
                f"{path} is compressed with zstd, which needs the package zstandard: pip install zstandard, or run "
                f"`zstd -d {path.name}`"
            ) from None
        # the largest window that zstd writes, with --ultra --long=31
        frame = lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()  # noqa: E731
        return io.BufferedReader(_Frames(file, frame), _BLOCK), (zstandard.ZstdError, EOFError)
    return file, ()


class _Frames(io.RawIOBase):
    """The text of all frames of a file.

    Unlike the packages' own readers, it does not take a damaged file for a short text: bzip2's ignores what follows if
    the start of a frame is damaged, zstandard's if the last frame is cut short.

    Args:
        file: compressed, at its start.
        frame: returns a decompressor of one frame.
    """

    def __init__(self, file: BinaryIO, frame: Callable):
        self._file, self._new_frame = file, frame
        self._frame, self._packed, self._text = None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._text:
            if not self._packed:
                self._packed = self._file.read(_BLOCK >> 3)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the end of a frame is missing")
                return 0
            if self._frame is None:
                self._frame = self._new_frame()
            self._text = self._frame.decompress(self._packed)
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._text))
        buffer[:count], self._text = self._text[:count], self._text[count:]
        return count
