"""Labelled files named on a command line, and a model's predictions for them, in constant memory."""

import argparse
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from fairseq_lambda.finetuning.examples import Example, Source
from fairseq_lambda.finetuning.labels import ANY
from fairseq_lambda.finetuning.metrics import scores
from fairseq_lambda.finetuning.tables import FORMATS


def add_columns(parser: argparse.ArgumentParser, labelled: bool = True) -> None:
    """Add the flags that say what a file looks like."""
    add = parser.add_argument
    add(
        "--text", metavar="COLUMN[,COLUMN]",
        help="the text's column, or the two of a pair, by name or by number from 1 (default: sentence, text, tokens, "
        "or sentence1,sentence2 and so on, if the file has them)",
    )  # fmt: skip
    if labelled:
        add(
            "--label", metavar="COLUMN[,COLUMN...]",
            help="the label's column, or several that hold 0 and 1 (default: label, class, UPOS and so on)",
        )  # fmt: skip
        add("--label-separator", metavar="TEXT", help="text between several labels of a text (default: one label)")
    add("--format", choices=FORMATS, help="format of the files (default: by their endings; .txt is tsv if it has tabs)")
    add(
        "--header", choices=("auto", "yes", "no"), default="auto",
        help="whether the first line of tsv and csv names the columns (default: yes if a column is given by name, or "
        "if the line has one of the default names)",
    )  # fmt: skip


def source(args: argparse.Namespace, path: str, labelled: bool = True) -> Source:
    """Return the examples of ``path``, read as the flags say."""
    return Source(
        path,
        text=tuple(args.text.split(",")) if args.text else (),
        label=tuple(args.label.split(",")) if labelled and args.label else (),
        format=args.format,
        header=args.header,
        separator=args.label_separator if labelled else None,
        labelled=labelled,
    )


def predictions(hub, examples: Iterable[Example], name: str) -> Iterator[tuple[Example, np.ndarray]]:
    """Yield (example, probabilities), in the order of the examples.

    Probabilities are (labels,), or (words, labels) for tagging, or the number (1,) of a regression.

    Raises:
        ValueError: a file of words for a model of texts, or the other way round; pairs for single texts.
    """
    tagging = hub.labels.objective == "tagging"

    def checked() -> Iterator[Example]:
        for example in examples:
            fits = hub.labels.texts in (ANY, len(example.texts))
            if (example.words is not None) != tagging or not (tagging or fits):
                reads = "words" if tagging else {1: "one text", 2: "two texts"}.get(hub.labels.texts, "texts")
                raise ValueError(
                    f"{name}, line {example.line}: the model reads {reads} at a time: see --text and --format"
                )
            yield example

    ones, others = itertools.tee(checked())  # tee keeps as many as are read ahead to be sorted
    if tagging:
        outputs = hub.word_outputs(example.words for example in others)
    else:
        outputs = hub.text_outputs(example.texts for example in others)
    # not zip over both: it would take an example from ones after the last output
    for row in outputs:
        yield next(ones), row


def evaluate(hub, examples: Iterable[Example], name: str) -> dict:
    """Return the scores of :func:`fairseq_lambda.finetuning.metrics.scores`, ``texts`` and ``shortened``.

    Raises:
        ValueError: as :func:`predictions`, or a label that the model does not have.
    """
    labels, predicted, target, words = hub.labels, [], [], []
    before = hub.shortened
    for example, row in predictions(hub, examples, name):
        wanted = labels.target(example, name)
        if labels.objective == "tagging":
            predicted += row.argmax(axis=1).tolist()
            target += wanted
            words.append(len(wanted))
        elif labels.objective == "regression":
            predicted.append(float(row[0]))
            target.append(float(example.label))
            words.append(0)
        else:
            predicted.append(row >= 0.5 if labels.objective == "multilabel" else int(row.argmax()))
            target.append(wanted)
            words.append(0)
    if not words:
        raise ValueError(f"{name} has no examples")
    found = scores(labels, np.array(predicted), np.array(target), words)
    return {**found, "texts": len(words), "shortened": hub.shortened - before}
