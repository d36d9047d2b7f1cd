"""``python -m fairseq_lambda.data.prepare CORPUS``: text to a data folder for fairseq-train.

Everything is built in a folder beside the destination, which is renamed at the end: the
destination is whole or absent.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from .binarise import (
    SplitCounts,
    check_binarised,
    encode_documents,
    read_sentences,
    run_fairseq_preprocess,
    write_documents,
)
from .download import file_sha256, report_progress
from .errors import PrepareError
from .sources import FORMS, SPLITS, VITAL, WIKITEXT_NAMES, Source, find_source
from .vocabulary import PieceEncoder, train_sentencepiece
from .wikitext import detect_layout, read_documents

REPORT = "report.json"
MODEL = "sentencepiece.model"
OUTPUTS = ("dict.txt", MODEL, *(f"{split}.{end}" for split in SPLITS for end in ("bin", "idx")))
# A change to reading, splitting or encoding that alters the result raises this number.
RECIPE = 1
MAX_UNKNOWN_RATE = 0.001


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="preprocess_wikitext.sh",
        description="Prepare a corpus for fairseq-train: dict.txt, sentencepiece.model, the three "
        "splits as .bin and .idx, and report.json.",
        epilog="WIKITEXT_DIR: a folder with wikitext-2 or wikitext-103, used instead of a download.",
    )
    names = "|".join((*WIKITEXT_NAMES, VITAL))
    add = parser.add_argument
    add("corpus", metavar="{" + names + "|PATH}", help="a corpus, or a folder of three splits")
    add("--vocab-size", type=int, default=8000, help="pieces, 5 specials included (%(default)s)")
    add("--dest", type=Path, help="folder for the result (data-bin/NAME)")
    add("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes (%(default)s)")
    add("--form", choices=FORMS, default="auto", help="WikiText's files: raw first, or one form only")
    add("--raw", dest="form", action="store_const", const="raw", help="short for --form raw")
    add("--tokens", dest="form", action="store_const", const="tokens", help="--form tokens")
    add("--keep-moses", action="store_true", help="leave Moses-tokenised text as it is")
    add("--mirror", action="append", default=[], help="download from here only (repeatable)")
    add("--downloads", type=Path, help="where downloads are kept (downloads/ beside --dest)")
    add("--force", action="store_true", help="rebuild, whatever --dest was prepared with")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Prepare a corpus and return the exit code: 0, 1 for what went wrong, 2 for wrong usage."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    usage = _usage_error(arguments)
    if usage:
        print(f"error: {usage}", file=sys.stderr)
        return 2
    # So that an ended job removes its half-built folder like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prepare(arguments)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}; free or change that place and run again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _usage_error(arguments: argparse.Namespace) -> str | None:
    if arguments.vocab_size < 1:
        return f"--vocab-size is {arguments.vocab_size}; it has to be positive, for example 8000"
    if arguments.workers < 1:
        return f"--workers is {arguments.workers}; it has to be 1 or more"
    return None


def prepare(arguments: argparse.Namespace) -> None:
    """Build what the arguments ask for, unless it is there; print the report.

    Raises PrepareError for what a user can put right.
    """
    started = time.monotonic()
    dest = arguments.dest or Path("data-bin") / Path(arguments.corpus).resolve().name
    dest = Path(os.path.abspath(dest))
    downloads = arguments.downloads or dest.parent / "downloads"
    source = find_source(arguments.corpus, arguments.form, downloads, tuple(arguments.mirror))
    settings = {
        "recipe": RECIPE,
        "corpus": Path(arguments.corpus).name,
        "source": source.identity,
        "vocab_size": arguments.vocab_size,
        "keep_moses": arguments.keep_moses,
    }
    if is_up_to_date(dest, settings, arguments.force):
        print(f"{dest} is up to date; --force rebuilds it")
        return
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        building = Path(
            tempfile.mkdtemp(prefix=f".{dest.name}.", suffix=".building", dir=dest.parent)
        )
    except OSError as error:
        raise PrepareError(
            f"cannot write to {dest.parent}: {error.strerror}; choose another --dest"
        ) from None
    try:
        report = build(source, settings, building, arguments.workers)
        _move_into_place(building / "result", dest)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(format_report(report))
    print(f"{dest}: ready in {time.monotonic() - started:.0f} s")


def is_up_to_date(dest: Path, settings: dict, force: bool) -> bool:
    """Return whether dest holds the intact result of the same settings.

    Raises PrepareError for a folder that is not this command's, even with force, and for one of
    other settings without force.
    """
    if not dest.exists():
        return False
    if not dest.is_dir():
        raise PrepareError(f"{dest} is a file; choose another --dest")
    foreign = sorted(set(os.listdir(dest)) - {REPORT, *OUTPUTS})
    if foreign:
        raise PrepareError(
            f"{dest} holds {foreign[0]}, which this command did not write; choose another --dest"
        )
    if force or not os.listdir(dest):
        return False
    try:
        report = json.loads((dest / REPORT).read_text(encoding="utf-8"))
        before, outputs = dict(report["settings"]), dict(report["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        report_progress(f"{dest} has no usable {REPORT}: building it again")
        return False
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        differences = "; ".join(
            f"{name} was {json.dumps(before.get(name))}, now {json.dumps(settings[name])}"
            if name != "source"
            else "the source's files are others"
            for name in changed
        )
        raise PrepareError(
            f"{dest} was prepared with other settings ({differences}): pass --force to rebuild it, "
            "or choose another --dest"
        )
    for name in OUTPUTS:
        path = dest / name
        if not path.is_file() or file_sha256(path) != outputs.get(name):
            report_progress(f"{path} is missing or damaged: building {dest} again")
            return False
    return True


def build(source: Source, settings: dict, folder: Path, workers: int) -> dict:
    """Build the result in folder/result and return its report. Raises PrepareError."""
    result = folder / "result"
    result.mkdir()
    files = source.provide(folder)
    layout = detect_layout(files["train"])
    texts = {split: folder / f"{split}.sentences" for split in SPLITS}
    for split in SPLITS:
        report_progress(f"reading {files[split]}")
        documents = read_documents(files[split], layout, settings["keep_moses"])
        write_documents(documents, texts[split])
        if not texts[split].stat().st_size:
            raise PrepareError(f"{files[split]} holds no sentence: the {split} split is empty")
    for split in ("valid", "test"):
        if file_sha256(texts[split]) == file_sha256(texts["train"]):
            raise PrepareError(f"the {split} split is the train split; give it text of its own")
    report_progress(f"learning a vocabulary of {settings['vocab_size']} pieces")
    model = result / MODEL
    vocabulary_size = train_sentencepiece(_Sentences(texts["train"]), settings["vocab_size"], model)
    model.with_suffix(".vocab").unlink()
    encoder = PieceEncoder(model)
    pieces = {split: folder / f"{split}.pieces" for split in SPLITS}
    piece_counts: Counter[str] = Counter()
    counts = {}
    for split in SPLITS:
        report_progress(f"encoding {split}")
        tally = piece_counts if split == "train" else Counter()
        counts[split] = encode_documents(texts[split], pieces[split], encoder, workers, tally)
    _refuse_nonsense(counts, layout.has_titles)
    encoder.write_dictionary(piece_counts, folder / "dict.txt")
    report_progress("binarising with fairseq-preprocess")
    run_fairseq_preprocess(pieces, folder / "dict.txt", result, workers)
    check_binarised(result, counts)
    report = {
        "settings": settings,
        "licence": source.licence,
        "layout": asdict(layout),
        "inputs": {
            split: {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for split, path in files.items()
        },
        "vocabulary_size": vocabulary_size,
        "splits": {split: split_counts.as_report() for split, split_counts in counts.items()},
        "outputs": {name: file_sha256(result / name) for name in OUTPUTS},
    }
    (result / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


class _Sentences:
    """The sentences of a file, as often as they are asked for."""

    def __init__(self, path: Path):
        self.path = path

    def __iter__(self):
        return filter(None, read_sentences(self.path))


def _refuse_nonsense(counts: dict[str, SplitCounts], has_titles: bool) -> None:
    for split, split_counts in counts.items():
        if not split_counts.sentences:
            raise PrepareError(f"the {split} split holds no sentence")
        rate = split_counts.encoder_unknowns / split_counts.tokens
        if rate > MAX_UNKNOWN_RATE:
            raise PrepareError(
                f"{rate:.2%} of the {split} split is unknown to the vocabulary, more than "
                f"{MAX_UNKNOWN_RATE:.1%}: its characters are rare or absent in the train split; "
                "use a larger --vocab-size or splits of the same kind"
            )
    if counts["train"].documents < 2:
        divider = (
            "each starts at a line ` = Title = ` between blank lines"
            if has_titles
            else "a blank line divides them"
        )
        raise PrepareError(f"the train split is a single document; it needs two or more ({divider})")


def _move_into_place(result: Path, dest: Path) -> None:
    os.chmod(result, 0o777 & ~_umask())
    if dest.exists():
        os.rename(dest, result.parent / "replaced")
    os.rename(result, dest)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def format_report(report: dict) -> str:
    """Return the closing table: one line a split, then the vocabulary, the source and the licence."""
    columns = {
        "documents": "documents",
        "sentences": "sentences",
        "tokens": "tokens",
        "tokens_per_sentence": "tok/sent",
        "longest_sentence": "longest",
        "literal_unknown_rate": "<unk> text",
        "encoder_unknown_rate": "unknown",
    }
    lines = ["split " + "".join(f"{title:>12}" for title in columns.values())]
    for split, values in report["splits"].items():
        cells = (
            f"{values[key]:>12.3%}" if key.endswith("rate") else f"{values[key]:>12,}"
            for key in columns
        )
        lines.append(f"{split:<6}" + "".join(cells))
    layout, settings = report["layout"], report["settings"]
    form = "Moses-tokenised" if layout["is_moses"] else "plain text"
    if layout["is_moses"] and not settings["keep_moses"]:
        form += ", written out as ordinary English"
    lines.append(f"vocabulary: {report['vocabulary_size']} pieces, specials included")
    for split, entry in report["inputs"].items():
        lines.append(f"{split}: {entry['name']}, {entry['bytes']:,} bytes, sha256 {entry['sha256']}")
    lines.append(f"source: {settings['corpus']} ({settings['source']['kind']}), {form}")
    lines.append(f"licence: {report['licence']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
