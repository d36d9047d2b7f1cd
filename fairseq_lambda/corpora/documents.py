"""Text files to documents of sentences: articles with headings, as in WikiText, or text divided by blank lines.

An article starts at a line ``= Title =`` with a blank line before and after it; ``= = Section = =`` is a heading inside
an article. Headings are left out, because they would give away the order of the sentences. Every other line is a
paragraph. Without titles, blank lines divide the documents. Which of the two it is, is decided for a corpus as a whole.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.languages import DEFAULT_LANGUAGE
from fairseq_lambda.corpora.plain_sentences import split_plain
from fairseq_lambda.corpora.sentences import split_tokenised

# Stands for a literal <unk> where a single character is needed; removed from any text that is read.
UNK_CHARACTER = "\ue000"

_HEADING = re.compile(r"(?P<left>(?:= )+)\S.*?(?P<right>(?: =)+)")
# soft hyphen, zero-width space, direction marks, word joiner, byte order mark; not the zero-width non-joiner (U+200C)
# and joiner (U+200D), which are part of words in Persian and in scripts of India
_DELETED = re.compile(f"[\u00ad\u200b\u200e\u200f\u2060\ufeff{UNK_CHARACTER}]")
_SAMPLE_PARAGRAPHS = 2000  # that tell Moses-tokenised from plain text
AUTO, HEADINGS, BLANK_LINES = DIVISIONS = ("auto", "headings", "blank-lines")
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Layout:
    """How a corpus is written: with titled articles or blank lines, Moses-tokenised or plain; and how we know."""

    has_titles: bool
    is_moses: bool
    evidence: str = field(default="", compare=False)


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


def detect_layout(train: Path, *others: Path, documents: str = AUTO) -> Layout:
    """Return the layout of a corpus.

    It has titled articles if each split starts with a title, or if at least half of the train split's blocks of text
    follow a heading; a few lines that look like titles are no evidence. It is Moses-tokenised if most of the first
    commas and full stops have a space before them.

    Args:
        train: the train split.
        others: the other splits.
        documents: ``headings`` or ``blank-lines`` if it is known what divides the documents, otherwise ``auto``.
    """
    spaced = attached = paragraphs = titles = blocks = headed = 0
    follows_heading = in_block = False
    for is_title, line in _marked_lines(train):
        is_heading = heading_level(line) > 0
        titles += is_title
        if not line or is_heading:
            in_block = False
            follows_heading = follows_heading or is_heading
            continue
        if not in_block:
            blocks += 1
            headed += follows_heading
        in_block, follows_heading = True, False
        if paragraphs < _SAMPLE_PARAGRAPHS:
            paragraphs += 1
            spaced += len(re.findall(r"(?:^| )[.,](?= |$)", line))
            attached += len(re.findall(r"[^ .,][.,](?= |$)", line))
    has_titles = titles > 0 and (2 * headed >= blocks or all(map(_starts_with_title, (train, *others))))
    evidence = f"{headed} of {blocks} blocks of text follow a heading, {titles} lines look like titles"
    if documents != AUTO:
        has_titles, evidence = documents == HEADINGS, f"--documents {documents}"
    return Layout(has_titles, spaced > attached, evidence)


def read_documents(
    path: Path,
    layout: Layout,
    keep_moses: bool = False,
    language: str = DEFAULT_LANGUAGE,
    seen: Counter[str] | None = None,
) -> Iterator[list[str]]:
    """Yield each document as a list of its sentences, in order; documents without a sentence are left out.

    Moses-tokenised sentences are turned into ordinary English unless ``keep_moses`` is true; ``language`` is that of
    plain text. ``seen`` counts the "paragraphs" and the "headings", which are left out.
    """
    document: list[str] = []
    seen = Counter() if seen is None else seen
    for is_title, line in _marked_lines(path):
        if (is_title and layout.has_titles) or (not line and not layout.has_titles):
            if document:
                yield document
            document = []
        if heading_level(line):
            seen["headings"] += 1
        elif line:
            seen["paragraphs"] += 1
            document.extend(_sentences(line, layout, keep_moses, language))
    if document:
        yield document


def _sentences(paragraph: str, layout: Layout, keep_moses: bool, language: str) -> list[str]:
    if not layout.is_moses:
        return split_plain(paragraph, language)
    sentences = split_tokenised(paragraph)
    return sentences if keep_moses else detokenise(sentences)


def _starts_with_title(path: Path) -> bool:
    return next((is_title for is_title, line in _marked_lines(path) if line), False)


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
