"""The files of a corpus on this machine: a folder of splits, each in one file or several, or a text without splits."""

import re
import sys
from pathlib import Path
from typing import BinaryIO

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import narrate, report_progress
from fairseq_lambda.files import sha256

SPLITS = ("train", "valid", "test")
FORMS = ("auto", "raw", "tokens")
TEXT = "{train,valid,test}.txt or .jsonl"

_PACKED = ("", ".xz", ".gz", ".bz2", ".zst")
_TEXT_NAMES = (".txt", ".jsonl", ".ndjson")
_TEXT_ENDING = re.compile(r"(?i:\.(txt|jsonl|ndjson)(\.(xz|gz|bz2|zst))?)")
_PART = "|".join(SPLITS)
_OF_DIVIDED = re.compile(rf"wiki\.({_PART})\..*|wikitext-\d+(-raw)?|({_PART})([^A-Za-z].*)?")
_NAMED = {"wiki.raw": ["wiki.{}.raw"], "wiki.tokens": ["wiki.{}.tokens"], "text": [f"{{}}{e}" for e in _TEXT_NAMES]}
_FORMS = {"raw": ["wiki.raw"], "tokens": ["wiki.tokens"], "auto": ["wiki.raw", "wiki.tokens", "text"]}


def find_splits(
    candidates: list[Path], form: str, named: Path, splits: tuple[str, ...] = SPLITS
) -> dict[str, list[Path]]:
    """Return the files of each split: those of the first kind, in the first folder, that are complete.

    The user's own texts need no test split, nor does a folder whose valid split is held out of train.

    ``train.txt`` may also be ``train.jsonl``, compressed (``train.txt.xz``), or several files: ``train-0.txt``,
    ``train.part1.jsonl.gz`` and so on, or a folder ``train`` of them. They are read in the order of their names,
    numbers by value. Endings may be in capitals.

    Args:
        candidates: folders to look into.
        form: ``raw`` or ``tokens`` for WikiText's files, or ``auto``.
        named: the folder that the user has named, for messages.
        splits: the splits to look for; without valid if that is held out of train.

    Raises:
        PrepareError: there are no files, or a split is missing.
    """
    partial = None
    for kind in _FORMS[form]:
        for folder in candidates:
            files = {split: _files_of(split, folder, kind) for split in splits}
            if (kind == "text" or splits != SPLITS) and not files.get(SPLITS[2], True):
                del files[SPLITS[2]]
            if all(files.values()):
                return files
            if any(files.values()) and partial is None:
                partial = folder, kind, files
    if partial is not None:
        raise PrepareError(_what_is_missing(*partial))
    names = {"wiki.raw": "wiki.{train,valid,test}.raw", "wiki.tokens": "wiki.{train,valid,test}.tokens", "text": TEXT}
    message = f"{named} has no {' or '.join(names[kind] for kind in _FORMS[form])}"
    if form == "auto" and _texts(named) and (part := _part_of_divided(named)):
        message += f"; {part.name} in it looks like a part of a divided corpus: rename it if the folder is one text"
    raise PrepareError(message)


def _what_is_missing(folder: Path, kind: str, files: dict[str, list[Path]]) -> str:
    missing = next(split for split in files if not files[split])
    split, there = next((split, paths[0].relative_to(folder)) for split, paths in files.items() if paths)
    message = (
        f"{folder / _NAMED[kind][0].format(missing)} is missing, but {there} is taken for the {split} split: add it"
    )
    if missing == SPLITS[1]:
        message += ", or hold out a part of train with --valid-fraction"
    if kind == "text" and there.name.partition(".")[0] != split:
        message += f", or rename {there} if it is no split"
    return message


def _files_of(split: str, folder: Path, kind: str) -> list[Path]:
    listed = _listed(folder)
    # in order, so that of train.TXT and train.txt the second is used
    named = {path.name.lower(): path for path in sorted(listed) if path.name.startswith((split, "wiki."))}
    for name in _NAMED[kind]:
        for ending in _PACKED:
            if path := named.get(name.format(split) + ending):
                return [path]
    if kind != "text":
        return []
    numbered = re.compile(rf"{split}[^A-Za-z].*{_TEXT_ENDING.pattern}")
    several = [path for path in listed if numbered.fullmatch(path.name)]
    return _in_order(several or _texts(folder / split))


def is_one_text(folder: Path) -> bool:
    """Return whether a folder has texts, and no file or folder that is named after a split."""
    return bool(_texts(folder)) and _part_of_divided(folder) is None


def undivided_texts(folder: Path) -> list[Path]:
    """Return the texts of a folder without splits, and print how much else is in it."""
    texts = _texts(folder)
    others = [path for path in set(folder.iterdir()).difference(texts) if not path.name.startswith(".")]
    if others:
        folders = sum(path.is_dir() for path in others)
        report_progress(
            f"{folder}: {len(others) - folders} files and {folders} subfolders are left out; only .txt, .jsonl and "
            ".ndjson files are read"
        )
    return _in_order(texts)


def _part_of_divided(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if _OF_DIVIDED.fullmatch(path.name)), None)


def _texts(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if re.search(_TEXT_ENDING.pattern + "$", path.name)]


def _in_order(several: list[Path]) -> list[Path]:
    """Return files in the order of their names, without those that are also there uncompressed."""
    unpacked = {path.name for path in several}
    twice = [path for path in several if path.suffix.lower() in _PACKED[1:] and path.stem in unpacked]
    for path in twice:
        report_progress(f"{path} is left out, because an uncompressed copy is there")
    return sorted((path for path in several if path not in twice), key=_natural)


def _listed(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _natural(path: Path) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path.name) if part]


def name_of(corpus: str) -> str:
    """Return the name of a corpus's result: ``my.text`` for ``my.text.txt.xz``."""
    name = Path(corpus).resolve().name
    return re.sub(rf"(?<=.){_TEXT_ENDING.pattern}$", "", name)


def describe(paths: list[Path], names: list[str] | None = None) -> dict | list[dict]:
    """Return name, size and SHA-256 of a file, or a list of them for several files.

    Raises:
        PrepareError: one cannot be read, or is empty.
    """
    found = []
    for path, name in zip(paths, names or [path.name for path in paths], strict=True):
        try:
            digest, size = sha256(path), path.stat().st_size
        except OSError as error:
            raise PrepareError(f"cannot read {path}: {error.strerror}") from None
        if size == 0:
            raise PrepareError(f"{name if names else path} is empty")
        found.append({"name": name, "bytes": size, "sha256": digest})
    return found[0] if len(found) == 1 else found


def keep_standard_input(path: Path, stream: BinaryIO | None = None) -> None:
    """Copy standard input to a file, because texts are read more than once."""
    stream = stream or sys.stdin.buffer
    if stream.isatty():
        report_progress("reading the text from the terminal; end it with Ctrl-D")
    with path.open("wb") as file:
        for block in narrate(iter(lambda: stream.read(1 << 20), b""), "reading standard input", len):
            file.write(block)
