"""One run per ``--save-dir``: a second one would write over the checkpoints of the first."""

import atexit
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.checkpointing.writing import explained

NAME = "run.lock"
BEAT, STALE = 20, 120  # seconds between signs of life, and without one until the owner counts as dead
UNKNOWN = {"process": "?", "host": "?", "since": "just now"}

SETTLE = 0.5  # seconds after which all processes that found the same dead lock have replaced it

logger = logging.getLogger(__name__)

_held: dict[Path, tuple[threading.Event, str]] = {}  # the event that stops the thread; the text of the lock


def take(folder: Path) -> None:
    """Lock ``folder`` for this process until it ends; a thread renews the date of the lock every 20 seconds.

    The lock of a dead owner does not count. On this machine its death is noticed at once, and a live owner keeps its
    lock even while it is suspended; on another machine an owner is dead 120 seconds after its last sign of life.

    Raises:
        CheckpointError: another process holds it; the message names it.
        OSError: the lock cannot be written; nothing is left behind.
    """
    path = folder.resolve() / NAME
    if path in _held:
        return
    process, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
    ours = {"host": socket.gethostname(), "process": process, "started": _started(process), "since": since}
    ours = json.dumps(ours) + "\n"
    found = _read(path)
    if _owner(path) is None:
        try:
            if found is not None:
                _remove(path, found)
            _create(path, ours)
        except OSError as error:
            raise explained(error, path) from error
        if found is not None:
            time.sleep(SETTLE)
    if _read(path) != ours:
        owner = _owner(path) or UNKNOWN
        expiry = f" (if it is dead, its lock {path} expires after {STALE} seconds)"
        raise CheckpointError(
            f"{folder} has been in use by {_named(owner)} since {owner['since']}: wait for it, stop it, or choose "
            f"another --save-dir{'' if owner['host'] == socket.gethostname() else expiry}"
        )
    stop = threading.Event()
    _held[path] = stop, ours
    threading.Thread(target=_beat, args=(path, stop, ours), daemon=True).start()
    atexit.register(release, folder)


def check(folder: Path) -> None:
    """Check, before a file is written to ``folder``, that no other process has taken this one's lock over.

    Raises:
        CheckpointError: one has; the message names it.
    """
    path = folder.resolve() / NAME
    if path in _held and _is_lost(path, _held[path][1]):
        raise CheckpointError(
            f"{path} now belongs to {_named(_owner(path) or UNKNOWN)}, since this run gave no sign of life for {STALE} "
            "seconds: it ends without saving, so that the other run's checkpoints stay"
        )


def release(folder: Path) -> None:
    """Unlock ``folder``; does nothing if this process does not hold the lock."""
    path = folder.resolve() / NAME
    stop, ours = _held.pop(path, (None, ""))
    if stop is not None:
        stop.set()
        if not _is_lost(path, ours):
            path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event, ours: str) -> None:
    while not stop.wait(BEAT):
        if _is_lost(path, ours):
            logger.error(
                f"{path} no longer belongs to this run, which gave no sign of life for {STALE} seconds: another run "
                "may have started in its folder. This one ends when it is about to save"
            )
            return
        with contextlib.suppress(OSError):  # the folder is gone, or the disk does not answer
            os.utime(path)


def _create(path: Path, text: str) -> None:
    """Write a lock unless there is one: of two processes that start at once, one succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(path, "x") as file:
        try:
            file.write(text)
            file.flush()
        except BaseException:  # an empty lock would keep the next run out
            path.unlink(missing_ok=True)
            raise


def _remove(path: Path, dead: str) -> None:
    """Remove the lock that says ``dead``, and no other: of two that find it, the second meets the lock of the first."""
    aside = path.with_name(f"{NAME}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _read(aside) == dead:
        aside.unlink()
    else:
        os.rename(aside, path)


def _read(path: Path) -> str | None:
    """Return what a lock says; None if there is none, or if the disk does not answer."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _is_lost(path: Path, ours: str) -> bool:
    """Return whether the lock has become another process's; if it was removed by hand, nobody else has it."""
    return _read(path) not in (None, ours)


def _owner(path: Path) -> dict | None:
    """Return who holds the lock, or None if no live process does."""
    try:
        is_stale = time.time() - path.stat().st_mtime > STALE
        owner = json.loads(path.read_text(errors="replace"))
        is_here = owner["host"] == socket.gethostname()
        if is_here and not _is_alive(owner["process"]):
            return None
        started = _started(owner["process"]) if is_here else None
        if started is not None and owner.get("started") is not None:  # else the number may be another process's by now
            is_stale = started != owner["started"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        owner = UNKNOWN  # it is being written
    return None if is_stale else owner


def _named(owner: dict) -> str:
    return f"process {owner['process']} on {owner['host']}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()  # a lock with our own number that we do not hold is left from a dead process


def _started(process: int) -> int | None:
    """Return when a process of this machine started, in ticks since it booted; 0 if it has ended but is still listed.

    A process number is used again, but not with the same start. None if the system does not say, as outside Linux.
    """
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return 0 if state in "ZX" else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None
