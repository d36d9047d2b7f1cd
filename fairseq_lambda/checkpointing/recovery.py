"""What to resume from after a kill: the newest whole checkpoint of a run's folder."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError, DamagedCheckpoint, check_whole, read_header
from fairseq_lambda.checkpointing.writing import copy_whole
from fairseq_lambda.files import UNFINISHED, rename

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"
NAMES = re.compile(r"checkpoint(_last|_best|_\d+_\d+|\d+|\.best_.+)\.pt")
ASIDE = ".damaged"


@dataclass(frozen=True)
class Candidate:
    """A file that has a readable header."""

    path: Path
    updates: int
    written: int  # the date of the file, in ns
    is_best: bool  # the best one of the run at the time it was written

    @classmethod
    def read(cls, path: Path) -> "Candidate":
        state = read_header(path)
        extra = state["extra_state"]
        best, own = extra.get("best"), extra.get("val_loss")
        updates = state["optimizer_history"][-1]["num_updates"]
        return cls(path, updates, path.stat().st_mtime_ns, own is not None and own == best)


def survey(folder: Path) -> tuple[Candidate | None, list[Candidate], dict[Path, str]]:
    """Return the newest whole checkpoint of a folder, all with a readable header, and what is wrong with the others.

    The newest is the one with the most updates, because copying changes a file's date; among equals, it is
    ``checkpoint_last.pt``. But a file with an older date than ``checkpoint_last.pt`` never takes its place: the user
    has gone back from it, with --restore-file, --reset-optimizer or a copy. Files are read in full only until a whole
    one is found.

    Raises:
        CheckpointError: an intact file is not a checkpoint of fairseq, or holds code; the user has to decide.
    """
    candidates, damaged = [], {}
    for path in sorted(folder.iterdir()):
        if NAMES.fullmatch(path.name) and path.is_file():
            try:
                candidates.append(Candidate.read(path))
            except DamagedCheckpoint as error:
                damaged[path] = str(error)
    last = next((c.written for c in candidates if c.path.name == LAST), 0)
    candidates.sort(key=lambda c: (c.written >= last, c.updates, c.path.name == LAST), reverse=True)
    for candidate in candidates:
        try:
            check_whole(candidate.path)
        except DamagedCheckpoint as error:
            damaged[candidate.path] = str(error)
        else:
            return candidate, [c for c in candidates if c.path not in damaged], damaged
    return None, [], damaged


def recover(folder: Path) -> tuple[Candidate | None, list[str]]:
    """Make ``checkpoint_last.pt`` the newest whole checkpoint; return it, or None for a new run, and what was done.

    A kill may come between the parts of a save: fairseq writes ``checkpoint_1_500.pt`` and copies it over
    ``checkpoint_best.pt`` and ``checkpoint_last.pt``. Missing copies are made here. Damaged files are put aside under
    another name, never overwritten; unfinished writes are removed.

    Raises:
        CheckpointError: there are checkpoints but none is whole, or :func:`survey` raises it. Nothing is changed then.
    """
    if not folder.is_dir():
        return None, []
    newest, candidates, damaged = survey(folder)
    if newest is None and damaged:
        raise CheckpointError(
            f"{folder} holds no whole checkpoint to resume from: {'; '.join(damaged.values())}. Put a whole one "
            "there as checkpoint_last.pt, or start afresh with another --save-dir"
        )
    done = []
    for path in folder.glob(f"checkpoint*.pt{UNFINISHED}"):
        if NAMES.fullmatch(path.name.removesuffix(UNFINISHED)):
            path.unlink()
            done.append(f"skipped {path}: an unfinished write; removed")
    for path, reason in damaged.items():
        aside = _free_name(path)
        rename(path, aside)
        done.append(f"skipped {reason}; renamed to {aside.name}")
    if newest is None:
        return None, done

    targets = {}
    if newest.path.name != LAST:
        targets[LAST] = "the newest whole checkpoint"
    best = next((c.updates for c in candidates if c.path.name == BEST), -1)
    if newest.is_best and best < newest.updates:
        targets[BEST] = "the best one so far"
    for name, meaning in targets.items():
        copy_whole(newest.path, folder / name)
        done.append(f"copied {newest.path.name} to {folder / name}: it is {meaning}, and the save was cut short")
    if targets.get(LAST):
        newest = Candidate.read(folder / LAST)
    return newest, done


def _free_name(path: Path) -> Path:
    """Return a name such as ``checkpoint_last.pt.damaged``, with a number if that is taken."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}{ASIDE}{number if number > 1 else ''}")
        if not name.exists():
            return name
