"""Minimal pairs of sentences, such as BLiMP's, from JSON lines in a folder, a file or an archive."""

import hashlib
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ENDING = ".jsonl"
# BLiMP's files have 13 terms for the 12 phenomena of its paper (Warstadt et al., 2020, table 2)
PHENOMENA = {"s-selection": "argument_structure"}


class Paradigm(NamedTuple):
    """Pairs (good, bad) that differ in one way, their phenomenon, "" if unnamed, and the SHA-256 of the file."""

    name: str
    phenomenon: str
    pairs: list[tuple[str, str]]
    sha256: str


def read_paradigms(path: Path) -> list[Paradigm]:
    """Return the paradigms of all ``.jsonl`` files in ``path``, sorted by name.

    A line is an object with ``sentence_good`` and ``sentence_bad``. A paradigm's name is ``UID``, else the file's, and
    its phenomenon ``linguistics_term``. Other fields are ignored. Results are written to files of these names.

    Args:
        path: such a file, a folder of them at any depth, or a .zip or .tar archive, also compressed.

    Raises:
        FileNotFoundError: no such path, or no such file in it.
        ValueError: a line that is not of that form, a UID that cannot be a file's name, or two paradigms of one name.
    """
    paradigms: dict[str, Paradigm] = {}
    for name, content in _files(path):
        paradigm = _paradigm(name, content)
        if paradigm.name in paradigms:
            raise ValueError(f"{path} has the paradigm {paradigm.name} twice, the second time in {name}: keep one")
        paradigms[paradigm.name] = paradigm
    if not paradigms:
        raise FileNotFoundError(f"{path} holds no {ENDING} file: give BLiMP's data folder, or an archive of it")
    return [paradigms[name] for name in sorted(paradigms)]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; give BLiMP's data folder, or an archive of it")
    if path.is_dir():
        for file in sorted(path.rglob(f"*{ENDING}")):
            yield str(file.relative_to(path)), file.read_bytes()
    elif path.suffix == ENDING:
        yield path.name, path.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist() if _wanted(name))
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and _wanted(member.name):
                    yield member.name, archive.extractfile(member).read()
    else:
        raise ValueError(f"{path} is neither a {ENDING} file nor a .zip or .tar archive: give BLiMP's data folder")


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix == ENDING and not path.name.startswith("._")  # macOS adds these to archives


def _is_file_name(name: str) -> bool:
    """Return whether a result can be written to ``NAME.json``, a file of its folder."""
    return re.fullmatch(r"[^\0-\x1f/\\\ud800-\udfff]+", name) is not None and len(name.encode()) <= 200


def _paradigm(file: str, content: bytes) -> Paradigm:
    name, phenomenon, pairs = PurePosixPath(file).stem, "", []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            pair = (entry["sentence_good"], entry["sentence_bad"])
            if not all(isinstance(sentence, str) and sentence.strip() for sentence in pair):
                raise TypeError("a sentence is empty or not text")
        except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{file}, line {number}: expected an object with sentence_good and sentence_bad ({reason})"
            ) from error
        name, phenomenon = str(entry.get("UID", name)), str(entry.get("linguistics_term", phenomenon))
        if "UID" in entry and not _is_file_name(name):
            raise ValueError(f"{file}, line {number}: the UID {name!r} cannot be the name of a file: rename it")
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{file} is empty: expected lines with sentence_good and sentence_bad")
    return Paradigm(name, PHENOMENA.get(phenomenon, phenomenon), pairs, hashlib.sha256(content).hexdigest())
