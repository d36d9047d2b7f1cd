"""Labelled examples of texts: splits that share no text, balanced classes, a limited number, the same each time."""

import random
from collections import Counter
from dataclasses import dataclass, field

SPLITS = ("train", "dev", "test")
LARGEST_SHARE = 0.6  # of a class in train; above it, the class is cut to the size of the next
FEWEST = 1000  # training examples that must stay for that


@dataclass
class Group:
    """Texts whose features are computed once: a text, a pair, or the words of a sentence (``per_token``)."""

    name: str
    texts: list
    per_token: bool = False


@dataclass
class Task:
    """Labels for rows of a group; a row is a text or, in a group per token, a (text, word).

    Attributes:
        name, group: names of the task, and of the group of its texts.
        rows, labels: of each split.
        classes: names of the labels.
        types: for a task per token, by split: the word of each row, for the control task.
    """

    name: str
    group: str
    rows: dict[str, list]
    labels: dict[str, list[int]]
    classes: list[str]
    types: dict[str, list[str]] = field(default_factory=dict)


def build(name: str, group: Group, examples: dict[str, list[tuple]], most: dict[str, int]) -> Task:
    """Return the task with (row, label) or (row, label, type) examples, at most ``most`` per split, drawn uniformly.

    They are drawn from those of ``examples`` that are :func:`apart`, after :func:`balanced`.
    """
    chosen = {}
    for split, found in balanced(name, apart(group.texts, examples)).items():
        draw = random.Random(f"{name} {split}")
        chosen[split] = [found[i] for i in sorted(draw.sample(range(len(found)), min(most[split], len(found))))]
    classes = sorted({example[1] for example in chosen["train"]}, key=str)
    index = {label: i for i, label in enumerate(classes)}
    kept = {split: [example for example in found if example[1] in index] for split, found in chosen.items()}
    return Task(
        name,
        group.name,
        {split: [example[0] for example in found] for split, found in kept.items()},
        {split: [index[example[1]] for example in found] for split, found in kept.items()},
        [str(label) for label in classes],
        {s: [example[2] for example in found] for s, found in kept.items() if found and len(found[0]) > 2},
    )


def words_of(text: str | tuple[str, str] | list[str]) -> tuple[str, ...]:
    """Return the words in alphabetical order: the same for a sentence or pair in which the order was swapped."""
    return tuple(sorted((text if isinstance(text, str) else " ".join(text)).split()))


def apart(texts: list, examples: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """Return the examples without those of train that have the words of one in dev or test, and of dev, in test."""
    found, taken = {}, set()
    for split in reversed(SPLITS):
        words = [words_of(texts[row[0] if isinstance(row, tuple) else row]) for row, *_ in examples[split]]
        found[split] = [example for example, key in zip(examples[split], words, strict=True) if key not in taken]
        taken |= {*words}
    return {split: found[split] for split in SPLITS}


def balanced(name: str, examples: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """Return the examples with the largest class cut, in all splits, if it is too large and enough examples stay."""
    counts = Counter(example[1] for example in examples["train"]).most_common(2)
    total = len(examples["train"])
    if len(counts) < 2 or counts[0][1] <= LARGEST_SHARE * total or total - counts[0][1] + counts[1][1] < FEWEST:
        return examples
    found = {}
    for split, rows in examples.items():
        large = [i for i, example in enumerate(rows) if example[1] == counts[0][0]]
        others = Counter(example[1] for example in rows if example[1] != counts[0][0])
        keep = min(len(large), max(others.values(), default=0))
        cut = {*large} - {*random.Random(f"{name} {split} balanced").sample(large, keep)}
        found[split] = [example for i, example in enumerate(rows) if i not in cut]
    return found


def compact(group: Group, tasks: list[Task]) -> tuple[Group, list[Task]]:
    """Return the group with only the texts that a task uses."""
    used = sorted({row for task in tasks for rows in task.rows.values() for row in rows})
    new = {row: i for i, row in enumerate(used)}
    for task in tasks:
        task.rows = {split: [new[row] for row in rows] for split, rows in task.rows.items()}
    return Group(group.name, [group.texts[row] for row in used]), tasks
