"""The results of a preparation so far, in a folder beside its destination, from which the same command resumes."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import report_progress
from fairseq_lambda.files import UNFINISHED, whole, whole_folder
from fairseq_lambda.version import __version__

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LOCK, _SETTINGS = "lock", "settings.json"


class Unfinished:
    """The folder ``.NAME.unfinished``, for one process at a time; a context.

    It is removed at the end and after an error. Once a stage is done, it is kept if the process is killed or
    interrupted. The lock is the operating system's, so it is released however the process ends. A file in the folder
    may also be one of the result, so it is replaced, never written into.

    Args:
        dest: the destination.

    Raises:
        PrepareError: the folder cannot be created, or another process is preparing the same destination.
    """

    def __init__(self, dest: Path):
        self.dest, self.path = dest, dest.with_name(f".{dest.name}.unfinished")

    def __enter__(self) -> "Unfinished":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / _LOCK, "w")
        except OSError as error:
            raise PrepareError(f"cannot write to {self.dest.parent}: {error.strerror}; choose another --dest") from None
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / _LOCK))
            except BlockingIOError:
                is_ours = False
            except FileNotFoundError:  # the other process has just finished
                is_ours = False
            except OSError:  # a file system without locks
                is_ours = True
            if not is_ours:
                self._lock.close()
                raise PrepareError(f"another process is preparing {self.dest}: wait for it, or choose another --dest")
        _remove_leftovers(self.dest)
        return self

    def __exit__(self, kind, *_) -> None:
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        if not (is_interrupted and self.has_stages):
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def remove_leftover(self) -> None:
        """Remove the folder of a process that was killed when its result was complete; that of a live one stays."""
        if self.path.exists():
            with contextlib.suppress(PrepareError), self:
                pass

    @property
    def has_stages(self) -> bool:
        """Whether a stage is done, which another run need not repeat."""
        return any(path.name not in (_LOCK, _SETTINGS) for path in self.path.glob("*.json"))

    def begin(self, settings: dict, keep: tuple[Path, ...] = ()) -> None:
        """Keep the results of an earlier run with the same settings and version; else remove all but ``keep``."""
        file, settings = self.path / _SETTINGS, {"version": __version__} | settings
        try:
            same = json.loads(file.read_text(encoding="utf-8")) == json.loads(json.dumps(settings))
        except (OSError, ValueError):
            same = False
        if same:
            return
        for path in self.path.iterdir():
            if path.name != _LOCK and path not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with whole(file) as new:
            new.write_text(json.dumps(settings), encoding="utf-8")

    def stage(self, name: str, make: Callable[[], dict]) -> dict:
        """Return what ``make`` returns (it must be valid JSON), or what it returned in the run that was interrupted."""
        file = self.path / f"{name}.json"
        with contextlib.suppress(OSError, ValueError):
            done = json.loads(file.read_text(encoding="utf-8"))
            report_progress(f"{name}: done by the interrupted run")
            return done
        result = make()
        with whole(file) as new:
            new.write_text(json.dumps(result), encoding="utf-8")
        return result

    def publish(self, names: tuple[str, ...]) -> None:
        """Make the destination a folder of these files, whole or not at all.

        They also stay here, where a run that is interrupted before the destination is complete finds them again.
        """
        with whole_folder(self.dest) as result:
            for name in names:
                try:
                    os.link(self.path / name, result / name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(self.path / name, result / name)


def _remove_leftovers(dest: Path) -> None:
    """Clean up after processes that were killed between the two final renames; put a moved result back."""
    name = re.compile(rf"\.{re.escape(dest.name)}\.\w{{8}}{re.escape(UNFINISHED)}")
    for path in dest.parent.iterdir():
        if name.fullmatch(path.name) and path.is_dir():
            if (path / "old").is_dir() and not dest.exists():
                os.rename(path / "old", dest)
            shutil.rmtree(path, ignore_errors=True)
