"""Progress on standard error, in whole lines, so that it reads the same in a terminal and in a file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SECONDS = 4.0

Item = TypeVar("Item")


def report_progress(message: str) -> None:
    """Print one line on standard error, at once."""
    print(message, file=sys.stderr, flush=True)


def narrate(
    items: Iterable[Item], doing: str, size: Callable[[Item], int] = lambda _: 1, done: int = 0
) -> Iterator[Item]:
    """Yield the items; print what is being done, and every SECONDS how much of it is done.

    Args:
        items: what to yield.
        doing: the activity, such as "reading FILE".
        size: how much an item counts, by default 1.
        done: how much was done before.
    """
    report_progress(doing)
    last = time.monotonic()
    for item in items:
        yield item
        done += size(item)
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            report_progress(f"{doing}: {done:,}")
