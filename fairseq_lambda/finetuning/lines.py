"""The lines of a text file, compressed or not, in UTF-8, UTF-16 or Windows-1252."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fairseq_lambda.compressed import SUFFIXES, unpacked

STANDARD_INPUT = "-"
BOM, UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
FALLBACK = "cp1252"  # Windows' Western European; what a stray byte in UTF-8 text nearly always is


class Lines:
    """Iterates over ``(number, line)`` of a file, from 1; each line ends with ``\\n``.

    Lines end at ``\\n`` or ``\\r\\n`` and nowhere else. A byte order mark is removed; if it is UTF-16's, the file is
    read as UTF-16. A line that is not UTF-8 is read as Windows-1252, and counted for :meth:`notes`.

    Args:
        path: a file, plain or compressed with xz, gzip, bzip2 or zstd; ``-`` is standard input.

    Raises:
        OSError: it cannot be read.
        ValueError: the compressed file is damaged, or it needs the package ``zstandard``.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self.name = "standard input" if self.path == STANDARD_INPUT else self.path
        self._first_other = self._others = 0

    @property
    def suffix(self) -> str:
        """Return the suffix that shows the format, without that of a compression: ``.tsv`` for ``a.tsv.xz``."""
        path = Path(self.path)
        return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).suffix.lower()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        self._first_other = self._others = 0
        with contextlib.ExitStack() as stack:
            is_input = self.path == STANDARD_INPUT
            file = sys.stdin.buffer if is_input else stack.enter_context(open(self.path, "rb"))
            try:
                text, damage = unpacked(file)
            except ValueError as error:
                raise ValueError(f"{self.name} is {error}") from None
            try:
                yield from self._decoded(text)
            except (OSError, *damage) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the system, not of gzip or bzip2
                    raise
                raise ValueError(f"{self.name} is damaged or cut short ({error}): get or compress it again") from error

    def _decoded(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        head = file.peek(3)
        if head.startswith(UTF16):
            for number, line in enumerate(io.TextIOWrapper(file, "utf-16", "replace", newline="\n"), 1):
                yield number, line.rstrip("\r\n") + "\n"
            return
        if head.startswith(BOM):
            file.read(len(BOM))
        for number, line in enumerate(file, 1):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                self._first_other, self._others = self._first_other or number, self._others + 1
                text = line.decode(FALLBACK, "replace")
            yield number, text + "\n"

    def notes(self) -> list[str]:
        """Return notes on the lines read so far, one line each."""
        if not self._others:
            return []
        lines = "1 line is" if self._others == 1 else f"{self._others} lines are"
        return [f"{self.name}: {lines} not UTF-8 (line {self._first_other}) and read as Windows-1252"]
