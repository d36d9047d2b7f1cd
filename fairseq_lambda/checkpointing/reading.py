"""Reading of checkpoint files that may be torn, damaged, foreign or hostile."""

import argparse
import contextlib
import errno
import os
import re
import zipfile
from pathlib import Path

import torch

# What a resumed run reads of fairseq's state.
NEEDED = {"cfg": dict, "model": dict, "optimizer_history": list, "extra_state": dict, "task_state": dict}
DOS_FOLDER = 0x10  # a bit of a record's attributes in zip
OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line, with the file and the reason."""


class DamagedCheckpoint(CheckpointError):
    """A torn, empty or altered file: an older one may serve in its place."""


def check_whole(path: Path) -> None:
    """Return if every record of the file is as it was written.

    torch stores a CRC-32 beside each record and does not compare it when it loads, so a flipped bit of a weight would
    pass unseen. Records are read in blocks: a large file needs no memory.

    Raises:
        DamagedCheckpoint: empty, torn or altered, or not a file of torch.save.
        CheckpointError: the system does not read it at present.
    """
    with _damage(path), _open(path) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"record {bad} is not as it was written")


def read_header(path: Path) -> dict:
    """Return fairseq's state with tensors that are not read before they are used.

    The structure is compared with its checksum, the tensors are not: see :func:`check_whole`.

    Raises:
        DamagedCheckpoint: as there.
        CheckpointError: not to be read at present, or intact, and not a checkpoint of fairseq, or more in it than
            tensors and plain values.
    """
    with _damage(path), _open(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                archive.read(name)  # compares its checksum
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
    """Within, torch.load unpickles tensors and plain values only, whatever the environment says.

    fairseq leaves the argument ``weights_only`` out, and then the variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD turns the
    protection off. Of classes, argparse.Namespace alone is let through, a bare container, in which fairseq stores the
    options of its older optimizers (``--optimizer sgd``): without it such a run could not be resumed.
    """
    before = os.environ.pop(OVERRIDE, None)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            yield
    finally:
        if before is not None:
            os.environ[OVERRIDE] = before


def _has(state, key: str, kind: type) -> bool:
    """Return whether ``state`` is a dictionary with such a thing in it; only a task may have nothing to say."""
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
        if entry.external_attr & DOS_FOLDER:  # torch would read nothing, and hand out memory as it is
            archive.close()
            raise zipfile.BadZipFile(f"record {entry.filename} is marked as a folder")
    return archive


@contextlib.contextmanager
def _damage(path: Path):
    """Turn whatever zipfile raises over altered bytes into DamagedCheckpoint: it knows a dozen exceptions.

    A file that the system does not read, a network disk's for a moment, may be whole: that is another error. EINVAL is
    zipfile's, which has taken a position in the file from altered bytes.
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
    """Return one line that says what is wrong, less torch's advice to switch the protection off."""
    text = str(error).strip()
    found = re.search(r"Unsupported (?:global: GLOBAL|class|operand)\s+(\S+)", text)
    if "Weights only load failed" in text or found:
        what = f" ({found.group(1)})" if found else ""
        return f"it holds more than tensors and plain values{what}, which could run code; none of it was run"
    return text.splitlines()[0] if text else type(error).__name__
