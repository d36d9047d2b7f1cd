"""One run per ``--save-dir``: a second one would write over the checkpoints of the first."""

import atexit
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError

NAME = "run.lock"
BEAT, STALE = 20, 120  # seconds between signs of life, and without one until the owner counts as dead
UNKNOWN = {"process": "?", "host": "?", "since": "just now"}

SETTLE = 0.5  # seconds after which all processes that found the same dead lock have replaced it

logger = logging.getLogger(__name__)

_held: dict[Path, tuple[threading.Event, str]] = {}  # the event that stops the thread; the text of the lock


def take(folder: Path) -> None:
    """Lock ``folder`` for this process until it ends; a thread renews the date of the lock every 20 seconds.

    The lock of a dead owner does not count. On this machine its death is noticed at once; on another machine, or if
    the owner's process number is in use again, 120 seconds after its last sign of life.

    Raises:
        CheckpointError: another process holds it; the message names it.
    """
    path = folder.resolve() / NAME
    if path in _held:
        return
    owner, is_there = _owner(path), path.exists()
    if owner is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # that of a dead owner
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        ours = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since}) + "\n"
        try:
            with open(path, "x") as file:  # of two that start at once, one succeeds
                file.write(ours)
        except FileExistsError:
            owner = UNKNOWN
        if owner is None and is_there:  # of two that find a dead lock, the second may remove that of the first
            time.sleep(SETTLE)
            owner = None if _says(path, ours) else _owner(path) or UNKNOWN
    if owner is not None:
        raise CheckpointError(
            f"{folder} has been in use by process {owner['process']} on {owner['host']} since {owner['since']}: "
            f"wait for it, stop it, or choose another --save-dir (if it is dead, its lock {path} expires after "
            f"{STALE} seconds)"
        )
    stop = threading.Event()
    _held[path] = stop, ours
    threading.Thread(target=_beat, args=(path, stop, ours), daemon=True).start()
    atexit.register(release, folder)


def release(folder: Path) -> None:
    """Unlock ``folder``; does nothing if this process does not hold the lock."""
    path = folder.resolve() / NAME
    stop, ours = _held.pop(path, (None, ""))
    if stop is not None:
        stop.set()
        if _says(path, ours):
            path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event, ours: str) -> None:
    while not stop.wait(BEAT):
        try:
            if not _says(path, ours):
                logger.error(
                    f"{path} no longer belongs to this run, which gave no sign of life for {STALE} seconds: another "
                    "run may have started in its folder"
                )
                return
            os.utime(path)
        except OSError:  # the folder is gone, or the disk does not answer
            continue


def _says(path: Path, ours: str) -> bool:
    """Return whether the lock is the one that says ``ours``."""
    try:
        return path.read_text() == ours
    except FileNotFoundError:
        return False


def _owner(path: Path) -> dict | None:
    """Return who holds the lock, or None if no live process does."""
    try:
        if time.time() - path.stat().st_mtime > STALE:
            return None
        owner = json.loads(path.read_text())
        if owner["host"] == socket.gethostname() and not _is_alive(owner["process"]):
            return None
        return owner
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return UNKNOWN  # it is being written


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()  # a lock with our own number that we do not hold is left from a dead process
