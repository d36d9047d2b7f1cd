"""The probing tasks: texts and labels, made by the rules below from ud_ewt, binary sentence order and 20 newsgroups.

They follow SentEval (Conneau et al., 2018) and DiscoEval (Chen et al., 2019), on available texts:

| task | what is predicted | rule |
| --- | --- | --- |
| length | words in a sentence, 6 bins | ud_ewt, 5 to 28 words: 5-8, 9-12, 13-16, 17-20, 21-25, 26-28 |
| word_content | which of 1,000 words is there | ud_ewt and single sentences of bso, 5 to 40 words; the 1,000 words |
| | | after the 1,000 most frequent in the training sentences; exactly one of them in the sentence |
| bigram_shift | two neighbours swapped or not | ud_ewt, 5 to 28 words, half of them swapped, see :func:`shifted` |
| tense | past or present | ud_ewt: that of the root if finite, else of its first finite auxiliary or copula |
| subject_number | singular or plural | ud_ewt: the root's only nominal subject, a common noun |
| object_number | singular or plural | ud_ewt: the root's only object, a common noun |
| depth | levels of the dependency tree, 2 to 7 | ud_ewt, 10 to 25 words; more levels count as 7, fewer are left out |
| part_of_speech | universal tag of a word | ud_ewt, per token |
| order | two sentences in order or swapped | bso, half of them swapped |
| topic | one of 20 newsgroups | 20ng, the first 100 words |

Splits are those of the data; 20ng has no dev split, so it is drawn from train. Draws do not depend on the probe's seed.
"""

import lzma
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_lambda.corpora.detokenise import detokenise

SPLITS = ("train", "dev", "test")
LENGTH_BINS = (8, 12, 16, 20, 25, 28)
WORDS, SKIPPED_WORDS = 1000, 1000  # of word_content: the number of words, and of more frequent ones that are skipped
WORD_EXAMPLES = 2  # word_content has this many times the training examples of other tasks, since each word has few
TOPIC_WORDS = 100
TENSES, NUMBERS = ("Past", "Pres"), ("Sing", "Plur")


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


def swappable(words: list[Word]) -> list[int]:
    """Return where a bigram can be swapped: both words alphabetic, different, between spaces, within the sentence.

    Pieces do not cross spaces, so both orders have the same pieces, and a bag of pieces cannot tell them apart.
    """
    return [
        i
        for i in range(1, len(words) - 2)
        if words[i - 1].space and words[i].space and words[i + 1].space
        and words[i].form.isalpha() and words[i + 1].form.isalpha()
        and words[i].form.lower() != words[i + 1].form.lower()
    ]  # fmt: skip


def shifted(words: list[Word], draw: random.Random) -> list[Word]:
    """Return the sentence with one of its :func:`swappable` bigrams swapped."""
    at = draw.choice(swappable(words))
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def make_tasks(data: Path, probing: Path, most: dict[str, int]) -> tuple[list[Group], list[Task]]:
    """Return the groups of texts and the tasks.

    Args:
        data: the folder with ``ud_ewt`` and ``20ng``.
        probing: the folder with ``bso``.
        most: the most examples per task, by split.

    Raises:
        FileNotFoundError: a file of the data is missing.
    """
    trees = {split: list(read_trees(data / "ud_ewt" / f"{split}.conllu")) for split in SPLITS}
    pairs = {
        split: read_pairs(probing / "bso" / f"wiki.{name}.txt")
        for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True)
    }
    makers = [
        lambda: of_trees(trees, most), lambda: bigram_shift(trees, most), lambda: word_content(trees, pairs, most),
        lambda: part_of_speech(trees, most), lambda: order(pairs, most), lambda: topic(data / "20ng", most),
    ]  # fmt: skip
    groups, tasks = [], []
    for make in makers:
        group, made = make()
        groups.append(group)
        tasks += made
    return groups, tasks


def read_pairs(path: Path) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [(row[0], row[1]) for row in rows if len(row) == 2]


