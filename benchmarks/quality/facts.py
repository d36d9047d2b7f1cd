"""Tests models for common knowledge: how often the right piece is the most likely, or one of five, in 100 sentences.

``python benchmarks/quality/facts.py checkpoints/one checkpoints/two --data data-bin/enwiki`` prints a table of the
models, and of the unigram distribution of the data: its most frequent pieces, whatever the sentence. Every model has a
line with all its predictions in benchmarks/results/quality/facts.jsonl, which replaces an earlier line of that name.
The sentences, each with one mask, are in facts.yaml.
"""

import argparse
import mmap
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import numpy as np
import yaml
from comparison import RESULTS, Results
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.files import sha256
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.symbols import MASK, WORD_START, difference

FACTS = Path(__file__).with_suffix(".yaml")
TOP = 5


class Fact(NamedTuple):
    category: str
    text: str  # with one mask
    answer: str


def read_facts(path: Path) -> list[Fact]:
    """Return the facts in a YAML file, which maps each category to a list of [text, answer].

    Raises:
        ValueError: a text without exactly one mask.
    """
    categories = yaml.safe_load(path.read_text(encoding="utf-8"))
    facts = [Fact(category, text, answer) for category, entries in categories.items() for text, answer in entries]
    for fact in facts:
        if fact.text.count(MASK) != 1:
            raise ValueError(f"{path}: {fact.text!r} needs one {MASK}")
    return facts


def by_model(hub: LambdaBertHubInterface, facts: list[Fact]) -> list[list[str]]:
    """Return for each fact the most likely pieces, best first; a piece within a word is written ##piece."""
    found = hub.fill_mask([fact.text for fact in facts], topk=TOP)
    return [
        [p.token if p.text == fact.text.replace(MASK, p.token) else f"##{p.token}" for p in predictions]
        for fact, predictions in zip(facts, found, strict=True)
    ]


def by_frequency(dictionary: Dictionary, facts: list[Fact]) -> list[list[str]]:
    """Return for each fact the same list: the pieces that are most frequent in the data."""
    symbols = range(dictionary.nspecial, len(dictionary))
    often = sorted(symbols, key=lambda index: -dictionary.count[index])[:TOP]
    pieces = [dictionary[index] for index in often]
    shown = [p.removeprefix(WORD_START) if p.startswith(WORD_START) else f"##{p}" for p in pieces]
    return [shown] * len(facts)


def result(facts: list[Fact], predictions: list[list[str]]) -> dict:
    """Return ``accuracy`` in percent, by category and ``all``, at 1 and at 5, and the ``predictions``."""
    accuracy = {}
    for category in (*dict.fromkeys(fact.category for fact in facts), "all"):
        rows = [(f, p) for f, p in zip(facts, predictions, strict=True) if category in (f.category, "all")]
        accuracy[category] = {
            f"at {k}": round(100 * sum(f.answer in p[:k] for f, p in rows) / len(rows), 1) for k in (1, TOP)
        }
    answers = [[fact.text, fact.answer, found] for fact, found in zip(facts, predictions, strict=True)]
    return {"accuracy": accuracy, "predictions": answers}


def in_several_pieces(hub: LambdaBertHubInterface, facts: list[Fact]) -> list[str]:
    """Return the answers that are not a single piece at the start of a word, so that the model cannot give them."""
    symbols = hub.task.source_dictionary
    return sorted({fact.answer for fact in facts if WORD_START + fact.answer not in symbols})


def seen(data: Path, hub: LambdaBertHubInterface, facts: list[Fact]) -> list[str]:
    """Return the sentences that the training text contains word for word, except for the final full stop."""
    size = np.dtype(MMapIndexedDataset.Index(str(data / "train.idx")).dtype)
    found = []
    with (data / "train.bin").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for fact in facts:
            sentence = fact.text.replace(MASK, fact.answer)
            wanted = hub.encode(sentence)[1:-2].numpy().astype(size).tobytes()
            place = text.find(wanted)
            while place > 0 and place % size.itemsize:  # not at the start of a piece
                place = text.find(wanted, place + 1)
            if place >= 0:
                found.append(sentence)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="folders or names of models with the same vocabulary")
    parser.add_argument("--data", type=Path, required=True, help="the data folder that they were trained on")
    parser.add_argument("--facts", type=Path, default=FACTS, help="the sentences (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    options = parser.parse_args(argv)
    lines = {}
    try:
        facts = read_facts(options.facts)
        names = [folder.name for folder in options.models]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"several models are called {twice[0]}, but a line has only the name: rename one")
        dictionary = Dictionary.load(str(options.data / "dict.txt"))
        lines[f"unigram distribution of {options.data.name}"] = result(facts, by_frequency(dictionary, facts))
        for folder in options.models:
            weights = find_checkpoint(folder)
            hub = LambdaBertModel.from_pretrained(weights)
            lines[folder.name] = {"weights": sha256(weights), **result(facts, by_model(hub, facts))}
            measuring.say(f"{folder.name}: {lines[folder.name]['accuracy']['all']}")
            lines[folder.name]["in several pieces"] = in_several_pieces(hub, facts)
            if difference_ := difference(hub.task.source_dictionary.symbols[:-1], dictionary.symbols):
                raise ValueError(f"{folder} was trained with another vocabulary than --data's: {difference_}")
        copied = seen(options.data, hub, facts)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

    path = options.out / "facts.jsonl"
    old = [line for line in Results(path).lines if line["model"] not in lines]
    setting = measuring.setting("cpu", seed=0)
    new = [{"model": name, "data": options.data.name, **line, "setting": setting} for name, line in lines.items()]
    measuring.write_lines(path, old + new)
    print(table([line["model"] for line in new], [line["accuracy"] for line in new]))
    print(f"\nword for word in {options.data.name}: {'; '.join(copied) or 'none'}")
    for name, line in lines.items():
        if line.get("in several pieces"):
            print(f"answers that {name} has in several pieces: {', '.join(line['in several pieces'])}")
    print(f"written to {path}")


def table(models: list[str], accuracies: list[dict]) -> str:
    """Return a Markdown table of accuracies in percent, at 1 / at 5."""
    rows = [["model, at 1 / at 5, %", *accuracies[0]]]
    for model, accuracy in zip(models, accuracies, strict=True):
        rows.append([model, *(" / ".join(f"{value:.0f}" for value in cell.values()) for cell in accuracy.values())])
    return measuring.markdown(rows)


if __name__ == "__main__":
    main()
