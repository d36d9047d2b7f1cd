"""Texts compressed with xz, gzip, bzip2 or zstd, recognised by their first bytes."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import BinaryIO

# no text in UTF-8 starts with any of them
_XZ, _GZIP = b"\xfd7zXZ\x00", b"\x1f\x8b"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # the second: a frame to skip, as pzstd writes first
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_START = 10  # bytes that show the kind
_BLOCK = 1 << 14  # bytes: text that repeats unpacks to some thousand times as many
SUFFIXES = (".xz", ".gz", ".bz2", ".zst")


def unpacked(file: BinaryIO) -> tuple[BinaryIO, tuple[type[Exception], ...]]:
    """Return the text in a file, and the exceptions that mean that the file is damaged or cut short.

    gzip also reports damage by an OSError without a number.

    Args:
        file: at its start, with ``peek``; of what is not compressed, the text is what is in the file.

    Raises:
        ValueError: it is compressed with zstd, and the package ``zstandard`` is missing.
    """
    start = file.peek(_START)
    if len(start) < _START and b"\n" not in start:  # a pipe hands over what has been written to it so far
        start = file.readline(_START)
        file = io.BufferedReader(_Rejoined(start, file))
    if start.startswith(_XZ):
        return _frames(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), between=b"\0"), (lzma.LZMAError, EOFError)
    if start.startswith(_GZIP):
        return gzip.open(file), (zlib.error, EOFError)
    if _BZIP2.match(start):
        return _frames(file, bz2.BZ2Decompressor), (EOFError,)
    if _ZSTD.match(start):
        try:
            import zstandard
        except ImportError:
            raise ValueError(
                "compressed with zstd, which needs the package zstandard: pip install zstandard, or run `zstd -d`"
            ) from None
        # the largest window that zstd writes, with --ultra --long=31
        new_frame = lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()  # noqa: E731
        return _frames(file, new_frame), (zstandard.ZstdError, EOFError)
    return file, ()


def _frames(*args, **named) -> BinaryIO:
    return io.BufferedReader(_Frames(*args, **named), 1 << 20)


class _Rejoined(io.RawIOBase):
    """A file of which ``start`` has been read already, from its start."""

    def __init__(self, start: bytes, file: BinaryIO):
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._start[: len(buffer)] or self._file.read1(len(buffer))
        self._start = self._start[len(part) :]
        buffer[: len(part)] = part
        return len(part)


class _Frames(io.RawIOBase):
    """The text of all frames of a file.

    Unlike the packages' own readers, it does not take a damaged file for a short text: those of xz and bzip2 ignore
    what follows if the start of a frame is damaged, and zstandard's a last frame that is cut short.

    Args:
        file: compressed, at its start.
        new_frame: returns a decompressor of one frame.
        between: a byte that may fill the space between frames, as in xz.
    """

    def __init__(self, file: BinaryIO, new_frame: Callable, between: bytes = b""):
        self._file, self._new_frame, self._between = file, new_frame, between
        self._frame, self._packed, self._text = None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._text:
            if not self._packed:
                self._packed = self._file.read(_BLOCK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the end of a frame is missing")
                return 0
            if self._frame is None:
                self._packed = self._packed.lstrip(self._between)
                if not self._packed:
                    continue
                self._frame = self._new_frame()
            self._text = self._frame.decompress(self._packed)
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._text))
        buffer[:count], self._text = self._text[:count], self._text[count:]
        return count
