"""Progress messages on standard error, in whole lines, so that they read the same in a terminal and in a log file."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

SECONDS = 4.0

Item = TypeVar("Item")


def report_progress(message: str) -> None:
    """Print one line on standard error, without buffering."""
    print(message, file=sys.stderr, flush=True)


def narrate(
    items: Iterable[Item],
    doing: str,
    size: Callable[[Item], int],
    done: int = 0,
    position: Callable[[], int] | None = None,
    total: int | None = None,
) -> Iterator[Item]:
    """Yield the items; print what is being done and, every SECONDS, how much is done, how fast, and the time left.

    Args:
        items: what to yield.
        doing: the activity, such as "reading FILE".
        size: returns the bytes of an item.
        done: bytes done before.
        position: returns the progress towards ``total``, if that is not counted in the bytes of the items.
        total: where it ends, if known.
    """
    report_progress(doing)
    before, first = done, position() if position else done
    began = last = time.monotonic()
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            at, spent = position() if position else done, now - began
            parts = [f"{done / 1e6:,.0f} MB", f"{(done - before) / spent / 1e6:,.1f} MB/s"]
            if total and at > first:
                parts.insert(1, f"{min(at / total, 1):.0%}")
                parts.append(f"{duration(max(total - at, 0) * spent / (at - first))} left")
            report_progress(f"{doing}: {', '.join(parts)}")


@contextmanager
def heartbeat(doing: str) -> Iterator[None]:
    """A context that prints the elapsed time every SECONDS, for work that does not report its progress."""
    report_progress(doing)
    began, ended = time.monotonic(), threading.Event()

    def beat():
        while not ended.wait(SECONDS):
            report_progress(f"{doing}: {duration(time.monotonic() - began)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Return seconds as text: 42 s, 7 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
