"""One run per ``--save-dir``: a second one would write over the checkpoints of the first."""

import atexit
import json
import os
import socket
import threading
import time
from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError

NAME = "run.lock"
BEAT, STALE = 20, 120  # seconds between signs of life, and without one until the owner counts as dead
UNKNOWN = {"process": "?", "host": "?", "since": "just now"}

_held: dict[Path, threading.Event] = {}


def take(folder: Path) -> None:
    """Hold ``folder`` for this process, until it ends; a thread renews the date of the lock every 20 seconds.

    The lock of an owner that is gone does not count: on this machine at once, on another one, or where its process
    number has been given to another process, 120 seconds after its last sign of life.

    Raises:
        CheckpointError: another process holds it; the message names it.
    """
    path = folder.resolve() / NAME
    if path in _held:
        return
    owner = _owner(path)
    if owner is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a dead one's
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with open(path, "x") as file:  # of two that start at once, one succeeds
                file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since}) + "\n")
        except FileExistsError:
            owner = UNKNOWN
    if owner is not None:
        raise CheckpointError(
            f"{folder} is in use by process {owner['process']} on {owner['host']} since {owner['since']}: wait for it, "
            f"stop it, or choose another --save-dir (if it is gone, its lock {path} ends by itself in {STALE} seconds)"
        )
    _held[path] = stop = threading.Event()
    threading.Thread(target=_beat, args=(path, stop), daemon=True).start()
    atexit.register(release, folder)


def release(folder: Path) -> None:
    """Let go of ``folder``; nothing happens if this process does not hold it."""
    path = folder.resolve() / NAME
    stop = _held.pop(path, None)
    if stop is not None:
        stop.set()
        path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        try:
            os.utime(path)
        except OSError:  # the folder is gone, or the disk does not answer
            continue


def _owner(path: Path) -> dict | None:
    """Return who holds the lock, None if nobody who is alive does."""
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
    return process != os.getpid()  # a lock of this number that this process does not hold is of a dead one
