"""Dependency trees of ud_ewt, and the probing tasks whose labels are read off them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from probing_examples import SPLITS, Group, Task, build, compact

LENGTH_BINS = (8, 12, 16, 20, 25, 28)
TENSES, NUMBERS = ("Past", "Pres"), ("Sing", "Plur")


@dataclass
class Word:
    """A word of a tree: its form, universal tag, features, head (0: none), relation, and whether a space follows."""

    form: str
    tag: str
    features: dict[str, str]
    head: int
    relation: str
    space: bool


def read_trees(path: Path) -> Iterator[list[Word]]:
    """Yield the sentences of a CoNLL-U file. In a multi-word token, only the last word may be followed by a space."""
    words, inside, space_behind = [], 0, True
    with open(path, encoding="utf-8") as file:
        for line in file:
            cells = line.rstrip("\n").split("\t")
            if len(cells) < 10:
                if not line.strip() and words:
                    yield words
                    words, inside = [], 0
                continue
            first, dash, last = cells[0].partition("-")
            space = "SpaceAfter=No" not in cells[9]
            if dash:
                inside, space_behind = int(last), space
            elif first.isdecimal():
                if int(first) <= inside:
                    space = space_behind and int(first) == inside
                features = dict(part.split("=", 1) for part in cells[5].split("|") if "=" in part)
                relation = cells[7]
                words.append(Word(cells[1], cells[3], features, int(cells[6]), relation, space))
    if words:
        yield words


def text_of(words: list[Word]) -> str:
    """Return the sentence as it is written."""
    return "".join(word.form + " " * word.space for word in words).strip()


def depth(words: list[Word]) -> int:
    """Return the number of levels in the tree, 1 for a root alone."""

    def level(index: int) -> int:
        count = 1
        while words[index].head:
            index, count = words[index].head - 1, count + 1
        return count

    return max(level(i) for i in range(len(words)))


def root_of(words: list[Word]) -> int:
    return next(i for i, word in enumerate(words) if word.head == 0)


def tense(words: list[Word]) -> str | None:
    """Return the tense of the main clause, "Past" or "Pres", or None if no finite verb shows it."""
    root = root_of(words)
    helpers = [w for w in words if w.head == root + 1 and w.relation.split(":")[0] in ("aux", "cop")]
    for word in [words[root], *helpers]:
        if word.tag in ("VERB", "AUX") and word.features.get("VerbForm") == "Fin":
            found = word.features.get("Tense")
            return found if found in TENSES else None
    return None


def number_of(words: list[Word], relations: tuple[str, ...]) -> str | None:
    """Return the number, "Sing" or "Plur", of the root's only dependent with this relation, if it is a common noun."""
    root = root_of(words)
    found = [w for w in words if w.head == root + 1 and w.relation in relations]
    if len(found) != 1 or found[0].tag != "NOUN":
        return None
    number = found[0].features.get("Number")
    return number if number in NUMBERS else None


def of_trees(trees: dict[str, list[list[Word]]], most: dict[str, int]) -> tuple[Group, list[Task]]:
    """Return the tasks about whole sentences, which share their texts."""
    rules: dict[str, Callable[[list[Word]], object]] = {
        "length": lambda w: next(b for b in LENGTH_BINS if len(w) <= b) if 5 <= len(w) <= LENGTH_BINS[-1] else None,
        "tense": tense,
        "subject_number": lambda w: number_of(w, ("nsubj", "nsubj:pass")),
        "object_number": lambda w: number_of(w, ("obj",)),
        "depth": lambda w: min(depth(w), 7) if 10 <= len(w) <= 25 and depth(w) > 1 else None,
    }
    texts: list[str] = []
    examples = {name: {split: [] for split in SPLITS} for name in rules}
    for split in SPLITS:
        for words in trees[split]:
            for name, rule in rules.items():
                label = rule(words)
                if label is not None:
                    examples[name][split].append((len(texts), label))
            texts.append(text_of(words))
    group = Group("sentences", texts)
    return compact(group, [build(name, group, found, most) for name, found in examples.items()])


def part_of_speech(trees, most: dict[str, int]) -> tuple[Group, list[Task]]:
    """Return the task per token; its texts are lists of words, with enough sentences for the tokens wanted."""
    texts, examples = [], {split: [] for split in SPLITS}
    for split in SPLITS:
        found = list(trees[split])
        random.Random(f"part_of_speech {split}").shuffle(found)
        for words in found:
            if len(examples[split]) >= most[split]:
                break
            for at, word in enumerate(words):
                examples[split].append(((len(texts), at), word.tag, word.form.lower()))
            texts.append([word.form for word in words])
    group = Group("tokens", texts, per_token=True)
    return group, [build("part_of_speech", group, examples, most)]
