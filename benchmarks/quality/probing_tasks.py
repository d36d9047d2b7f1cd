"""The probing tasks: texts and labels from ud_ewt, binary sentence order, 20 newsgroups and, if there is one, a corpus.

They follow SentEval (Conneau et al., 2018) and DiscoEval (Chen et al., 2019), on available texts:

| task | what is predicted | rule |
| --- | --- | --- |
| length | words in a sentence, 6 bins | ud_ewt, 5 to 28 words: 5-8, 9-12, 13-16, 17-20, 21-25, 26-28 |
| word_content | which of 200 words is there | the corpus, 5 to 40 words; frequent words after the first 1,000, 30 + |
| | | 3 + 3 sentences for each; exactly one of them in the sentence |
| | ... of 1,000 words ... | without a corpus: ud_ewt and single sentences of bso, as many as there are |
| bigram_shift | two neighbours swapped or not | the corpus, or ud_ewt; 5 to 28 words, half of them swapped |
| tense | past or present | ud_ewt: that of the root if finite, else of its first finite auxiliary or copula |
| subject_number | singular or plural | ud_ewt: the root's only nominal subject, a common noun |
| object_number | singular or plural | ud_ewt: the root's only object, a common noun |
| depth | levels of the dependency tree, 2 to 7 | ud_ewt, 10 to 25 words; more levels count as 7, fewer are left out |
| part_of_speech | universal tag of a word | ud_ewt, per token |
| order | two sentences in order or swapped | bso, half of them swapped |
| topic | one of 20 newsgroups | 20ng, the first 100 words |

Splits are those of the data; 20ng has no dev split, so it is drawn from train. Texts of train with the words of one in
dev or test are left out. If one class is more than 60 % of train, it is cut to the size of the next, in all splits.
Draws do not depend on the probe's seed.
"""

import lzma
import random
from pathlib import Path

from probing_examples import SPLITS, Group, Task, build, compact
from probing_sentences import bigram_shift, read_corpus, word_content
from probing_trees import of_trees, part_of_speech, read_trees, text_of

from fairseq_lambda.corpora.detokenise import detokenise

TOPIC_WORDS = 100


def make_tasks(
    data: Path, probing: Path, most: dict[str, int], corpus: Path | None = None
) -> tuple[list[Group], list[Task]]:
    """Return the groups of texts and the tasks.

    Args:
        data: the folder with ``ud_ewt`` and ``20ng``.
        probing: the folder with ``bso``.
        most: the most examples per task, by split.
        corpus: a folder for :func:`probing_sentences.read_corpus`.

    Raises:
        FileNotFoundError: a file of the data is missing.
        ValueError: the corpus has too few sentences, or cannot be read.
    """
    trees = {split: list(read_trees(data / "ud_ewt" / f"{split}.conllu")) for split in SPLITS}
    pairs = {
        split: read_pairs(probing / "bso" / f"wiki.{name}.txt")
        for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True)
    }
    sentences = read_corpus(corpus) if corpus else {s: [text_of(words) for words in trees[s]] for s in SPLITS}
    with_words = sentences if corpus else {s: [*sentences[s], *singles(pairs[s])] for s in SPLITS}
    made = [
        of_trees(trees, most),
        bigram_shift(sentences, most, from_corpus=corpus is not None),
        word_content(with_words, most, from_corpus=corpus is not None),
        part_of_speech(trees, most),
        order(pairs, most),
        topic(data / "20ng", most),
    ]
    return [group for group, _ in made], [task for _, tasks in made for task in tasks]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [(row[0], row[1]) for row in rows if len(row) == 2]


def singles(pairs: list[tuple[str, str]]) -> list[str]:
    """Return the sentences of the pairs as they are written, each once."""
    found = list(dict.fromkeys(sentence for pair in pairs for sentence in pair))
    return detokenise(found) if found else []


def order(pairs: dict[str, list[tuple[str, str]]], most: dict[str, int]) -> tuple[Group, list[Task]]:
    texts, examples = [], {split: [] for split in SPLITS}
    draw = random.Random("order")
    for split in SPLITS:
        for first, second in pairs[split]:
            swap = draw.random() < 0.5
            examples[split].append((len(texts), "swapped" if swap else "in order"))
            written = detokenise([first, second])
            texts.append((written[1], written[0]) if swap else (written[0], written[1]))
    group = Group("pairs", texts)
    return compact(group, [build("order", group, examples, most)])


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
    group = Group("posts", texts)
    return compact(group, [build("topic", group, examples, most)])
