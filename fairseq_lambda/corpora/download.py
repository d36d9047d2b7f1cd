"""Fetching archives: mirrors in turn, resumed, and checked before anything is unpacked.

A file has its final name only when its sha256 is the expected one; until then it is ``NAME.part``,
from which the next attempt goes on, at the same mirror or at another.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import SECONDS, report_progress

_CHUNK = 1 << 18
_ATTEMPTS = 3  # at each mirror, as long as each attempt brings some bytes
# One mirror answers 403 to urllib's own name.
_USER_AGENT = "fairseq_lambda (corpus preparation)"
_WIKI_FILE = re.compile(r"wiki\.(train|valid|test)\.(tokens|raw)")


@dataclass(frozen=True)
class Archive:
    """A file to fetch: its name, sha256, size in bytes if known, and addresses."""

    name: str
    sha256: str
    size: int | None
    mirrors: tuple[str, ...]


class _MirrorError(Exception):
    """Why one mirror did not serve."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(archive: Archive, folder: Path, mirrors: tuple[str, ...] = (), timeout: float = 30.0) -> Path:
    """Return the path of the archive in folder, downloaded unless it is there and intact.

    ``mirrors`` replace the archive's own addresses; one that does not end in the archive's name is
    a folder that holds it. ``timeout`` is the longest silence of a server, in seconds.

    Raises PrepareError with what every mirror answered.
    """
    target = folder / archive.name
    if target.is_file() and file_sha256(target) == archive.sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(f"cannot create {folder}: {error.strerror}") from None
    failures = []
    for mirror in mirrors or archive.mirrors:
        url = mirror if mirror.endswith(archive.name) else f"{mirror.rstrip('/')}/{archive.name}"
        try:
            _fetch_from(url, archive, target, timeout)
            return target
        except _MirrorError as error:
            report_progress(f"{url}: {error}")
            failures.append(f"{url} ({error})")
    raise PrepareError(
        f"no mirror served {archive.name}: {'; '.join(failures) or 'none is known'}. Set "
        "WIKITEXT_DIR to a folder that holds wiki.{train,valid,test}.tokens or .raw, or name "
        "another --mirror"
    )


def _fetch_from(url: str, archive: Archive, target: Path, timeout: float) -> None:
    part = target.with_name(target.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        begin = _size(part)
        try:
            _request(url, archive, part, timeout)
        except _MirrorError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            # A name that does not resolve will not resolve the next second either.
            if attempt == _ATTEMPTS or _size(part) <= begin:
                raise _MirrorError(f"{type(error).__name__}: {reason}") from None
            report_progress(f"{url}: cut off at {_size(part):,} bytes, going on from there")
            continue
        found = file_sha256(part)
        if found == archive.sha256:
            os.replace(part, target)
            return
        part.unlink()
        # The wrong bytes may be those of another mirror, from which this one went on.
        if begin == 0 or attempt == _ATTEMPTS:
            raise _MirrorError(f"sha256 is {found}, expected {archive.sha256}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request(url: str, archive: Archive, part: Path, timeout: float) -> None:
    """Append to part what it lacks; an exception leaves in part what has arrived."""
    begin = _size(part)
    if archive.size is not None and begin >= archive.size:
        if begin > archive.size:
            part.unlink()
        else:
            return  # complete, only its hash is to be checked
        begin = 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT})
        if begin:
            request.add_header("Range", f"bytes={begin}-")
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and begin:  # nothing after these bytes: complete, or no such range
            return
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except ValueError as error:
        raise _MirrorError(f"no usable address: {error}") from None
    with response:
        content_range = response.headers.get("Content-Range") or ""
        resumed = response.status == 206 and content_range.startswith(f"bytes {begin}-")
        if begin and not resumed:
            begin = 0  # the server ignored the range and sends the whole file
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length and length.isdigit() else None
        if archive.size is not None and total is not None and total != archive.size:
            raise _MirrorError(f"offers {total:,} bytes, expected {archive.size:,}")
        with part.open("ab" if begin else "wb") as file:
            _copy(response, file, begin, total or archive.size, archive.name)
        if total is not None and _size(part) < total:
            raise ConnectionError(f"connection closed after {_size(part):,} of {total:,} bytes")


def _copy(response: BinaryIO, file: BinaryIO, done: int, total: int | None, name: str) -> None:
    last = time.monotonic()
    of_total = f" of {total:,}" if total else ""
    report_progress(f"downloading {name}{of_total} bytes" + (f" from byte {done:,}" if done else ""))
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        if total is not None and done > total:
            raise _MirrorError(f"sends more than {total:,} bytes")
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            report_progress(f"downloading {name}: {done:,}{of_total} bytes")


def unpack_wiki_files(archive: Path, folder: Path) -> dict[str, Path]:
    """Return {split: path} of the wiki.* files of a zip, written to folder.

    Only the last component of a member's name counts, and it has to be a WikiText file's: nothing
    else is written, and nothing outside folder.

    Raises PrepareError for a damaged archive and for one that lacks a split or has it twice.
    """
    found: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                match = _WIKI_FILE.fullmatch(member.filename.rpartition("/")[2])
                if match is None:
                    continue
                if match[1] in found:
                    raise PrepareError(f"{archive} holds the {match[1]} split twice")
                found[match[1]] = folder / match[0]
                part = folder / (match[0] + ".part")
                with zipped.open(member) as source, part.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
                os.replace(part, found[match[1]])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise PrepareError(f"{archive} is no usable zip file: {error}; delete it and retry") from None
    missing = [split for split in ("train", "valid", "test") if split not in found]
    if missing:
        raise PrepareError(f"{archive} holds no wiki.{missing[0]}.tokens or .raw")
    return found
