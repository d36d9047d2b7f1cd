"""Files as tables: the columns of each record, in several formats."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fairseq_lambda.finetuning.lines import STANDARD_INPUT, Lines

FORMATS = ("tsv", "csv", "jsonl", "conllu", "conll", "trec", "text")
ENDINGS = {
    ".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conllu": "conllu",
    ".conll": "conll", ".bio": "conll", ".iob": "conll", ".label": "trec", ".txt": "text",
}  # fmt: skip
LONGEST_FIELD = 10 * 2**20  # characters; a quote that never closes would otherwise take in the rest of a file
LONGEST_SHOWN = 30
CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")


class Table:
    """Iterates over ``(line, {column: value})``; ``columns`` names them once the first record has been read.

    - ``tsv``: tabs separate columns, and quotes are text.
    - ``csv``: commas, or semicolons if the first line has only those; quotes as in RFC 4180.
    - ``jsonl``: an object per line.
    - ``conllu``: a sentence per record, a list per column; lines ``3-4`` and ``5.1`` are not words.
    - ``conll``: the same with any columns, separated by white space; ``-DOCSTART-`` is not a word.
    - ``trec``: a label, a space, the text: columns ``label`` and ``text``.
    - ``text``: a text per line, or two with a tab between them: columns ``text``, or ``text1`` and ``text2``.

    Columns without names are called "1", "2" and so on.

    Args:
        path: see :class:`Lines`.
        format: one of :data:`FORMATS`; default: by the file's ending. ``.txt`` is ``plain`` if its first line has no
            tab, or if ``plain`` is ``text`` and the line is two texts and not a header; else ``tsv``.
        header: takes the values of the first line of ``tsv`` and ``csv``; returns whether they name the columns.
        plain: what a ``.txt`` file without columns is, ``trec`` or ``text``.

    Raises:
        ValueError: the format is not known, or a line does not follow it; the message has file, line and remedy.
    """

    def __init__(
        self,
        path: str | Path,
        format: str | None = None,
        header: Callable[[list[str]], bool] = lambda first: True,
        plain: str = "text",
    ):
        self.lines, self.header = Lines(path), header
        self.columns: list[str] = []
        self.format = format or self._guess(plain)

    def _guess(self, plain: str) -> str:
        if self.lines.path == STANDARD_INPUT:
            return "text"
        found = ENDINGS.get(self.lines.suffix)
        if found is None:
            raise ValueError(f"{self.lines.name}: unknown ending: add --format {', '.join(FORMATS[:-1])} or text")
        if found == "text":
            first = next(iter(self.lines), (1, "\n"))[1][:-1].split("\t")
            is_pair = plain == "text" and len(first) == 2 and not self.header(first)
            return plain if len(first) == 1 or is_pair else "tsv"
        return found

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        reader = {"csv": self._csv, "tsv": self._tsv, "jsonl": self._jsonl, "conllu": self._words}
        reader |= {"conll": self._words, "trec": self._trec, "text": self._text}
        return reader[self.format]()

    def _named(self, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, dict[str, str]]]:
        for line, row in itertools.islice(rows, 1):
            if self.header(row):
                self.columns = row
            else:
                self.columns = [str(number) for number in range(1, len(row) + 1)]
                yield line, dict(zip(self.columns, row, strict=True))
        for line, row in rows:
            if len(row) != len(self.columns):
                cause = "; is a quote left open there?" if self.format == "csv" else ""
                raise self._error(line, f"has {len(row)} columns, but the first line has {len(self.columns)}{cause}")
            yield line, dict(zip(self.columns, row, strict=True))

    def _tsv(self) -> Iterator[tuple[int, dict[str, str]]]:
        # an empty line has no columns; in a file of one column it is an empty text
        rows = ((number, line[:-1].split("\t")) for number, line in self.lines)
        return self._named((number, row) for number, row in rows if row != [""] or len(self.columns) == 1)

    def _csv(self) -> Iterator[tuple[int, dict[str, str]]]:
        return self._named(self._csv_rows())

    def _csv_rows(self) -> Iterator[tuple[int, list[str]]]:
        lines = iter(self.lines)
        first = next(lines, None)
        if first is None:
            return
        delimiter = ";" if ";" in first[1] and "," not in first[1] else ","
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader((line for _, line in itertools.chain([first], lines)), delimiter=delimiter, strict=True)
        start = 1
        try:
            for row in reader:
                if row:
                    yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            reason = "a quote opens in the record that starts there and does not close as it should"
            raise self._error(
                start, f"{reason} ({error}): double it, or use --format tsv if quotes are text"
            ) from error

    def _jsonl(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in self.lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._error(number, f"is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise self._error(number, "is not a JSON object")
            self.columns = self.columns or list(record)
            yield number, record

    def _words(self) -> Iterator[tuple[int, dict[str, list[str]]]]:
        start, rows = 0, []
        for number, line in itertools.chain(self.lines, [(0, "\n")]):
            line = line.strip("\n")
            if not line.strip():
                if rows:
                    yield start, {name: [row[i] for row in rows] for i, name in enumerate(self.columns)}
                start, rows = 0, []
                continue
            if self.format == "conllu":
                row = line.split("\t")
                if line.startswith("#") or not row[0].isdigit():
                    if line[0] != "#" and not row[0].replace("-", "").replace(".", "").isdigit():
                        raise self._error(
                            number, "is not CoNLL-U (ten columns separated by tabs): correct it, or use --format conll"
                        )
                    continue
                self.columns = list(CONLLU)
            else:
                row = line.split("\t") if "\t" in line else line.split()
                if row[0] == "-DOCSTART-":
                    continue
                self.columns = self.columns or [str(i) for i in range(1, len(row) + 1)]
            if len(row) != len(self.columns):
                raise self._error(
                    number, f"has {len(row)} columns instead of {len(self.columns)}: a word without a label?"
                )
            start = start or number
            rows.append(row)

    def _trec(self) -> Iterator[tuple[int, dict[str, str]]]:
        self.columns = ["label", "text"]
        for number, line in self.lines:
            if line.strip():
                label, _, text = line.strip().partition(" ")
                yield number, {"label": label, "text": text}

    def _text(self) -> Iterator[tuple[int, dict[str, str]]]:
        for number, line in self.lines:
            parts = line[:-1].split("\t")
            self.columns = self.columns or (["text"] if len(parts) == 1 else ["text1", "text2"])
            if len(parts) != len(self.columns):
                raise self._error(number, f"has {len(parts)} texts separated by tabs instead of {len(self.columns)}")
            yield number, dict(zip(self.columns, parts, strict=True))

    def _error(self, line: int, what: str) -> ValueError:
        return ValueError(f"{self.lines.name}, line {line}: {what}")


def shown(value: Any) -> str:
    """Return a value for an error message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 4] + "..." + text[0]
