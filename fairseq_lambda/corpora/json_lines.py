"""JSON lines: one document per line, its text in one field of an object."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from fairseq_lambda.corpora.documents import clean, utf8
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.opening import TextFile

FIELD = "text"
_NAME = re.compile(r"\.(jsonl|ndjson)(\.|$)", re.IGNORECASE)
_MARK = b"\xef\xbb\xbf"  # a byte order mark
_ARRAY = re.compile(rb'\[\s*\{\s*"')
_ONE_EACH = "every line has to be an object (`jq -c '.[]'` writes an array so)"
_NAMES_FIELD = "--text-field names the field that holds the text"


def is_json_lines(path: Path, field: str = FIELD) -> bool:
    """Return whether a file is JSON lines, judged by its name, or by an object in its first line that is not blank.

    Raises:
        PrepareError: that object lacks the field, or the file starts like an array of objects. As text it would be
            read without any other error.
    """
    if _NAME.search(path.name):
        return True
    with TextFile(path) as file:
        start = b"\n".join(islice(filter(None, map(bytes.strip, file)), 3)).removeprefix(_MARK).lstrip()
    if _ARRAY.match(start):
        raise PrepareError(f"{path}: a JSON array; {_ONE_EACH}")
    try:
        record = json.loads(start.partition(b"\n")[0]) if start.startswith(b"{") else None
    except (ValueError, RecursionError):
        return False
    if record and field not in record:
        raise PrepareError(f"{path}: JSON lines without the field {field!r}; {_NAMES_FIELD}")
    return bool(record)


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
        line = line.strip().removeprefix(_MARK)
        if not line:
            continue
        text = utf8(line, file, number)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PrepareError(f"{file}, line {number}: not JSON ({error}); {_ONE_EACH}") from None
        if not isinstance(record, dict):
            raise PrepareError(f"{file}, line {number}: no object; {_ONE_EACH}")
        if not isinstance(record.get(field), str):
            raise PrepareError(f"{file}, line {number}: no text in the field {field!r}; {_NAMES_FIELD}")
        # JSON can contain half of a surrogate pair, but UTF-8 cannot
        text = record[field].encode("utf-8", "replace").decode()
        yield from filter(None, map(clean, text.split("\n")))
        yield ""
