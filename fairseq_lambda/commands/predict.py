"""``lambda-bert predict``: labels and probabilities of new texts, in the order of the file, in constant memory."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from fairseq_lambda.commands import labelled
from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.files import output
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.lines import STANDARD_INPUT
from fairseq_lambda.finetuning.words import split_words
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.fine_tuned import classification

DESCRIPTION = """\
Writes a fine-tuned model's predictions for new texts, a line per text in the order of the file: the label, its
probability, and the probability of each label, separated by tabs, under a header. For several labels per text: all
with a probability of at least 0.5, separated by commas. For regression: the number. For words: a line per word,
with an empty line after each text. The file is read as the work proceeds, so it may be of any length."""


def main(argv: list[str]) -> None:
    parser = Parser(
        "predict", DESCRIPTION,
        "lambda-bert predict checkpoints/my-bert-cola dev.tsv --text 4 --output labels.tsv\n"
        "  echo 'What is a lambda ?' | lambda-bert predict checkpoints/my-bert-trec -",
    )  # fmt: skip
    add = parser.add_argument
    add("model", help="training folder of lambda-bert finetune, checkpoint or exported folder")
    add(
        "file",
        help="file in a format of lambda-bert finetune, or with one text per line (pairs: a tab between the two); "
        f"{STANDARD_INPUT}: standard input",
    )
    labelled.add_columns(parser, labelled=False)
    add("--output", type=Path, help="file to write (default: standard output)")
    add("--json", action="store_true", help="write an object per text instead of columns")
    add("--cpu", action="store_true", help="run on the CPU (default: on a GPU if there is one)")
    args = parser.parse_args(argv)
    if args.output is not None and args.output.is_file() and _is_same(args.file, args.output):
        parser.error(f"--output {args.output} is the file to read: choose another one")
    if args.file != STANDARD_INPUT and not Path(args.file).exists():
        raise FileNotFoundError(f"{args.file}: there is no such file; {STANDARD_INPUT} is standard input")
    hub = LambdaBertModel.from_pretrained(args.model)
    labels = hub.labels
    if torch.cuda.is_available() and not args.cpu:
        hub = hub.cuda()
    if labels.objective == "tagging" and args.format is None and args.file == STANDARD_INPUT:
        args.format = "text"
    source = labelled.source(args, args.file, labelled=False)
    examples = source if labels.objective != "tagging" else _as_words(source)
    with _output(args.output) as out:
        write = _json_writer(labels, out) if args.json else _columns_writer(labels, out)
        try:
            for example, row in labelled.predictions(hub, examples, source.name):
                write(example, row)
            out.flush()
        except BrokenPipeError:  # what reads the output, such as head, has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
    for note in source.notes():
        print(note, file=sys.stderr)
    if hub.shortened:
        how = "read in parts" if labels.objective == "tagging" else "shortened"
        print(
            f"{source.name}: {hub.shortened:,} texts are longer than {hub.task.max_positions()} tokens and were {how}",
            file=sys.stderr,
        )


def _is_same(file: str, other: Path) -> bool:
    return file != STANDARD_INPUT and os.path.exists(file) and os.path.samefile(file, other)


def _as_words(source) -> Iterator:
    """Yield the examples of a file as words; texts are divided into words."""
    for example in source:
        if example.words is None:
            example.words, example.texts = split_words(" ".join(example.texts)), ()
        yield example


@contextlib.contextmanager
def _output(path: Path | None):
    if path is None:
        yield sys.stdout
        return
    with output(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as file:
        yield file


def _columns_writer(labels: Labels, out):
    def write_row(*values: str) -> None:
        """Quotes are text, as in the tsv that is read, so a tab or a line end cannot be written as it is."""
        out.write("\t".join(re.sub(r"[\t\r\n]", " ", value) for value in values) + "\n")

    if labels.objective == "tagging":
        write_row("word", "label", "probability")

        def write(example, row):
            for word, probabilities in zip(example.words, row, strict=True):
                best = int(probabilities.argmax())
                write_row(word, labels.names[best], f"{probabilities[best]:.6f}")
            out.write("\n")

    elif labels.objective == "regression":
        write_row("score")

        def write(example, row):
            write_row(f"{row[0]:.6f}")

    else:
        write_row("label", "probability", *labels.names)

        def write(example, row):
            found = classification(labels, row)
            label = found.label if isinstance(found.label, str) else ",".join(found.label)
            write_row(label, f"{found.probability:.6f}", *(f"{value:.6f}" for value in row))

    return write


def _json_writer(labels: Labels, out):
    def write(example, row):
        if labels.objective == "tagging":
            best = row.argmax(axis=1) if len(row) else []
            record = {
                "words": example.words,
                "labels": [labels.names[i] for i in best],
                "probabilities": [float(values[i]) for values, i in zip(row, best, strict=True)],
            }
        else:
            found = classification(labels, row)
            record = {"label": found.label}
            if labels.objective != "regression":
                record |= {"probability": found.probability, "probabilities": found.probabilities}
        out.write(json.dumps(record, ensure_ascii=False) + "\n")

    return write
