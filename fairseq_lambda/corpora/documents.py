"""Text files to documents of sentences: articles with headings, as in WikiText, or text divided by blank lines.

An article starts at a line ``= Title =`` with a blank line before and after it; ``= = Section = =`` is a heading inside
an article. Headings are left out, because they would give away the order of the sentences. Every other line is a
paragraph. In text without titles, blank lines divide the documents.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.sentences import split_plain, split_tokenised

# Stands for a literal <unk> where a single character is needed; removed from any text that is read.
UNK_CHARACTER = "\ue000"

_HEADING = re.compile(r"(?P<left>(?:= )+)\S.*?(?P<right>(?: =)+)")
_DELETED = re.compile(f"[\u00ad\u200b\u2060\ufeff{UNK_CHARACTER}]")
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Layout:
    """How a corpus is written: with titled articles or blank lines, Moses-tokenised or plain."""

    has_titles: bool
    is_moses: bool


def clean(line: str) -> str:
    """Return the line with each run of white space or control characters replaced by one space.

    fairseq splits text at any Unicode white space, so a piece must not contain any.
    """
    return _CONTROL_OR_SPACE.sub(" ", _DELETED.sub("", line)).strip()


def heading_level(line: str) -> int:
    """Return 1 for ``= Title =``, 2 for ``= = Section = =`` and so on; 0 for text."""
    match = _HEADING.fullmatch(line)
    if match is None:
        return 0
    left, right = match["left"].count("="), match["right"].count("=")
    return left if left == right else 0


def read_lines(path: Path) -> Iterator[str]:
    """Yield the cleaned lines of a UTF-8 file.

    Raises:
        PrepareError: a line is not UTF-8; the message gives its number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield clean(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise PrepareError(
                    f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); "
                    "convert the file, for example with iconv"
                ) from None


def detect_layout(path: Path, sample_paragraphs: int = 2000) -> Layout:
    """Return the layout of a split, judged by the spaces before its commas and full stops and by its first title."""
    spaced = attached = paragraphs = 0
    has_titles = False
    for is_title, line in _marked_lines(path):
        if is_title:
            has_titles = True
        elif line and paragraphs < sample_paragraphs:
            paragraphs += 1
            spaced += len(re.findall(r"(?:^| )[.,](?= |$)", line))
            attached += len(re.findall(r"[^ .,][.,](?= |$)", line))
        if has_titles and paragraphs >= sample_paragraphs:
            break
    return Layout(has_titles, is_moses=spaced > attached)


def read_documents(path: Path, layout: Layout, keep_moses: bool = False) -> Iterator[list[str]]:
    """Yield each document as a list of its sentences, in order; documents without a sentence are left out.

    Moses-tokenised sentences are turned into ordinary English unless ``keep_moses`` is true.
    """
    document: list[str] = []
    for is_title, line in _marked_lines(path):
        if is_title or (not line and not layout.has_titles):
            if document:
                yield document
            document = []
        elif line and not heading_level(line):
            document.extend(_sentences(line, layout, keep_moses))
    if document:
        yield document


def _sentences(paragraph: str, layout: Layout, keep_moses: bool) -> list[str]:
    if not layout.is_moses:
        return split_plain(paragraph)
    sentences = split_tokenised(paragraph)
    return sentences if keep_moses else detokenise(sentences)


def _marked_lines(path: Path) -> Iterator[tuple[bool, str]]:
    """Yield (is a title, line).

    A title has blank lines around it. WikiText-2's train split also has 29 table keys such as ``= Played , W =`` in the
    middle of text, which would otherwise be taken for titles.
    """
    before, line = "", None
    for after in read_lines(path):
        if line is not None:
            yield not before and not after and heading_level(line) == 1, line
            before = line
        line = after
    if line is not None:
        yield not before and heading_level(line) == 1, line
