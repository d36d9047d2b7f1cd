"""Files and folders that appear whole or not at all, even when the power fails; and the SHA-256 of a file."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".tmp"  # suffix of what is being written, the same as fairseq's
OPEN_FILES = ("/dev/std", "/dev/fd/")  # even if it is a file, others may go on writing to it


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside ``path`` for the caller to write a file to; at the end the file is renamed to ``path``.

    An earlier file of that name stays until the new one is on the disk. If the body raises, the earlier file is kept
    and what was written is removed.

    Raises:
        OSError: nothing was written, or the file cannot be synced or renamed.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        yield unfinished
        rename(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def output(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to, as :func:`whole` does, for a file that a user has named.

    Of a link, the file that it points to is replaced. What is not a file, such as a pipe or ``/dev/stdout``, cannot be
    replaced: then ``path`` itself is yielded. An earlier file passes its permissions on. The file is written in a
    private folder beside ``path``, since the user may have a file of any other name there.

    Raises:
        OSError: nothing was written, or the file cannot be synced or renamed.
    """
    path = Path(path)
    if str(path).startswith(OPEN_FILES) or (path.exists() and not path.is_file()):
        yield path
        return
    path = Path(os.path.realpath(path))
    with _private_folder(path) as place:
        unfinished = Path(place, path.name)
        yield unfinished
        if path.exists():
            shutil.copymode(path, unfinished)
        rename(unfinished, path)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder for the caller to fill; at the end it is renamed to ``path``.

    It replaces an earlier folder of that name. The two renames are not atomic: a process that is killed between them
    leaves the earlier folder beside ``path``, as ``.NAME.*.tmp/old``. If the body raises, the earlier folder is kept
    and what was written is removed.

    Raises:
        OSError: the folder cannot be made, synced or renamed, or ``path`` is a file.
    """
    path = Path(path)
    with _private_folder(path) as place:
        new, old = Path(place, "new"), Path(place, "old")
        new.mkdir()  # the outer folder is readable by its owner only; this one has the usual permissions
        yield new
        for written in (*new.rglob("*"), new):
            _sync(written)
        try:
            if path.is_dir():
                os.rename(path, old)
            os.rename(new, path)
        except BaseException:
            if os.path.lexists(old) and not path.exists():
                os.rename(old, path)
            raise
        _sync(path.parent)


def check_destination(path: Path, force: bool, mark: str, flag: str = "--dest", source: Path | None = None) -> None:
    """Check that a folder can be made at ``path``: nothing is there, or ``force`` replaces what an earlier call made.

    Args:
        path: the destination.
        force: replace an empty folder, or one that holds ``mark``; others may have been named by mistake.
        mark: a file that every such folder has.
        flag: the flag that names the destination, for the message.
        source: what the folder is made from, which is never replaced.

    Raises:
        FileExistsError: it exists and is not to be replaced; the message says what to do.
    """
    if not os.path.lexists(path):
        return
    if not force:
        raise FileExistsError(f"{path} already exists: choose another {flag}, or replace it with --force")
    if source is not None and path.resolve() == source.resolve():
        raise FileExistsError(f"{path} is what is to be converted: choose another {flag}")
    if not path.is_dir() or (any(path.iterdir()) and not (path / mark).is_file()):
        raise FileExistsError(f"{path} is not a folder with {mark}, so --force leaves it: choose another {flag}")


def _private_folder(path: Path) -> tempfile.TemporaryDirectory:
    """Return a folder of a new name beside ``path``, which exists as long as its context."""
    return tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent, ignore_cleanup_errors=True
    )


def rename(source: Path, target: Path) -> None:
    """Rename a file within its file system, over any earlier file; return once content and name are on the disk."""
    _sync(source)
    os.replace(source, target)
    _sync(target.parent)


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return  # Windows cannot sync a folder
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows syncs only what can be written
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # raised by file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
