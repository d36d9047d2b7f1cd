"""Signs of life on standard error: whole lines, so that they read the same without a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS = 4.0

Item = TypeVar("Item")


def report_progress(message: str) -> None:
    """Print one line on standard error, at once."""
    print(message, file=sys.stderr, flush=True)


def narrate(items: Iterable[Item], doing: str) -> Iterator[Item]:
    """Yield the items; say what is being done at the start and how many have gone every SECONDS."""
    report_progress(doing)
    last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            report_progress(f"{doing}: {number:,}")
