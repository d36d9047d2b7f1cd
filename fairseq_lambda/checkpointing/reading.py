"""Reading checkpoint files that may be torn, damaged, foreign or hostile."""

import argparse
import contextlib
import errno
import os
import re
import zipfile
from pathlib import Path

import torch

# The parts of fairseq's state that a resumed run reads.
NEEDED = {"cfg": dict, "model": dict, "optimizer_history": list, "extra_state": dict, "task_state": dict}
DOS_FOLDER = 0x10  # a bit of a record's attributes in zip
OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line, with the file and the reason."""


class DamagedCheckpoint(CheckpointError):
    """A torn, empty or altered file: an older one may be used in its place."""


def check_whole(path: Path) -> None:
    """Check that every record of the file is as it was written.

    torch stores a CRC-32 with each record but does not check it on loading, so a flipped bit in a weight would go
    unnoticed. Records are read in blocks, so a large file needs little memory.

    Raises:
        DamagedCheckpoint: empty, torn or altered, or not a file of torch.save.
        CheckpointError: the system cannot read it at the moment.
    """
    with _damage(path), _open(path) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"record {bad} is not as it was written")


def read_header(path: Path) -> dict:
    """Return fairseq's state; its tensors are read from the file only when they are used.

    The checksum of the structure is checked, those of the tensors are not: see :func:`check_whole`.

    Raises:
        DamagedCheckpoint: empty, torn or altered, or not a file of torch.save.
        CheckpointError: the system cannot read it at the moment; or it is intact, but not a checkpoint of fairseq, or
            holds more than tensors and plain values.
    """
    with _damage(path), _open(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                archive.read(name)  # checks its checksum
    try:
        with weights_only():
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a fairseq checkpoint: {_reason(error)}") from error
    missing = [key for key, kind in NEEDED.items() if not _has(state, key, kind)]
    if not missing and not _has(state["optimizer_history"][-1], "num_updates", int):
        missing = ["num_updates"]
    if missing:
        raise CheckpointError(f"{path} cannot be read as a fairseq checkpoint: it has no {missing[0]}")
    return state


@contextlib.contextmanager
def weights_only():
    """Let torch.load unpickle tensors and plain values only in this context, whatever the environment says.

    fairseq does not pass ``weights_only``, so the variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD could turn the protection
    off. One class is allowed: argparse.Namespace, a bare container in which fairseq stores the options of its older
    optimizers (``--optimizer sgd``). Without it such a run could not be resumed.
    """
    before = os.environ.pop(OVERRIDE, None)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            yield
    finally:
        if before is not None:
            os.environ[OVERRIDE] = before


def _has(state, key: str, kind: type) -> bool:
    """Return whether ``state`` is a dictionary with such an entry; only ``task_state`` may be empty."""
    if not isinstance(state, dict) or not isinstance(state.get(key), kind):
        return False
    return kind is int or key == "task_state" or bool(state[key])


def _open(path: Path) -> zipfile.ZipFile:
    if os.path.getsize(path) == 0:
        raise zipfile.BadZipFile("the file is empty")
    archive = zipfile.ZipFile(path)
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            archive.close()
            raise zipfile.BadZipFile("it is compressed, which torch.save never does")
        if entry.external_attr & DOS_FOLDER:  # torch would read nothing and return uninitialised memory
            archive.close()
            raise zipfile.BadZipFile(f"record {entry.filename} is marked as a folder")
    return archive


@contextlib.contextmanager
def _damage(path: Path):
    """Turn whatever zipfile raises over altered bytes, a dozen kinds of exception, into DamagedCheckpoint.

    A file that the system fails to read, as can happen for a moment on a network disk, may still be whole: that is a
    different error. EINVAL does mean damage: zipfile took a position in the file from altered bytes.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise CheckpointError(f"{path} cannot be read: {os.strerror(error.errno)}") from error
        raise DamagedCheckpoint(
            f"{path} cannot be read as a fairseq checkpoint: torn, damaged or of another kind ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Return one line that says what is wrong, without torch's advice to switch the protection off."""
    text = str(error).strip()
    found = re.search(r"Unsupported (?:global: GLOBAL|class|operand)\s+(\S+)", text)
    if "Weights only load failed" in text or found:
        what = f" ({found.group(1)})" if found else ""
        return f"it holds more than tensors and plain values{what}, which could run code; none of it was run"
    return text.splitlines()[0] if text else type(error).__name__
