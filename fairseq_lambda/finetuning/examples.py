"""Texts, or words, with their labels, from the columns of a file."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_lambda.finetuning.tables import Table, shown

# The columns to look for if none are named: first pairs, then single texts, then words.
PAIRS = [("sentence1", "sentence2"), ("text1", "text2"), ("premise", "hypothesis"), ("question1", "question2")]
SINGLE = [("sentence",), ("text",), ("FORM",), ("tokens",), ("words",)]
LABELS = ["label", "labels", "class", "category", "UPOS", "tags", "upos", "ner_tags", "score"]
OF_WORDS = ("conllu", "conll")


@dataclass(slots=True)
class Example:
    """One or two ``texts``, or ``words``; ``label`` is a name, a list of names, or None without labels."""

    line: int
    texts: tuple[str, ...] = ()
    words: list[str] | None = None
    label: str | list[str] | None = None


@dataclass
class Source:
    """Iterates over the :class:`Example` objects of a file; ``notes()`` reports what was counted on the way.

    Args:
        path: see :class:`~fairseq_lambda.finetuning.lines.Lines`.
        text: one or two columns, by name or, from 1, by number; default: common names, see ``PAIRS`` and ``SINGLE``,
            whatever their capitals.
        label: a column, or several that hold 0 and 1; default: common names, see ``LABELS``. Ignored if ``labelled`` is
            False.
        format: one of ``FORMATS``; default: by the file's ending.
        header: "yes", "no", or "auto": yes if columns are named, or if the first line has one of the common names.
        separator: what separates the labels of one text, such as ",".

    Raises:
        ValueError: a line that cannot be used; the message has the file, the line and the reason.
    """

    path: str | Path
    text: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    format: str | None = None
    header: str = "auto"
    separator: str | None = None
    labelled: bool = True
    empty: list[int] = field(default_factory=list)  # the line of the first empty text

    def __post_init__(self):
        self.table = Table(self.path, self.format, self._has_header, plain="trec" if self.labelled else "text")
        self.name = self.table.lines.name

    def _has_header(self, first: list[str]) -> bool:
        if self.header != "auto":
            return self.header == "yes"
        named = (*self.text, *(self.label if self.labelled else ()))
        if any(not name.isdigit() or name in first for name in named):
            return True
        if named:  # by number: the first line is a header if one of the cells meant has a common name
            meant = [first[int(name) - 1] for name in named if 1 <= int(name) <= len(first)]
            return any(_find(name, meant) is not None for name in (*itertools.chain(*PAIRS, *SINGLE), *LABELS))
        return any(None not in [_find(name, first) for name in names] for names in PAIRS + SINGLE)

    def __iter__(self) -> Iterator[Example]:
        text = label = None
        self.empty.clear()
        self.empties = 0
        for line, record in self.table:
            if text is None:
                columns = self.table.columns
                text = self._columns("--text", self.text, columns, [list(names) for names in PAIRS + SINGLE], record)
                if self.labelled:
                    default = [[columns[-1]]] if self.table.format == "conll" else [[name] for name in LABELS]
                    label = self._columns("--label", self.label, columns, default, record)
                    if both := [name for name in text if name in label]:
                        raise ValueError(
                            f"{self.name}: column {both[0]!r} cannot be both text and label (columns: "
                            f"{len(columns)}): name the right ones with --text and --label"
                        )
            yield self._example(line, record, text, label)

    def _columns(self, flag: str, named: tuple[str, ...], columns: list[str], default: list[list[str]], record) -> list:
        if self.table.format == "conll" and flag == "--text" and not named:
            return [columns[0]]
        if not named:
            candidates = ([_find(name, columns) for name in names] for names in default)
            found = next((names for names in candidates if None not in names), None)
            if found is None:
                values = ", ".join(f"{name} {shown(record.get(name))}" for name in columns)
                both = (
                    flag == "--text"
                    and self.labelled
                    and not self.label
                    and not any(_find(name, columns) for name in LABELS)
                )
                flags = "it with --text, and that of the labels with --label" if both else f"it with {flag}"
                raise ValueError(
                    f"{self.name}: which column is meant? Name {flags}, by number if the file has no header; "
                    f"there are {len(columns)}: {values}"
                )
            return found
        chosen = []
        for name in named:
            if name not in columns and name.isdigit() and 1 <= int(name) <= len(columns):
                name = columns[int(name) - 1]
            if name not in columns:
                has = ", ".join(shown(column) for column in columns)
                raise ValueError(f"{self.name} has no column {name!r} ({flag}): it has {has}")
            chosen.append(name)
        return chosen

    def _example(self, line: int, record: dict[str, Any], text: list[str], label: list[str] | None) -> Example:
        values = [self._value(line, record, name) for name in text]
        labels = None if label is None else self._label(line, record, label)
        if isinstance(values[0], list):
            words = [str(word) for word in values[0]]
            if labels is not None and (not isinstance(labels, list) or len(labels) != len(words)):
                found = len(labels) if isinstance(labels, list) else "one"
                raise ValueError(
                    f"{self.name}, line {line}: {len(words)} words have {found} labels: one per word is needed"
                )
            texts: tuple[str, ...] = ()
        else:
            words, texts = None, tuple(str(value) for value in values)
        if not (any(words) if words is not None else all(part.strip() for part in texts)):
            self.empty[:] = self.empty or [line]
            self.empties += 1
        return Example(line, texts, words, labels)

    def _value(self, line: int, record: dict[str, Any], name: str) -> Any:
        if name not in record or record[name] is None:
            raise ValueError(f"{self.name}, line {line} has no {name!r}")
        return record[name]

    def _label(self, line: int, record: dict[str, Any], label: list[str]) -> str | list[str]:
        values = [self._value(line, record, name) for name in label]
        if len(label) > 1:
            for name, value in zip(label, values, strict=True):
                if str(value) not in ("0", "1", "False", "True"):
                    raise ValueError(f"{self.name}, line {line}: {name} is {shown(value)}: 0 or 1 is needed")
            return [name for name, value in zip(label, values, strict=True) if str(value) in ("1", "True")]
        if isinstance(values[0], list):
            return [str(name) for name in values[0]]
        value = str(values[0]).strip()
        if self.separator:
            return [name.strip() for name in value.split(self.separator) if name.strip()]
        if not value:
            raise ValueError(f"{self.name}, line {line}: the label is empty")
        return value

    def notes(self) -> list[str]:
        """Return notes on what has been read so far, one line each."""
        notes = self.table.lines.notes()
        if self.empty:
            texts = "1 text is" if self.empties == 1 else f"{self.empties} texts are"
            notes.append(f"{self.name}: {texts} empty (line {self.empty[0]}), and read as such")
        return notes


def _find(name: str, columns: list[str]) -> str | None:
    """Return the column of a common name: as it is, else with other capitals; None if there is none."""
    if name in columns:
        return name
    return next((column for column in columns if column.casefold() == name.casefold()), None)


def natural_order(names) -> list[str]:
    """Return names sorted: by value if all of them are whole numbers, else alphabetically."""
    names = set(names)
    numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numbers else name)