def build(name: str, group: str, examples: dict[str, list[tuple]], most: dict[str, int]) -> Task:
    """Return the task with (row, label) examples, at most ``most`` per split, drawn uniformly from ``examples``."""
    chosen = {}
    for split, found in examples.items():
        draw = random.Random(f"{name} {split}")
        chosen[split] = sorted(draw.sample(range(len(found)), min(most[split], len(found))))
    classes = sorted({examples["train"][i][1] for i in chosen["train"]}, key=str)
    index = {label: i for i, label in enumerate(classes)}
    kept = {s: [examples[s][i] for i in rows if examples[s][i][1] in index] for s, rows in chosen.items()}
    return Task(
        name,
        group,
        {split: [example[0] for example in found] for split, found in kept.items()},
        {split: [index[example[1]] for example in found] for split, found in kept.items()},
        [str(label) for label in classes],
        {s: [example[2] for example in found] for s, found in kept.items() if found and len(found[0]) > 2},
    )


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
    tasks = [build(name, "sentences", found, most) for name, found in examples.items()]
    return compact(Group("sentences", texts), tasks)


def compact(group: Group, tasks: list[Task]) -> tuple[Group, list[Task]]:
    """Return the group with only the texts that a task uses."""
    used = sorted({row for task in tasks for rows in task.rows.values() for row in rows})
    new = {row: i for i, row in enumerate(used)}
    for task in tasks:
        task.rows = {split: [new[row] for row in rows] for split, rows in task.rows.items()}
    return Group(group.name, [group.texts[row] for row in used]), tasks


def bigram_shift(trees: dict[str, list[list[Word]]], most: dict[str, int]) -> tuple[Group, list[Task]]:
    texts, examples = [], {split: [] for split in SPLITS}
    draw = random.Random("bigram_shift")
    for split in SPLITS:
        found = [words for words in trees[split] if 5 <= len(words) <= 28 and swappable(words)]
        for words in found:
            is_shifted = draw.random() < 0.5
            examples[split].append((len(texts), "shifted" if is_shifted else "intact"))
            texts.append(text_of(shifted(words, draw) if is_shifted else words))
    return compact(Group("bigrams", texts), [build("bigram_shift", "bigrams", examples, most)])


def word_content(trees, pairs, most: dict[str, int]) -> tuple[Group, list[Task]]:
    sentences = {}
    for split in SPLITS:
        of_trees_ = [([w.form.lower() for w in words], text_of(words)) for words in trees[split]]
        singles = list(dict.fromkeys(sentence for pair in pairs[split] for sentence in pair))
        written = detokenise(singles) if singles else []
        of_pairs = [(s.lower().split(), text) for s, text in zip(singles, written, strict=True)]
        sentences[split] = [s for s in of_trees_ + of_pairs if 5 <= len(s[0]) <= 40]
    counts = Counter(word for words, _ in sentences["train"] for word in words if word.isalpha())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    chosen = set(ranked[SKIPPED_WORDS : SKIPPED_WORDS + WORDS])
    texts, examples = [], {split: [] for split in SPLITS}
    for split in SPLITS:
        for words, text in sentences[split]:
            there = [word for word in words if word in chosen]
            if len(there) == 1:
                examples[split].append((len(texts), there[0]))
                texts.append(text)
    more = most | {"train": WORD_EXAMPLES * most["train"]}
    return compact(Group("words", texts), [build("word_content", "words", examples, more)])


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
    return Group("tokens", texts, per_token=True), [build("part_of_speech", "tokens", examples, most)]


def order(pairs: dict[str, list[tuple[str, str]]], most: dict[str, int]) -> tuple[Group, list[Task]]:
    texts, examples = [], {split: [] for split in SPLITS}
    draw = random.Random("order")
    for split in SPLITS:
        for first, second in pairs[split]:
            swap = draw.random() < 0.5
            examples[split].append((len(texts), "swapped" if swap else "in order"))
            written = detokenise([first, second])
            texts.append((written[1], written[0]) if swap else (written[0], written[1]))
    return compact(Group("pairs", texts), [build("order", "pairs", examples, most)])


def topic(folder: Path, most: dict[str, int]) -> tuple[Group, list[Task]]:
    posts = {name: [] for name in ("train", "test")}
    for name, rows in posts.items():
        with lzma.open(folder / f"{name}.tsv.xz", "rt", encoding="utf-8") as file:
            for line in file:
                label, _, text = line.rstrip("\n").partition("\t")
                rows.append((label, " ".join(text.split()[:TOPIC_WORDS])))
    random.Random("topic").shuffle(posts["train"])
    dev = max(1, min(most["dev"], len(posts["train"]) // 5))
    of_split = {"train": posts["train"][dev:], "dev": posts["train"][:dev], "test": posts["test"]}
    texts, examples = [], {split: [] for split in SPLITS}
    for split in SPLITS:
        for label, text in of_split[split]:
            if text:
                examples[split].append((len(texts), label))
                texts.append(text)
    return compact(Group("posts", texts), [build("topic", "posts", examples, most)])
