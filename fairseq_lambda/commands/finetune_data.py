"""The data folder of a fine-tuning run, and the examples behind its splits."""

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path

from fairseq_lambda.commands import labelled
from fairseq_lambda.files import sha256, whole_folder
from fairseq_lambda.finetuning.examples import Example, Source
from fairseq_lambda.finetuning.labels import FILE as LABELS
from fairseq_lambda.finetuning.labels import Labels, divide, learn_labels, part
from fairseq_lambda.finetuning.prepare import write_split


def fraction_of(args: argparse.Namespace) -> float | None:
    """Return --valid as a fraction, None if it is a file."""
    try:
        fraction = float(args.valid)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise ValueError(f"--valid {args.valid}: a file, or a fraction of --train above 0 and below 1, such as 0.1")
    return fraction


def prepare(hub, args: argparse.Namespace, folder: Path) -> tuple[Labels, dict[str, int]]:
    """Return the labels and the sizes of the splits; make the data folder, unless it is there.

    Raises:
        ValueError: the files do not match the flags, or the folder was made from other files.
        FileExistsError: the folder is of something else.
    """
    names = args.labels.split(",") if args.labels else None
    if names and (twice := [name for name in names if names.count(name) > 1 or not name]):
        raise ValueError(f"--labels {args.labels}: {twice[0]!r} is empty or given twice")
    dictionary = hub.task.source_dictionary
    made_of = {
        "train": sha256(args.train),
        "valid": args.valid if fraction_of(args) is not None else sha256(args.valid),
        "seed": args.seed if fraction_of(args) is not None else None,
        "columns": [args.text, args.label, args.label_separator, args.format, args.header],
        "labels": names,
        "objective": args.objective,
        "vocabulary": hash_of(dictionary.symbols),
    }
    if folder.is_dir():
        foreign = f"{folder} was not made by lambda-bert finetune: choose another --save-dir"
        if not (folder / LABELS).is_file():
            raise FileExistsError(foreign)
        labels, before = Labels.load(folder)
        sizes = before.pop("sizes", None)
        if sizes is None:
            raise FileExistsError(foreign)
        if before != made_of:
            changed = ", ".join(key for key in made_of if made_of[key] != before.get(key))
            raise ValueError(
                f"{folder.parent} holds a fine-tuning run on other data ({changed}): choose another --save-dir"
            )
        print(f"data: {folder}, as prepared before", flush=True)
        return labels, sizes
    train_source = labelled.source(args, args.train)
    labels = learn_labels(train_source, args.train, args.objective, names)
    for note in train_source.notes():
        print(note, flush=True)
    held_out = None
    splits = {"train": train_source, "valid": train_source}
    if fraction_of(args) is not None:
        if labels.examples < 2:
            raise ValueError(f"{args.train} has one example, so nothing can be split off: give a file as --valid")
        held_out = divide(labels.examples, fraction_of(args), args.seed)
    else:
        splits["valid"] = labelled.source(args, args.valid)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sizes = {}
    with whole_folder(folder) as new:
        for split, source in splits.items():
            examples = part(source, held_out, split == "valid")
            sizes[split] = write_split(
                new,
                split,
                examples,
                labels,
                hub.word_ids if labels.objective == "tagging" else hub.piece_ids,
                source.name,
                dictionary,
            )
            if sizes[split] == 0:
                raise ValueError(f"{source.name} is empty")
        dictionary.save(str(new / "dict.txt"))
        (new / "sentencepiece.model").write_bytes(hub.bpe.processor.serialized_model_proto())
        labels.save(new, {**made_of, "sizes": sizes})
    if held_out is None:
        for note in splits["valid"].notes():
            print(note, flush=True)
    shown = ", ".join(labels.names[:20]) + (", ..." if len(labels.names) > 20 else "")
    what = f"{len(labels.names)} labels ({shown})" if labels.names else "regression"
    print(f"data: {sizes['train']:,} texts to train on, {sizes['valid']:,} to select by; {what}", flush=True)
    return labels, sizes


def hash_of(symbols) -> str:
    """Return a short hash of a list of symbols."""
    return hashlib.sha256("\n".join(symbols).encode("utf-8", "replace")).hexdigest()[:16]


def examples_of(args: argparse.Namespace, split: str, sizes: dict[str, int]) -> tuple[Source, Iterator[Example]]:
    """Return the file behind the split ``valid`` or ``test``, and the examples of the split."""
    fraction = fraction_of(args) if split == "valid" else None
    if fraction is None:
        source = labelled.source(args, args.valid if split == "valid" else args.test)
        return source, iter(source)
    source = labelled.source(args, args.train)
    return source, part(source, divide(sizes["train"] + sizes["valid"], fraction, args.seed), True)


def check_test(args: argparse.Namespace, labels: Labels) -> None:
    """Read the first example of the test file, so that a wrong column is an error before training, not after it.

    Raises:
        ValueError: it has none, or one that does not fit the training data.
    """
    source = labelled.source(args, args.test)
    first = next(iter(source), None)
    if first is None:
        raise ValueError(f"{source.name} is empty")
    labels.target(first, source.name)
