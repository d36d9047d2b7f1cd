"""Text files as lines of bytes, compressed or not."""

from collections.abc import Iterator
from pathlib import Path

from fairseq_lambda.compressed import unpacked
from fairseq_lambda.corpora.errors import PrepareError

_NO_TEXTS = {
    b"PK\3\4": "a zip archive, or a document such as .docx: unpack it with `unzip`, or save it as text",
    b"%PDF-": "a PDF: convert it with `pdftotext`",
}
LONGEST_LINE = 64 << 20  # bytes: the most text that is in memory at once


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
            try:
                self._text, self._damage = unpacked(self._file)
            except ValueError as error:
                raise PrepareError(f"{path} is {error}") from None
            start = b"" if self._damage else self._text.peek(5)
            for mark, what in _NO_TEXTS.items():
                if start.startswith(mark):
                    raise PrepareError(f"{path} is {what}")
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
