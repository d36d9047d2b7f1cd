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
from .download import file_sha256
from .errors import PrepareError
from .prepared_folder import (
    MODEL,
    OUTPUTS,
    REPORT,
    format_report,
    is_up_to_date,
    move_into_place,
)
from .progress import narrate, report_progress
from .sources import FORMS, SPLITS, VITAL, WIKITEXT_NAMES, Source, find_source
from .vocabulary import PieceEncoder, train_sentencepiece
from .wikitext import detect_layout, read_documents

# A change to reading, splitting or encoding that alters the result raises this number.
RECIPE = 1
MAX_UNKNOWN_RATE = 0.001
MAX_VOCABULARY = 1_000_000


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """End with one line, as for every other bad input."""
        self.exit(2, f"error: {message} (--help lists the options)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = _Parser(
        prog="lambda-bert preprocess",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prepare a corpus for training: dict.txt, sentencepiece.model, the three splits as .bin and .idx,\n"
        "and report.json. A run that finds its result intact does nothing.",
        epilog="WIKITEXT_DIR: a folder with WikiText's files, used in place of a download.\n\n"
        "example:\n  lambda-bert preprocess wikitext-103 --vocab-size 16000",
    )
    names = "|".join((*WIKITEXT_NAMES, VITAL))
    add = parser.add_argument
    add("corpus", metavar="{" + names + "|PATH}", help="a corpus, or a folder of three splits")
    add("--vocab-size", type=int, default=8000, help="pieces, 5 specials included (%(default)s)")
    add("--dest", type=Path, help="folder for the result (data-bin/NAME)")
    add("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes (%(default)s)")
    add(
        "--form",
        choices=FORMS,
        default="auto",
        help="WikiText's files: raw first, or one form only",
    )
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
    if arguments.vocab_size < 1:
        parser.error(f"--vocab-size is {arguments.vocab_size}; it has to be positive, such as 8000")
    if arguments.vocab_size > MAX_VOCABULARY:
        parser.error(f"--vocab-size is {arguments.vocab_size}; the most is {MAX_VOCABULARY}")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; it has to be 1 or more")
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
        building = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", suffix=".building", dir=dest.parent))
    except OSError as error:
        raise PrepareError(f"cannot write to {dest.parent}: {error.strerror}; choose another --dest") from None
    try:
        report = build(source, settings, building, arguments.workers)
        move_into_place(building / "result", dest)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(format_report(report))
    print(f"{dest}: ready in {time.monotonic() - started:.0f} s")


def build(source: Source, settings: dict, folder: Path, workers: int) -> dict:
    """Build the result in folder/result and return its report. Raises PrepareError."""
    result = folder / "result"
    result.mkdir()
    files = source.provide(folder)
    layout = detect_layout(files["train"])
    texts = {split: folder / f"{split}.sentences" for split in SPLITS}
    for split in SPLITS:
        documents = read_documents(files[split], layout, settings["keep_moses"])
        write_documents(narrate(documents, f"reading {files[split].name}"), texts[split])
        if not texts[split].stat().st_size:
            raise PrepareError(f"{files[split]} holds no sentence: the {split} split is empty")
    for split in ("valid", "test"):
        if file_sha256(texts[split]) == file_sha256(texts["train"]):
            raise PrepareError(f"the {split} split is the train split; give it text of its own")
    report_progress(f"learning a vocabulary of {settings['vocab_size']} pieces")
    model = result / MODEL
    vocabulary_size = train_sentencepiece(_Sentences(texts["train"]), settings["vocab_size"], model)
    encoder = PieceEncoder(model)
    pieces = {split: folder / f"{split}.pieces" for split in SPLITS}
    piece_counts: Counter[str] = Counter()
    counts = {}
    for split in SPLITS:
        tally = piece_counts if split == "train" else Counter()
        counts[split] = encode_documents(texts[split], pieces[split], encoder, workers, tally)
    _refuse_nonsense(counts, layout.has_titles)
    encoder.write_dictionary(piece_counts, folder / "dict.txt")
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
            "each starts at a line ` = Title = ` between blank lines" if has_titles else "a blank line divides them"
        )
        raise PrepareError(f"the train split is a single document; it needs two or more ({divider})")


if __name__ == "__main__":
    sys.exit(main())
