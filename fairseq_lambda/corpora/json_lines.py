"""JSON lines: one document per line, its text in one field of an object."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fairseq_lambda.corpora.documents import clean, utf8
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.opening import TextFile

FIELD = "text"
_NAME = re.compile(r"\.(jsonl|ndjson)(\.|$)", re.IGNORECASE)


def is_json_lines(path: Path, field: str = FIELD) -> bool:
    """Return whether a file is JSON lines, judged by its name, or by an object with that field in its first line."""
    if _NAME.search(path.name):
        return True
    with TextFile(path) as file:
        line = next(iter(file), b"").strip().removeprefix(b"\xef\xbb\xbf")
    try:
        return line.startswith(b"{") and field in json.loads(line)
    except ValueError:
        return False


def record_lines(lines: Iterable[bytes], file: str | Path, field: str, first: int = 1) -> Iterator[str]:
    """Yield the cleaned lines of each record's text, and an empty line after each record.

    Empty lines in a text are left out, so that documents are divided by empty lines and by nothing else.

    Args:
        lines: of the file; blank ones are skipped.
        file: its path, for messages.
        field: the field of an object that holds the text.
        first: the number of the first line.

    Raises:
        PrepareError: a line is not UTF-8, is not an object, or has no text in that field; the message gives the line
            number.
    """
    for number, line in enumerate(lines, start=first):
        line = line.strip().removeprefix(b"\xef\xbb\xbf")
        if not line:
            continue
        text = utf8(line, file, number)
        try:
            record = json.loads(text)
        except ValueError as error:
            raise PrepareError(f"{file}, line {number}: not JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            found = "no object" if not isinstance(record, dict) else f"no text in the field {field!r}"
            raise PrepareError(f"{file}, line {number}: {found}; --text-field names the field that holds the text")
        # JSON can contain half of a surrogate pair, but UTF-8 cannot
        text = record[field].encode("utf-8", "replace").decode()
        yield from filter(None, map(clean, text.split("\n")))
        yield ""
