"""``python -m fairseq_lambda.corpora.prepare CORPUS``: text to a data folder for fairseq-train.

The result is built in a folder beside the destination, which is renamed at the end: the destination is whole or absent.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

from fairseq_lambda.corpora.binarise import SplitCounts, binarise, read_sentences, write_documents
from fairseq_lambda.corpora.documents import detect_layout, read_documents
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.prepared_folder import MODEL, OUTPUTS, REPORT, format_report, is_up_to_date
from fairseq_lambda.corpora.progress import narrate, report_progress
from fairseq_lambda.corpora.sources import FORMS, SPLITS, VITAL, WIKITEXT_NAMES, Source, find_source
from fairseq_lambda.corpora.vocabulary import PieceEncoder, train_sentencepiece
from fairseq_lambda.files import sha256, whole_folder

# raise this number with every change to reading, splitting or encoding that alters the result
RECIPE = 1
MAX_UNKNOWN_RATE = 0.001
MAX_VOCABULARY = 1_000_000


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Exit with a one-line error, as for any other bad input."""
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
    add("--vocab-size", type=int, default=8000, help="pieces, 5 special symbols included (%(default)s)")
    add("--dest", type=Path, help="folder for the result (data-bin/NAME)")
    add("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="threads for encoding (%(default)s)")
    add("--form", choices=FORMS, default="auto", help="which of WikiText's files; auto prefers raw (%(default)s)")
    add("--raw", dest="form", action="store_const", const="raw", help="short for --form raw")
    add("--tokens", dest="form", action="store_const", const="tokens", help="--form tokens")
    add("--keep-moses", action="store_true", help="leave Moses-tokenised text as it is")
    add("--mirror", action="append", default=[], help="download from this address only; may be repeated")
    add("--downloads", type=Path, help="where downloads are kept (downloads/ beside --dest)")
    add("--force", action="store_true", help="rebuild a --dest that was prepared with other settings")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Prepare a corpus and return the exit code: 0, 1 for an error, 2 for wrong usage, 130 for an interruption."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.vocab_size < 1:
        parser.error(f"--vocab-size is {arguments.vocab_size}; it must be positive, such as 8000")
    if arguments.vocab_size > MAX_VOCABULARY:
        parser.error(f"--vocab-size is {arguments.vocab_size}; the maximum is {MAX_VOCABULARY}")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; it must be at least 1")
    # so that a terminated job removes its unfinished folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prepare(arguments)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}; make room or choose another place, and run again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def prepare(arguments: argparse.Namespace) -> None:
    """Build the result unless it is there, and print the report.

    Raises:
        PrepareError: something that the user can fix.
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
    with contextlib.ExitStack() as stack:
        try:
            dest.parent.mkdir(parents=True, exist_ok=True)
            result = stack.enter_context(whole_folder(dest))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent))
        except OSError as error:
            raise PrepareError(f"cannot write to {dest.parent}: {error.strerror}; choose another --dest") from None
        report = build(source, settings, result, Path(scratch), arguments.workers)
    print(format_report(report))
    print(f"{dest}: ready in {time.monotonic() - started:.0f} s")


def build(source: Source, settings: dict, result: Path, scratch: Path, workers: int) -> dict:
    """Fill the empty folder ``result`` and return the report; ``scratch`` is for temporary files.

    Raises:
        PrepareError: something that the user can fix.
    """
    files = source.provide(scratch)
    layout = detect_layout(files["train"])
    texts = {split: scratch / f"{split}.sentences" for split in SPLITS}
    for split in SPLITS:
        documents = read_documents(files[split], layout, settings["keep_moses"])
        write_documents(narrate(documents, f"reading {files[split].name}"), texts[split])
        if not texts[split].stat().st_size:
            raise PrepareError(f"{files[split]} holds no sentence: the {split} split is empty")
    for split in ("valid", "test"):
        if sha256(texts[split]) == sha256(texts["train"]):
            raise PrepareError(f"the {split} split is the train split; use another text for it")
    report_progress(f"learning a vocabulary of {settings['vocab_size']} pieces")
    read = partial(read_sentences, texts["train"])
    vocabulary_size = train_sentencepiece(read, settings["vocab_size"], result / MODEL)
    encoder = PieceEncoder(result / MODEL)
    ids = encoder.dictionary(Counter())
    counts, pieces = {}, {}
    for split in SPLITS:
        counts[split], pieces[split] = binarise(texts[split], result / split, encoder, ids, workers)
    _refuse_nonsense(counts, layout.has_titles)
    encoder.dictionary(pieces["train"]).save(str(result / "dict.txt"))
    report = {
        "settings": settings,
        "licence": source.licence,
        "layout": asdict(layout),
        "inputs": {
            split: {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
            for split, path in files.items()
        },
        "vocabulary_size": vocabulary_size,
        "splits": {split: split_counts.as_report() for split, split_counts in counts.items()},
        "outputs": {name: sha256(result / name) for name in OUTPUTS},
    }
    (result / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


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
        divider = "a line ` = Title = ` between blank lines starts one" if has_titles else "a blank line divides them"
        raise PrepareError(f"the train split is a single document; it needs at least two ({divider})")


if __name__ == "__main__":
    sys.exit(main())
