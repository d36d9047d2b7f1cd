"""Writing checkpoint files: whole, with retries for disks that fail now and then, and with one-line errors."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fairseq_lambda.files import whole

ATTEMPTS, PAUSE = 3, 2.5  # tries, and seconds between them, as in fairseq


def save_whole(state: dict, path) -> None:
    """Save ``state`` as ``path``; an earlier file of that name stays until the new one is on the disk.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    _write(path, lambda part: torch.save(state, part))


def copy_whole(source, target) -> None:
    """Copy ``source`` to ``target``; an earlier file of that name stays until the copy is complete.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    _write(target, lambda part: shutil.copyfile(source, part))


def _write(path, write: Callable[[Path], object]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            with whole(path) as part:
                write(part)
            return
        except Exception as error:  # torch raises RuntimeError where the disk is full
            if attempt == ATTEMPTS - 1:
                raise explained(error, Path(path)) from error
            time.sleep(PAUSE)


def explained(error: Exception, path: Path) -> OSError:
    """Return the error as one line with a remedy."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    number = cause.errno if cause is not None else None
    reason = os.strerror(number) if number else (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "check the disk"
    if number in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space"
    elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = "choose a --save-dir that can be written"
    return OSError(f"{path} cannot be written: {reason}; {remedy} and run again. What was saved before is intact")
