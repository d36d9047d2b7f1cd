"""From lines of text to documents of sentences: articles with headings, as in WikiText, blank lines, or whole files.

An article starts at a line ``= Title =`` with a blank line before and after it; ``= = Section = =`` is a heading inside
an article. Headings are left out, because they would give away the order of the sentences. Every other line is a
paragraph. Without titles, blank lines divide the documents, or each file is one. layout.py decides which applies.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.languages import DEFAULT_LANGUAGE
from fairseq_lambda.corpora.opening import TextFile
from fairseq_lambda.corpora.plain_sentences import split_plain
from fairseq_lambda.corpora.sentences import split_tokenised

# Stands for a literal <unk> where a single character is needed; removed from all text that is read.
UNK_CHARACTER = "\ue000"

HEADINGS, BLANK_LINES, FILES = "headings", "blank-lines", "files"
DIVIDERS = {  # by what divides the documents: the rule, in words
    HEADINGS: "a line ` = Title = ` between blank lines starts one",
    BLANK_LINES: "blank lines divide them",
    FILES: "each file is one",
}

_SIGNS = re.compile("(?:= )*")
# soft hyphen, zero-width space, direction marks, word joiner, byte order mark; not the zero-width non-joiner (U+200C)
# and joiner (U+200D), which are part of words in Persian and in scripts of India
_DELETED = re.compile(f"[\u00ad\u200b\u200e\u200f\u2060\ufeff{UNK_CHARACTER}]")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its byte order marks
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Layout:
    """How a corpus is written: which of ``DIVIDERS`` it has, Moses-tokenised or plain; and the evidence."""

    divider: str
    is_moses: bool
    evidence: str = field(default="", compare=False)


def clean(line: str) -> str:
    """Return the line with each run of white space or control characters replaced by one space.

    fairseq splits text at any Unicode white space, so pieces must not contain any.
    """
    return _CONTROL_OR_SPACE.sub(" ", _DELETED.sub("", line)).strip()


def heading_level(line: str) -> int:
    """Return 1 for ``= Title =``, 2 for ``= = Section = =`` and so on; 0 for text. The line is a cleaned one."""
    if not (line.startswith("= ") and line.endswith(" =")):
        return 0
    left = _SIGNS.match(line).end() // 2
    if 2 * left + 1 == len(line):
        left -= 1  # only equal signs: the title is one, too
    right = _SIGNS.match(line[: 2 * left : -1]).end() // 2
    return left if left == right else 0


def utf8(line: bytes, file: str | Path, number: int) -> str:
    """Return a line of UTF-8.

    Raises:
        PrepareError: it is not UTF-8, or has NUL bytes, which are valid UTF-8 but in no text; the message names the
            file and the line's number.
    """
    is_marked = line.startswith(_UTF_16)
    if b"\0" in line and not is_marked:
        order = "BE" if line.startswith(b"\0") and number == 1 else "LE"
        raise PrepareError(
            f"{file}, line {number}: contains NUL bytes: UTF-16 (`iconv -f UTF-16{order} -t UTF-8` converts it) or not "
            "a text; `tr -d '\\0'` removes stray ones"
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if is_marked else "WINDOWS-1252"
        raise PrepareError(
            f"{file}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); if the file is {encoding}, "
            f"`iconv -f {encoding} -t UTF-8` converts it"
        ) from None


def decoded(lines: Iterable[bytes], file: str | Path, first: int = 1) -> Iterator[str]:
    """Yield lines of UTF-8, cleaned.

    Raises:
        PrepareError: a line is not UTF-8, or has NUL bytes; the message gives its number, counted from ``first``.
    """
    for number, line in enumerate(lines, start=first):
        yield clean(utf8(line, file, number))


def read_lines(path: Path) -> Iterator[str]:
    """Yield the cleaned lines of a file.

    Raises:
        PrepareError: it cannot be read, is not UTF-8, or has NUL bytes.
    """
    with TextFile(path) as file:
        yield from decoded(file, path)


def read_documents(
    lines: Iterable[str],
    layout: Layout,
    keep_moses: bool = False,
    language: str = DEFAULT_LANGUAGE,
    seen: Counter[str] | None = None,
) -> Iterator[list[str]]:
    """Yield each document as a list of its sentences, in order, leaving out documents without a sentence.

    Moses-tokenised sentences are turned into ordinary English unless ``keep_moses`` is true; ``language`` is that of
    plain text. ``seen`` counts the "paragraphs", and the "headings", which are left out.
    """
    return filter(None, divided(lines, layout, keep_moses, language, Counter() if seen is None else seen))


def divided(
    lines: Iterable[str], layout: Layout, keep_moses: bool, language: str, seen: Counter[str]
) -> Iterator[list[str]]:
    """Yield the sentences before the first boundary, between boundaries, and after the last; each list may be empty."""
    document: list[str] = []
    for is_title, line in marked_lines(lines):
        if is_title if layout.divider == HEADINGS else layout.divider == BLANK_LINES and not line:
            yield document
            document = []
        if heading_level(line):
            seen["headings"] += 1
        elif line:
            seen["paragraphs"] += 1
            document.extend(_sentences(line, layout, keep_moses, language))
    yield document


def _sentences(paragraph: str, layout: Layout, keep_moses: bool, language: str) -> list[str]:
    if not layout.is_moses:
        return split_plain(paragraph, language)
    sentences = split_tokenised(paragraph)
    return sentences if keep_moses else detokenise(sentences)


def marked_lines(lines: Iterable[str]) -> Iterator[tuple[bool, str]]:
    """Yield (is a title, line).

    A title has blank lines around it. WikiText-2's train split also has 29 table keys such as ``= Played , W =`` in the
    middle of text, which would otherwise be taken for titles.
    """
    before, line = "", None
    for after in lines:
        if line is not None:
            yield not before and not after and heading_level(line) == 1, line
            before = line
        line = after
    if line is not None:
        yield not before and heading_level(line) == 1, line
