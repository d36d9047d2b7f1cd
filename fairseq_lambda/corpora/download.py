"""Downloads of archives: mirrors are tried in turn, interrupted downloads resume, and every archive is verified.

A file gets its final name only when its SHA-256 is the expected one. Until then it is ``NAME.part``, which the next
attempt resumes, from the same mirror or another one.
"""

import http.client
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import narrate, report_progress
from fairseq_lambda.files import rename, sha256

_BYTES_PER_READ = 1 << 18
_ATTEMPTS = 3  # per mirror, as long as each attempt receives some bytes
# one mirror answers 403 to urllib's default
_USER_AGENT = "fairseq_lambda (corpus preparation)"
_WIKI_FILE = re.compile(r"wiki\.(train|valid|test)\.(tokens|raw)")


@dataclass(frozen=True)
class Archive:
    """A file to download: its name, SHA-256, size in bytes (None if unknown) and addresses."""

    name: str
    sha256: str
    size: int | None
    mirrors: tuple[str, ...]


class _MirrorError(Exception):
    """Why a mirror could not provide the file."""


def fetch(archive: Archive, folder: Path, mirrors: tuple[str, ...] = (), timeout: float = 30.0) -> Path:
    """Return the path of the archive in ``folder``, after downloading it unless it is there and intact.

    Args:
        archive: what to download.
        folder: where it is kept; created if missing.
        mirrors: addresses to use instead of the archive's own; one that does not end in the archive's name is taken as
            a folder that contains it.
        timeout: how long a server may be silent, in seconds.

    Raises:
        PrepareError: no mirror provided it; the message gives the answer of each.
    """
    target = folder / archive.name
    if target.is_file() and sha256(target) == archive.sha256:
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
        f"no mirror provided {archive.name}: {'; '.join(failures) or 'none is known'}. Set "
        "WIKITEXT_DIR to a folder with wiki.{train,valid,test}.tokens or .raw, or name "
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
            # without any progress, another attempt would fail, too
            if attempt == _ATTEMPTS or _size(part) <= begin:
                raise _MirrorError(f"{type(error).__name__}: {reason}") from None
            report_progress(f"{url}: interrupted at {_size(part):,} bytes; resuming there")
            continue
        found = sha256(part)
        if found == archive.sha256:
            rename(part, target)
            return
        part.unlink()
        # the wrong bytes may be from another mirror, whose download was resumed here
        if begin == 0 or attempt == _ATTEMPTS:
            raise _MirrorError(f"sha256 is {found}, expected {archive.sha256}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request(url: str, archive: Archive, part: Path, timeout: float) -> None:
    """Append the missing bytes to ``part``; after an exception it keeps what has arrived."""
    begin = _size(part)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT})
        if begin:
            request.add_header("Range", f"bytes={begin}-")
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and begin:  # nothing follows these bytes: the file is complete or too long
            return
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except ValueError as error:
        raise _MirrorError(f"not a usable address: {error}") from None
    with response:
        content_range = response.headers.get("Content-Range") or ""
        resumed = response.status == 206 and content_range.startswith(f"bytes {begin}-")
        if begin and not resumed:
            begin = 0  # the server ignored the range and sends the file from the start
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length and length.isdigit() else None
        if archive.size is not None and total is not None and total != archive.size:
            raise _MirrorError(f"offers {total:,} bytes, expected {archive.size:,}")
        most = total or archive.size
        doing = f"downloading {archive.name}" + (f" of {most:,} bytes" if most else "")
        arriving = iter(lambda: response.read(_BYTES_PER_READ), b"")
        with part.open("ab" if begin else "wb") as file:
            for data in narrate(arriving, doing + (f", from byte {begin:,}" if begin else ""), len, begin, total=most):
                file.write(data)
                if most is not None and file.tell() > most:
                    raise _MirrorError(f"sends more than {most:,} bytes")
        if total is not None and _size(part) < total:
            raise ConnectionError(f"connection closed after {_size(part):,} of {total:,} bytes")


def unpack_wiki_files(archive: Path, folder: Path) -> dict[str, Path]:
    """Write the wiki.* files of a zip to ``folder`` and return {split: path}.

    Only the last component of a member's name counts, and only WikiText's file names are accepted, so nothing else is
    written, and nothing outside ``folder``.

    Raises:
        PrepareError: the archive is damaged, has a split twice, or lacks one.
    """
    found: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member in zipped.infolist():
                match = _WIKI_FILE.fullmatch(member.filename.rpartition("/")[2])
                if match is None:
                    continue
                if match[1] in found:
                    raise PrepareError(f"{archive} has the {match[1]} split twice")
                found[match[1]] = folder / match[0]
                with zipped.open(member) as source, found[match[1]].open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise PrepareError(f"{archive} is not a usable zip file: {error}; delete it and retry") from None
    missing = [split for split in ("train", "valid", "test") if split not in found]
    if missing:
        raise PrepareError(f"{archive} has no wiki.{missing[0]}.tokens or .raw")
    return found
