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
from fairseq_lambda.corpora.documents import AUTO, DIVISIONS, Layout, detect_layout, read_documents
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.languages import DEFAULT_LANGUAGE, language_rules
from fairseq_lambda.corpora.prepared_folder import MODEL, OUTPUTS, REPORT, format_report, is_up_to_date
from fairseq_lambda.corpora.progress import narrate, report_progress
from fairseq_lambda.corpora.sources import FORMS, SPLITS, VITAL, WIKITEXT_NAMES, Source, find_source
from fairseq_lambda.corpora.vocabulary import PieceEncoder, train_sentencepiece
from fairseq_lambda.files import sha256, whole_folder

# raise this number with every change to reading, splitting or encoding that alters the result
RECIPE = 2
MAX_UNKNOWN_RATE = 0.001
MAX_VOCABULARY = 1_000_000
# fewer sentences than this in a paragraph: their ends were not recognised, or each line is a sentence
_FEW_SENTENCES = 1.05


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
    add("--character-coverage", type=float, help="share of the text whose characters are pieces (by the text)")
    add(
        "--byte-fallback",
        action=argparse.BooleanOptionalAction,
        help="write other characters as bytes, not as <unk> (by the text)",
    )
    add("--dest", type=Path, help="folder for the result (data-bin/NAME)")
    add("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="threads for encoding (%(default)s)")
    add("--form", choices=FORMS, default="auto", help="which of WikiText's files; auto prefers raw (%(default)s)")
    add("--raw", dest="form", action="store_const", const="raw", help="short for --form raw")
    add("--tokens", dest="form", action="store_const", const="tokens", help="--form tokens")
    add("--documents", choices=DIVISIONS, default=AUTO, help="what divides them (%(default)s: by the text)")
    add("--language", default=DEFAULT_LANGUAGE, help="of plain text, for abbreviations and ordinals (%(default)s)")
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
    coverage = arguments.character_coverage
    if coverage is not None and not 0 < coverage <= 1:
        parser.error(f"--character-coverage is {coverage}; it must be above 0 and at most 1, such as 0.9995")
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
    language_rules(arguments.language)
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
        "documents": arguments.documents,
        "language": arguments.language,
        "character_coverage": arguments.character_coverage,
        "byte_fallback": arguments.byte_fallback,
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
    layout = detect_layout(*(files[split] for split in SPLITS), documents=settings["documents"])
    divider = "headings divide them" if layout.has_titles else "blank lines divide them"
    report_progress(f"documents: {divider} ({layout.evidence}); --documents overrides this")
    seen: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    texts = {split: scratch / f"{split}.sentences" for split in SPLITS}
    for split in SPLITS:
        documents = read_documents(files[split], layout, settings["keep_moses"], settings["language"], seen[split])
        write_documents(narrate(documents, f"reading {files[split].name}"), texts[split])
        if not texts[split].stat().st_size:
            raise PrepareError(f"{files[split]} holds no sentence: the {split} split is empty")
    for split in ("valid", "test"):
        if sha256(texts[split]) == sha256(texts["train"]):
            raise PrepareError(f"the {split} split is the train split; use another text for it")
    report_progress(f"learning a vocabulary of {settings['vocab_size']} pieces")
    read = partial(read_sentences, texts["train"])
    vocabulary_size, characters = train_sentencepiece(
        read, settings["vocab_size"], result / MODEL, settings["character_coverage"], settings["byte_fallback"]
    )
    encoder = PieceEncoder(result / MODEL)
    ids = encoder.dictionary(Counter())
    counts, pieces = {}, {}
    for split in SPLITS:
        counts[split], pieces[split] = binarise(texts[split], result / split, encoder, ids, workers)
        counts[split].paragraphs = seen[split]["paragraphs"]
    _refuse_nonsense(counts, layout.has_titles)
    encoder.dictionary(pieces["train"]).save(str(result / "dict.txt"))
    report = {
        "settings": settings,
        "licence": source.licence,
        "layout": asdict(layout),
        "warnings": _warnings(counts["train"], seen["train"]["headings"], layout, settings["language"]),
        "inputs": {
            split: {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
            for split, path in files.items()
        },
        "vocabulary_size": vocabulary_size,
        "characters": len(characters.kept),
        "character_coverage": round(characters.coverage, 6),
        "byte_fallback": characters.byte_fallback,
        "splits": {split: split_counts.as_report() for split, split_counts in counts.items()},
        "outputs": {name: sha256(result / name) for name in OUTPUTS},
    }
    (result / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _warnings(train: SplitCounts, headings: int, layout: Layout, language: str) -> list[str]:
    warnings = []
    if train.sentences < _FEW_SENTENCES * train.paragraphs:
        warnings.append(
            f"{train.sentences / train.paragraphs:.2f} sentences per paragraph: if a line of the text is more than one "
            f"sentence, their ends were not recognised (--language is {language}; Thai and Lao mark none)"
        )
    if headings and not layout.has_titles:
        warnings.append(f"{headings} lines such as `= Title =` in the train split are left out as headings")
    return warnings


def _refuse_nonsense(counts: dict[str, SplitCounts], has_titles: bool) -> None:
    for split, split_counts in counts.items():
        if not split_counts.sentences:
            raise PrepareError(f"the {split} split holds no sentence")
        rate = split_counts.encoder_unknowns / split_counts.tokens
        if rate > MAX_UNKNOWN_RATE:
            raise PrepareError(
                f"{rate:.2%} of the {split} split is unknown to the vocabulary, more than "
                f"{MAX_UNKNOWN_RATE:.1%}: its characters are rare or absent in the train split; "
                "pass --byte-fallback, or use a larger --vocab-size or splits of the same kind"
            )
    if counts["train"].documents < 2:
        divider = "a line ` = Title = ` between blank lines starts one" if has_titles else "a blank line divides them"
        raise PrepareError(f"the train split is a single document; it needs at least two ({divider})")


if __name__ == "__main__":
    sys.exit(main())
