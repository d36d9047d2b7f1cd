"""The options of ``lambda-bert preprocess``, and the checks that they are compatible."""

import argparse
from pathlib import Path

from fairseq_lambda.corpora.json_lines import FIELD
from fairseq_lambda.corpora.languages import DEFAULT_LANGUAGE
from fairseq_lambda.corpora.layout import AUTO, DIVISIONS
from fairseq_lambda.corpora.local import FORMS
from fairseq_lambda.corpora.sources import VITAL, WIKITEXT_NAMES
from fairseq_lambda.corpora.workers import available_cores

VOCAB_SIZE, MAX_VOCABULARY = 8000, 1_000_000
VALID_FRACTION = 0.01  # of one text without splits


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Exit with a one-line error, as for any other bad input."""
        self.exit(2, f"error: {message} (--help lists the options)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = _Parser(
        prog="lambda-bert preprocess",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prepare a corpus for training: dict.txt, sentencepiece.model, the splits as .bin and .idx, and\n"
        "report.json. A run that finds its result intact does nothing; one that was killed resumes when it is started\n"
        "again. Texts are plain or JSON lines, and may be compressed (.xz, .gz, .bz2, .zst).",
        epilog="WIKITEXT_DIR: a folder with WikiText's files, used instead of a download.\n\n"
        "example:\n"
        "  lambda-bert preprocess wikitext-103 --vocab-size 16000\n"
        "  zstd -dc dump.jsonl.zst | lambda-bert preprocess - --dest data-bin/dump --valid-fraction 0.001\n"
        "  lambda-bert preprocess my-text.txt --vocabulary-from checkpoints/my-run",
    )
    names = "|".join((*WIKITEXT_NAMES, VITAL))
    add = parser.add_argument
    add(
        "corpus",
        metavar="{" + names + "|PATH|-}",
        help="a corpus, a folder of splits, a text or a folder of texts, or -",
    )
    add("--vocab-size", type=int, help=f"number of pieces, including 5 special symbols ({VOCAB_SIZE})")
    add(
        "--character-coverage",
        type=float,
        help="share of the text whose characters become pieces (default: depends on the text)",
    )
    add(
        "--byte-fallback",
        action=argparse.BooleanOptionalAction,
        help="write other characters as bytes, not as <unk> (default: depends on the text)",
    )
    add(
        "--vocabulary-from",
        type=Path,
        metavar="FOLDER|MODEL",
        help="use the vocabulary of a prepared, training or exported folder, a checkpoint or an included model "
        "(default: learn one)",
    )
    add(
        "--valid-fraction",
        type=float,
        help="share of the documents that become the valid split, for text without one; 0: no valid split "
        f"({VALID_FRACTION} for a single text)",
    )
    add("--text-field", default=FIELD, help="the field of JSON lines that holds the text (%(default)s)")
    add("--dest", type=Path, help="folder for the result (data-bin/NAME)")
    workers = min(available_cores(), 8)
    add("--workers", type=int, default=workers, help="processes for reading and encoding (%(default)s)")
    add("--form", choices=FORMS, default="auto", help="which WikiText files to use; auto prefers raw (%(default)s)")
    add("--raw", dest="form", action="store_const", const="raw", help="short for --form raw")
    add("--tokens", dest="form", action="store_const", const="tokens", help="short for --form tokens")
    add("--documents", choices=DIVISIONS, default=AUTO, help="what divides the documents (%(default)s: detected)")
    add("--language", default=DEFAULT_LANGUAGE, help="of plain text, for abbreviations and ordinals (%(default)s)")
    add("--keep-moses", action="store_true", help="leave Moses-tokenised text as it is")
    add("--mirror", action="append", default=[], help="download from this address only; may be repeated")
    add("--downloads", type=Path, help="where downloads are kept (downloads/ beside --dest)")
    add("--force", action="store_true", help="rebuild a --dest that was prepared with other settings")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of a command line; exit with code 2 and a one-line message if they are wrong."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    coverage, fraction, size = arguments.character_coverage, arguments.valid_fraction, arguments.vocab_size
    if size is not None and size < 1:
        parser.error(f"--vocab-size is {size}; it must be positive, such as {VOCAB_SIZE}")
    if size is not None and size > MAX_VOCABULARY:
        parser.error(f"--vocab-size is {size}; the maximum is {MAX_VOCABULARY}")
    if coverage is not None and not 0 < coverage <= 1:
        parser.error(f"--character-coverage is {coverage}; it must be above 0 and at most 1, such as 0.9995")
    if fraction is not None and not 0 <= fraction < 1:
        parser.error(f"--valid-fraction is {fraction}; it must be at least 0 and below 1, such as {VALID_FRACTION}")
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; it must be at least 1")
    if arguments.vocabulary_from:
        given = {"--vocab-size": size, "--character-coverage": coverage, "--byte-fallback": arguments.byte_fallback}
        for flag, value in given.items():
            if value is not None:
                parser.error(f"{flag} is for a new vocabulary, not for --vocabulary-from: leave out one of them")
    if arguments.corpus == "-" and not arguments.dest:
        parser.error("standard input has no name: choose a folder for the result, such as --dest data-bin/my-text")
    return arguments
