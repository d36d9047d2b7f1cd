"""How a corpus is written: what divides its documents, and whether it is Moses-tokenised."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fairseq_lambda.corpora.documents import (
    BLANK_LINES,
    DIVIDERS,
    HEADINGS,
    Layout,
    heading_level,
    marked_lines,
    read_lines,
)
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.json_lines import is_json_lines, record_lines
from fairseq_lambda.corpora.opening import TextFile

_SAMPLE_PARAGRAPHS = 2000  # read to tell Moses-tokenised from plain text
_MAX_CHARACTERS = 64_000_000  # of the train split, read to decide
AUTO = "auto"
DIVISIONS = (AUTO, *DIVIDERS)


def layout_of(files: dict[str, list[Path]], documents: str, text_field: str) -> Layout:
    """Return the layout of a corpus, judged by the first 64 million characters of its train split.

    In JSON lines only the empty lines of :func:`record_lines` divide the documents.

    Args:
        files: the texts by split, train first.
        documents: as for :func:`detect_layout`.
        text_field: of JSON lines.

    Raises:
        PrepareError: a text cannot be read, some are JSON lines and some are not, or ``documents`` asks for headings or
            whole files in JSON lines.
    """
    paths = [path for split in files.values() for path in split]
    kinds = {is_json_lines(path, text_field): path for path in paths}
    if len(kinds) > 1:
        raise PrepareError(f"{kinds[True]} is JSON lines and {kinds[False]} is not: use one of the two for all splits")
    if True in kinds and documents not in (AUTO, BLANK_LINES):
        raise PrepareError(f"--documents {documents}: in JSON lines every line is a document; leave it out")
    read = [_Start(_lines(split, text_field)) for split in files.values()]
    layout = detect_layout(*read, documents=documents)
    if True in kinds:
        return replace(layout, divider=BLANK_LINES, evidence="JSON lines, one document each")
    if read[0].is_cut and documents == AUTO:
        return replace(layout, evidence=f"of the first {_MAX_CHARACTERS:,} characters, {layout.evidence}")
    return layout


class _Start:
    """The first lines of a text."""

    def __init__(self, lines: Iterable[str]):
        self.lines, self.is_cut = lines, False

    def __iter__(self) -> Iterator[str]:
        seen = 0
        for line in self.lines:
            if seen >= _MAX_CHARACTERS:
                self.is_cut = True
                return
            seen += len(line)
            yield line


def _lines(paths: list[Path], text_field: str) -> Iterator[str]:
    for path in paths:
        if is_json_lines(path, text_field):
            with TextFile(path) as file:
                yield from record_lines(file, path, text_field)
        else:
            yield from read_lines(path)


def detect_layout(train: Iterable[str], *others: Iterable[str], documents: str = AUTO) -> Layout:
    """Return the layout of a corpus.

    It has titled articles if at least half of the train split's blocks of text follow a heading, or at least a
    twentieth if each split starts with a title. A few lines that look like titles are no evidence. It is
    Moses-tokenised if most of the first commas and full stops have a space before them.

    Args:
        train: the cleaned lines of the train split, or as many of them as should count.
        others: those of the other splits; only their beginnings are read.
        documents: what divides the documents, one of ``DIVIDERS``, if it is known, otherwise ``auto``.
    """
    spaced = attached = paragraphs = titles = blocks = headed = 0
    follows_heading = in_block = False
    starts = []
    for is_title, line in marked_lines(train):
        if line and not starts:
            starts.append(is_title)
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
    start_with_titles = all(starts) and all(map(_starts_with_title, others))
    has_titles = titles > 0 and (2 * headed >= blocks or (start_with_titles and titles > 1 and 20 * headed >= blocks))
    evidence = f"{headed} of {blocks} blocks of text follow a heading, {titles} lines look like titles"
    divider = HEADINGS if has_titles else BLANK_LINES
    if documents != AUTO:
        divider, evidence = documents, f"--documents {documents}"
    return Layout(divider, spaced > attached, evidence)


def _starts_with_title(lines: Iterable[str]) -> bool:
    return next((is_title for is_title, line in marked_lines(lines) if line), False)
