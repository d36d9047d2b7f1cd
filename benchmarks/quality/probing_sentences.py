"""The probing tasks that any sentences allow, word content and swapped bigrams; from a corpus, or from ud_ewt.

A corpus is a folder with ``train.txt``, ``valid.txt`` and ``test.txt``, plain or compressed (``train.txt.xz``), where a
line is a paragraph and blank lines divide the documents. Its files are the splits, so no document is in two. If it is
what the model was pretrained on, then the probes learn from text that the model has seen, and are chosen and tested on
text that it has not. Such a test split may be too small for SentEval's 1,000 words; enwiki's allows 200.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from probing_examples import SPLITS, Group, Task, build, compact, words_of

from fairseq_lambda.corpora.documents import BLANK_LINES, Layout, read_documents, read_lines
from fairseq_lambda.corpora.errors import PrepareError

PARAGRAPHS = 100_000  # of train.txt that are read: 45 MB of enwiki
SKIPPED_WORDS = 1000  # more frequent than those of word_content
WORDS, EXAMPLES = 1000, 2  # without a corpus: the words, and examples, as a multiple of those of other tasks
# with a corpus: the words, the number of each in a split, and how many of the next most frequent words are tried
BALANCED_WORDS, PER_WORD, TRIED = 200, {"train": 30, "dev": 3, "test": 3}, 500
SHIFT_EXAMPLES = 10 / 3  # with a corpus, bigram_shift has this many times the training examples of other tasks
SENTENCE, SHORT_SENTENCE = range(5, 41), range(5, 29)  # number of words


def read_corpus(folder: Path) -> dict[str, list[str]]:
    """Return the sentences of each split that occur in no other, each once.

    Raises:
        FileNotFoundError: there is no file of a split.
        ValueError: a file cannot be read.
    """
    found, taken = {}, set()
    for split in reversed(SPLITS):
        name = "valid" if split == "dev" else split
        path = next(iter(sorted(folder.glob(f"{name}.txt*"))), None)
        if path is None:
            raise FileNotFoundError(f"{folder} contains no {name}.txt, or {name}.txt.xz")
        try:
            lines = islice(read_lines(path), PARAGRAPHS if split == "train" else None)
            documents = read_documents(lines, Layout(BLANK_LINES, is_moses=False))
            texts = {words_of(text): text for document in documents for text in document}
        except PrepareError as error:
            raise ValueError(str(error)) from None
        found[split] = [text for key, text in texts.items() if key not in taken]
        taken |= texts.keys()
    return {split: found[split] for split in SPLITS}


def swappable(words: list[str]) -> list[int]:
    """Return where a bigram can be swapped: two different words of letters only, within the sentence.

    The words are between spaces, which pieces do not cross. So both orders have the same pieces, and a bag of pieces
    cannot tell them apart.
    """
    return [
        i
        for i in range(1, len(words) - 2)
        if words[i].isalpha() and words[i + 1].isalpha() and words[i].lower() != words[i + 1].lower()
    ]


def shifted(words: list[str], draw: random.Random) -> list[str]:
    """Return the sentence with one of its :func:`swappable` bigrams swapped."""
    at = draw.choice(swappable(words))
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def bigram_shift(
    sentences: dict[str, list[str]], most: dict[str, int], from_corpus: bool = False
) -> tuple[Group, list[Task]]:
    texts, examples = [], {split: [] for split in SPLITS}
    draw = random.Random("bigram_shift")
    for split in SPLITS:
        for words in map(str.split, sentences[split]):
            if len(words) in SHORT_SENTENCE and swappable(words):
                is_shifted = draw.random() < 0.5
                examples[split].append((len(texts), "shifted" if is_shifted else "intact"))
                texts.append(" ".join(shifted(words, draw) if is_shifted else words))
    group = Group("bigrams", texts)
    more = most | ({"train": round(SHIFT_EXAMPLES * most["train"])} if from_corpus else {})
    return compact(group, [build("bigram_shift", group, examples, more)])


def word_content(
    sentences: dict[str, list[str]], most: dict[str, int], from_corpus: bool = False
) -> tuple[Group, list[Task]]:
    """Return the task of finding which one of the words is in a sentence.

    The words are the most frequent in train after ``SKIPPED_WORDS``. From a corpus they are those that are alone in
    enough sentences, and each has the same number of examples, as in SentEval.

    Raises:
        ValueError: fewer than two words are in enough sentences of the corpus.
    """
    split_up = {
        split: [(text, re.findall(r"\w+", text.lower())) for text in texts if len(text.split()) in SENTENCE]
        for split, texts in sentences.items()
    }
    counts = Counter(word for _, words in split_up["train"] for word in words if word.isalpha())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[SKIPPED_WORDS:]
    chosen = ranked[:WORDS]
    if from_corpus:
        found = {split: alone(split_up[split], ranked[:TRIED]) for split in SPLITS}
        enough = [w for w in ranked[:TRIED] if all(len(found[split][w]) >= PER_WORD[split] for split in SPLITS)]
        chosen = enough[:BALANCED_WORDS]
        if len(chosen) < 2:
            raise ValueError(f"--corpus: {len(chosen)} words are in {PER_WORD} sentences each; word_content needs two")
    texts, examples = [], {split: [] for split in SPLITS}
    for split in SPLITS:
        draw = random.Random(f"words {split}")
        for word, of_word in alone(split_up[split], chosen).items():
            drawn = draw.sample(of_word, PER_WORD[split]) if from_corpus else of_word
            examples[split] += [(len(texts) + i, word) for i in range(len(drawn))]
            texts += drawn
    group = Group("words", texts)
    more = most if from_corpus else most | {"train": EXAMPLES * most["train"]}
    return compact(group, [build("word_content", group, examples, more)])


def alone(sentences: Iterable[tuple[str, list[str]]], chosen: list[str]) -> dict[str, list[str]]:
    """Return the sentences in which each of the chosen words is the only one of them."""
    found: dict[str, list[str]] = {word: [] for word in chosen}
    for text, words in sentences:
        there = [word for word in words if word in found]
        if len(there) == 1:
            found[there[0]].append(text)
    return found
