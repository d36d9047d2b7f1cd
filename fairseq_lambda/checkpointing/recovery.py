"""What to resume from after a kill: the newest whole checkpoint of a run's folder."""

import contextlib
import filecmp
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError, DamagedCheckpoint, check_whole, read_header
from fairseq_lambda.checkpointing.writing import copy_whole
from fairseq_lambda.files import UNFINISHED, rename

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"
NAMES = re.compile(r"checkpoint(_last|_best|_\d+_\d+|\d+|\.best_.+)\.pt")
ASIDE, SUPERSEDED = ".damaged", ".superseded"


@dataclass(frozen=True)
class Candidate:
    """A file that has a readable header."""

    path: Path
    history: tuple[int, ...]  # updates at the end of each run that led to it: (12, 4) after 12, then a reset
    written: int  # the date of the file, in ns
    is_best: bool  # the best one of the run at the time it was written

    @classmethod
    def read(cls, path: Path) -> "Candidate":
        state = read_header(path)
        extra = state["extra_state"]
        best, own = extra.get("best"), extra.get("val_loss")
        history = tuple(entry["num_updates"] for entry in state["optimizer_history"])
        return cls(path, history, path.stat().st_mtime_ns, own is not None and own == best)

    @property
    def updates(self) -> int:
        return self.history[-1]


def survey(folder: Path) -> tuple[Candidate | None, list[Candidate], dict[Path, str]]:
    """Return the newest whole checkpoint of a folder, all with a readable header, and what is wrong with the others.

    The newest is the one with the most updates, because copying changes a file's date; among equals, it is
    ``checkpoint_last.pt``. After --reset-optimizer updates count from 0 again, so those of all runs that led to a file
    are compared. But a file with an older date than ``checkpoint_last.pt`` never takes its place: the user has gone
    back from it. Files are read in full only until a whole one is found.

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
    candidates.sort(key=lambda c: (c.written >= last, c.history, c.path.name == LAST), reverse=True)
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
    another name, never overwritten, as are intact ones with more updates than the newest: the user has gone back from
    them. Unfinished writes are removed.

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
        aside = _free_name(path, ASIDE)
        rename(path, aside)
        done.append(f"skipped {reason}; renamed to {aside.name}")
    if newest is None:
        return None, done
    done += _set_aside([c.path for c in candidates if c.updates > newest.updates], newest.updates)
    candidates = [c for c in candidates if c.updates <= newest.updates]

    targets = {}
    if newest.path.name != LAST:
        targets[LAST] = "the newest whole checkpoint, since a save was cut short"
    best = next((c.updates for c in candidates if c.path.name == BEST), -1)
    if newest.is_best and best < newest.updates:
        targets[BEST] = "the best one so far"
    for name, meaning in targets.items():
        copy_whole(newest.path, folder / name)
        done.append(f"copied {newest.path.name} to {folder / name}: it is {meaning}")
    if targets.get(LAST):
        newest = Candidate.read(folder / LAST)
    return newest, done


def go_back(folder: Path, path: Path, updates: int, keeps_last: bool = True) -> list[str]:
    """Prepare ``folder`` for a run that goes on from ``path`` at ``updates``; return what was done.

    ``path`` becomes ``checkpoint_last.pt``. What was saved later is set aside, since it has the higher numbers: fairseq
    would keep it and remove what the run saves, and a kill or damage would bring it back. If a kill comes between the
    two, :func:`recover` does the rest. Nothing is overwritten.

    Args:
        path: in the folder or elsewhere.
        updates: 0 with --reset-optimizer.
        keeps_last: the run has a ``checkpoint_last.pt``.

    Raises:
        OSError: a file cannot be written or renamed.
    """
    last, best, done = folder / LAST, folder / BEST, []
    if keeps_last and not (last.is_file() and filecmp.cmp(path, last, shallow=False)):
        if last.is_file():
            aside = _free_name(last, SUPERSEDED)
            copy_whole(last, aside)  # not renamed: a kill here must not leave the folder without its last one
            done.append(f"{last} is set aside as {aside.name}: the run goes on from {path}")
        copy_whole(path, last)
    later = []
    for file in sorted(folder.iterdir()):
        if NAMES.fullmatch(file.name) and file.is_file() and file != last and not file.samefile(path):
            with contextlib.suppress(CheckpointError):  # damaged or foreign: no run resumes from it
                later += [file] if Candidate.read(file).updates > updates else []
    done += _set_aside(later, updates)
    if best in later and updates and Candidate.read(path).is_best:
        copy_whole(path, best)
    return done


def _set_aside(files: list[Path], updates: int) -> list[str]:
    """Rename files to ``NAME.superseded``; return what was done."""
    for file in files:
        rename(file, _free_name(file, SUPERSEDED))
    names = ", ".join(str(file) for file in files)
    return [f"set aside as NAME{SUPERSEDED}, since the run goes on from {updates} updates: {names}"] if files else []


def _free_name(path: Path, suffix: str) -> Path:
    """Return a name such as ``checkpoint_last.pt.damaged``, with a number if that is taken."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}{suffix}{number if number > 1 else ''}")
        if not name.exists():
            return name
