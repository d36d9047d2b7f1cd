"""Fine-tuning in this process, over the tiny model of tests/models, and toy files for it."""

import csv
import io
import random
import sys
from pathlib import Path

import pytest
from fairseq import checkpoint_utils

from fairseq_lambda.checkpointing import lock
from fairseq_lambda.commands import finetune, predict

FAST = ["--cpu", "--batch-size", "8", "--lr", "1e-2", "--dropout", "0", "--pooler-dropout", "0", "--autocast", "none"]


def launch_here(command, metric, folder, quiet):
    """Stands in for finetune.launch: fairseq-train in this process, as a new one would run it."""
    from fairseq_cli import train as fairseq_train

    for function in (checkpoint_utils.save_checkpoint, fairseq_train.should_stop_early):
        if hasattr(function, "best"):  # fairseq keeps its state on the functions
            delattr(function, "best")
    old, sys.argv = sys.argv, command[2:]
    try:
        fairseq_train.cli_main()
    finally:
        sys.argv = old
        lock.release(Path(folder))


def run(monkeypatch, model, folder, *arguments):
    """Fine-tune ``model``; return the folder."""
    monkeypatch.setattr(finetune, "launch", launch_here)
    argv = [str(model), "--save-dir", str(folder), *FAST, *map(str, arguments)]
    finetune.main(argv)
    return folder


def topics(count, seed=0, names=("b", "c", "a")):
    """Return (label, text): the first word tells the label. Alphabet, file and frequency differ in order."""
    rng = random.Random(seed)
    keys = dict(zip(names, ("river", "town", "bridges"), strict=True))
    shares = [names[0]] + [names[1]] * 3 + [names[2]] * 2
    rows = [(name, keys[name]) for name in names] + [(n, keys[n]) for n in rng.choices(shares, k=count - 3)]
    return [(name, f"{key} {' '.join(rng.choices('the of and its over in'.split(), k=4))}") for name, key in rows]


def write_tsv(path, rows, header=("label", "sentence")):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")
    return path


def sentences(count, seed=0):
    """Yield words and their tags; each word has one tag, and "river" stands for two words."""
    rng = random.Random(seed)
    tags = {"the": ["O"], "town": ["B-PLACE"], "river": ["B-PLACE", "I-PLACE"], "in": ["O"]}
    more = {"river": ["river", "north"]}
    for _ in range(count):
        keys = rng.choices(list(tags), k=rng.randrange(1, 9))
        yield [w for k in keys for w in more.get(k, [k])], [t for k in keys for t in tags[k]]


@pytest.fixture(scope="module")
def topic(trained, tmp_path_factory):
    """A folder with the files and ``run``, a classifier of topics that has learned them."""
    folder = tmp_path_factory.mktemp("topic")
    train = write_tsv(folder / "train.tsv", topics(150))
    test = write_tsv(folder / "test.tsv", topics(40, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        run(patch, trained, folder / "run", "--train", train, "--valid", "0.2", "--test", test, "--max-epoch", 6)
    return folder


def predicted(capsys, *arguments):
    capsys.readouterr()
    predict.main([*map(str, arguments), "--cpu"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out), delimiter="\t"))
