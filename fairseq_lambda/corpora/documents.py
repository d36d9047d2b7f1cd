"""WikiText files as documents of sentences.

An article starts at a line ``= Title =`` that stands alone between blank lines; ``= = Section = =``
is inside it. Headings are left out: they would give the order of sentences away. Each other line is
a paragraph. Text without titles is read as documents divided by blank lines.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.errors import PrepareError

# Stands for a literal <unk> where one character is needed; taken out of any text that is read.
UNK_CHARACTER = "\ue000"

_HEADING = re.compile(r"(?P<left>(?:= )+)\S.*?(?P<right>(?: =)+)")
_DELETED = re.compile(f"[\u00ad\u200b\u2060\ufeff{UNK_CHARACTER}]")
_CONTROL_OR_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

_ENDS = frozenset(".?!")
_CLOSERS = frozenset([")", "]", "}", "\u201d", "\u2019", "''"])
_QUOTES = frozenset(['"', "'"])

_PLAIN_BREAK = re.compile(
    r"""(?P<end>[.?!]+["'\u201d\u2019)\]]*)\ +(?=["'\u201c\u2018(\[]*(?P<first>\w))""", re.VERBOSE
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'\u201c\u2018])(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|Rev|Hon|Gen|Col|Lt|Capt|Sgt|Mt|Ft|No|vs|c|ca|cf|"
    r"[ei]\.[eg]|(?:[A-Z]\.)+[A-Z])\.$"
)


@dataclass(frozen=True)
class Layout:
    """How a corpus is written: by titled articles or by blank lines, Moses-tokenised or plain."""

    has_titles: bool
    is_moses: bool


def clean(line: str) -> str:
    """Return the line with every run of white space or control characters as one space.

    fairseq splits its text at any Unicode white space, so none may end up inside a piece.
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
    """Yield the cleaned lines of a UTF-8 file; PrepareError names the line that is not UTF-8."""
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
    """Return the layout of a split, from the spaces before its commas and its first title."""
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
    """Yield each document as its sentences, in order; documents without a sentence are left out.

    Moses-tokenised sentences come out as ordinary English unless keep_moses is true.
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

    A title has blank lines around it: WikiText-2's train split also holds 29 table keys such as
    ``= Played , W =`` in the middle of text, which would otherwise pass for articles.
    """
    before, line = "", None
    for after in read_lines(path):
        if line is not None:
            yield not before and not after and heading_level(line) == 1, line
            before = line
        line = after
    if line is not None:
        yield not before and heading_level(line) == 1, line


def split_tokenised(paragraph: str) -> list[str]:
    """Return the sentences of a Moses-tokenised paragraph; joined by spaces they are its tokens.

    A sentence ends at a token ``.``, ``?`` or ``!``. Closing brackets and quotes that follow belong
    to it; a straight quote closes when an odd number of them came before. ``? " asked he`` goes on:
    after a closing quote a lower-case word continues the sentence.
    """
    tokens = paragraph.split()
    sentences: list[str] = []
    quotes_seen = dict.fromkeys(_QUOTES, 0)
    start = position = 0
    while position < len(tokens):
        token = tokens[position]
        _count_quote(tokens, position, quotes_seen)
        position += 1
        if token not in _ENDS:
            continue
        closed_quote = False
        while position < len(tokens):
            following = tokens[position]
            closing_quote = following in _QUOTES and quotes_seen[following] % 2 == 1
            if following not in _ENDS and following not in _CLOSERS and not closing_quote:
                break
            _count_quote(tokens, position, quotes_seen)
            closed_quote = closed_quote or closing_quote or following in ("\u201d", "''")
            position += 1
        if closed_quote and position < len(tokens) and tokens[position][0].islower():
            continue
        sentences.append(" ".join(tokens[start:position]))
        start = position
    return _attach_wordless([*sentences, " ".join(tokens[start:])])


def _count_quote(tokens: list[str], position: int, quotes_seen: dict[str, int]) -> None:
    token = tokens[position]
    if token not in _QUOTES:
        return
    # `players ' union`: an apostrophe after a plural opens no quotation.
    previous = tokens[position - 1] if position else ""
    if token == "'" and quotes_seen[token] % 2 == 0 and previous.endswith("s"):
        return
    quotes_seen[token] += 1


def split_plain(paragraph: str) -> list[str]:
    """Return the sentences of ordinary English; joined by spaces they are the paragraph's words.

    A sentence ends at ``.``, ``?`` or ``!``, with closing quotes or brackets, before a space and a
    capital (or an opening quote or bracket and a capital), except after initials and some titles.
    """
    text = " ".join(paragraph.split())
    sentences: list[str] = []
    start = 0
    for match in _PLAIN_BREAK.finditer(text):
        is_initial = _ABBREVIATION.search(text, start, match.end("end")) is not None
        if unicodedata.category(match["first"]) in ("Lu", "Lt") and not is_initial:
            sentences.append(text[start : match.end("end")])
            start = match.end()
    return _attach_wordless([*sentences, text[start:]])


def _attach_wordless(sentences: list[str]) -> list[str]:
    """Return the sentences, those without a letter or a digit joined to a neighbour."""
    joined: list[str] = []
    for sentence in filter(None, sentences):
        has_word = any(character.isalnum() for character in sentence)
        if joined and not (has_word and any(map(str.isalnum, joined[-1]))):
            joined[-1] += " " + sentence
        else:
            joined.append(sentence)
    return joined
