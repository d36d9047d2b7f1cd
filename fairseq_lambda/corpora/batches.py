"""A text in batches of lines for the workers, cut between documents.

A batch is cut only where a document certainly ends. Documents of more than 16 MB are cut between two of their lines;
the next batch then ``continues`` the document, unless it starts with a title or a blank line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fairseq_lambda.corpora.documents import BLANK_LINES, HEADINGS, clean, heading_level

SIZE, MOST = 1 << 20, 16 << 20  # bytes


@dataclass(frozen=True)
class Batch:
    """Whole lines of one file, as bytes, and where they are, for error messages."""

    file: str
    first_line: int
    text: bytes
    continues: bool = False


def in_batches(lines: Iterable[bytes], file: str, divider: str, is_json: bool) -> Iterator[Batch]:
    """Yield the lines in batches of about 1 MB.

    Args:
        lines: with their line ends.
        file: its path, for messages.
        divider: what divides the documents, one of ``DIVIDERS``.
        is_json: whether every line is a document.
    """
    held: list[bytes] = []
    first, bytes_held, continues = 1, 0, False
    has_titles = divider == HEADINGS
    for line in lines:
        held.append(line)
        bytes_held += len(line)
        if bytes_held < SIZE:
            continue
        is_blank = not line.strip()
        if is_json or (is_blank and divider == BLANK_LINES):
            ends, is_boundary = len(held), True
        else:
            ends, is_boundary = _title_at(held) if has_titles else 0, True
            if not ends and bytes_held >= MOST:
                ends, is_boundary = _inside_article(held) if has_titles else len(held), False
        if ends:
            yield Batch(file, first, b"".join(held[:ends]), continues)
            first, continues = first + ends, not is_boundary
            del held[:ends]
            bytes_held = sum(map(len, held))
    if held:
        yield Batch(file, first, b"".join(held), continues)


def _inside_article(lines: list[bytes]) -> int:
    """Return the number of lines before the last one if a cut there neither creates nor hides a title; else 0.

    Whether a line is a title depends on the lines around it, and a batch sees no lines but its own.
    """
    before, last = (clean(line.decode("utf-8", "replace")) for line in [b"", *lines][-2:])
    if len(lines) < 2 or heading_level(last) or (last and heading_level(before)):
        return 0
    return len(lines) - 1


def _title_at(lines: list[bytes]) -> int:
    """Return the number of lines before a title if the last two lines are a title and a blank line; else 0."""
    if len(lines) < 4 or lines[-1].strip() or lines[-3].strip() or not lines[-2].lstrip().startswith(b"="):
        return 0
    return len(lines) - 2 if heading_level(clean(lines[-2].decode("utf-8", "replace"))) == 1 else 0
