"""The rules that turn trees, pairs and posts into the probing tasks."""

import random
from collections import Counter

import numpy as np
import pytest
from made_up_probing import corpus, data, few_words  # noqa: F401  fixtures
from probing_examples import SPLITS, Group, apart, balanced, build, words_of
from probing_sentences import PER_WORD, read_corpus, shifted, swappable, word_content
from probing_tasks import make_tasks
from probing_trees import depth, number_of, read_trees, tense, text_of

TREES = """# text = I don't see old cats here.
1\tI\tI\tPRON\tPRP\tNumber=Sing\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\tTense=Pres|VerbForm=Fin\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tsee\tsee\tVERB\tVB\tVerbForm=Inf\t0\troot\t_\t_
5\told\told\tADJ\tJJ\t_\t6\tamod\t_\t_
5.1\tbig\tbig\tADJ\tJJ\t_\t_\t_\t_\t_
6\tcats\tcat\tNOUN\tNNS\tNumber=Plur\t4\tobj\t_\t_
7\there\there\tADV\tRB\t_\t4\tadvmod\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\t_

1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_
2\tdog\tdog\tNOUN\tNN\tNumber=Sing\t3\tnsubj\t_\t_
3\tslept\tsleep\tVERB\tVBD\tTense=Past|VerbForm=Fin\t0\troot\t_\t_
"""


@pytest.fixture
def trees(tmp_path):
    (tmp_path / "x.conllu").write_text(TREES)
    return list(read_trees(tmp_path / "x.conllu"))


def test_trees_and_the_rules_on_them(trees):
    first, second = trees
    assert text_of(first) == "I don't see old cats here." and text_of(second) == "The dog slept"
    assert [tense(w) for w in trees] == ["Pres", "Past"] and [depth(w) for w in trees] == [3, 3]
    assert [number_of(w, ("nsubj",)) for w in trees] == [None, "Sing"]  # a pronoun does not count
    assert [number_of(w, ("obj",)) for w in trees] == ["Plur", None]


def test_a_shifted_bigram_has_the_same_bag_of_words_between_the_same_spaces(trees):
    first, second = (text_of(words).split() for words in trees)
    assert [first[i] for i in swappable(first)] == ["see", "old"]  # "don't" and "here." are not letters only
    assert not swappable(second)
    found = {" ".join(shifted(first, random.Random(seed))) for seed in range(20)}
    assert found == {"I don't old see cats here.", "I don't see cats old here."}
    assert {words_of(text) for text in found} == {words_of(text_of(trees[0]))}


def test_a_text_of_train_is_in_no_other_split_in_any_order():
    texts = ["a b c", "d e", "c b a", "f g", "e d", ("a b", "c d"), ("c d", "a b"), "h"]
    examples = {"train": [(0, 1), (1, 0), (3, 1), (6, 0)], "dev": [(2, 1), (4, 0)], "test": [(4, 0), (5, 1)]}
    assert apart(texts, examples) == {"train": [(3, 1)], "dev": [(2, 1)], "test": [(4, 0), (5, 1)]}
    of_words = {"train": [((0, 0), 1, "x"), ((2, 1), 0, "y")], "dev": [((1, 0), 1, "z")], "test": [((1, 1), 1, "z")]}
    assert apart([["a", "b"], ["b", "a"], ["c"]], of_words)["train"] == [((2, 1), 0, "y")]
    task = build("x", Group("g", texts), examples, dict.fromkeys(SPLITS, 9))
    assert task.rows == {"train": [3], "dev": [2], "test": [5]}  # the label 0 is not in train


def test_a_class_above_three_fifths_is_cut_if_enough_examples_stay():
    def rows(*counts):
        return [(i, label) for label, count in enumerate(counts) for i in range(count)]

    examples = {"train": rows(2000, 700), "dev": rows(90, 30), "test": rows(20, 30)}
    found = balanced("x", examples)
    counts = {split: Counter(label for _, label in found[split]) for split in SPLITS}
    assert counts == {"train": {0: 700, 1: 700}, "dev": {0: 30, 1: 30}, "test": {0: 20, 1: 30}}
    assert found == balanced("x", examples) and found != balanced("y", examples)
    for train in (rows(2000, 450), rows(1500, 1100), rows(2000)):
        assert balanced("x", examples | {"train": train})["train"] == train


def test_word_content_of_a_corpus_has_the_same_number_of_unseen_sentences_per_word(corpus, data):  # noqa: F811
    sentences = read_corpus(corpus)
    assert {split: len(texts) for split, texts in sentences.items()} == {"train": 900, "dev": 150, "test": 151}
    most = {"train": 6000, "dev": 2000, "test": 2000}
    group, (task,) = word_content(sentences, most, from_corpus=True)
    assert len(task.classes) == 8 and all(word.startswith("rare") for word in task.classes)
    for split in SPLITS:
        assert {*Counter(task.labels[split]).values()} == {PER_WORD[split]}
        for row, label in zip(task.rows[split], task.labels[split], strict=True):
            assert group.texts[row] in sentences[split] and task.classes[label] in group.texts[row].lower()
    groups, tasks = make_tasks(data, data, most, corpus)
    bigrams = next(task for task in tasks if task.name == "bigram_shift")
    assert len(bigrams.rows["train"]) > 800 and groups != make_tasks(data, data, most)[0]


def test_a_corpus_without_a_split_or_with_few_words_is_refused(corpus):  # noqa: F811
    few = {split: texts[:40] for split, texts in read_corpus(corpus).items()}
    with pytest.raises(ValueError, match="0 words are in .*word_content needs two"):
        word_content(few, {"train": 9, "dev": 9, "test": 9}, from_corpus=True)
    (corpus / "valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"contains no valid\.txt, or valid\.txt\.xz"):
        read_corpus(corpus)


def test_tasks_are_the_same_each_time_and_their_splits_are_apart(data, few_words):  # noqa: F811
    most = {"train": 100, "dev": 40, "test": 40}
    groups, tasks = make_tasks(data, data, most)
    again_groups, again = make_tasks(data, data, most)
    assert groups == again_groups and tasks == again
    assert len(tasks) == 10 and len({task.name for task in tasks}) == 10
    of = {group.name: group for group in groups}
    for task in tasks:
        rows = [row for split in SPLITS for row in task.rows[split]]
        assert len(rows) == len({*rows}), task.name
        for split in SPLITS:
            labels = task.labels[split]
            limit = most[split] * (2 if (task.name, split) == ("word_content", "train") else 1)
            assert 0 < len(labels) == len(task.rows[split]) <= limit and {*labels} <= {*range(len(task.classes))}
        texts = of[task.group].texts
        words = {s: {words_of(texts[r[0] if isinstance(r, tuple) else r]) for r in task.rows[s]} for s in SPLITS}
        assert not words["train"] & (words["dev"] | words["test"]) and not words["dev"] & words["test"], task.name
        for row in rows:
            text = of[task.group].texts[row[0]][row[1]] if isinstance(row, tuple) else of[task.group].texts[row]
            assert text
    by_name = {task.name: task for task in tasks}
    words = by_name["word_content"]
    for row, label in zip(words.rows["test"], words.labels["test"], strict=True):
        there = [word for word in of["words"].texts[row].lower().replace(".", "").split() if word in words.classes]
        assert there == [words.classes[label]]
    order = by_name["order"]
    assert order.classes == ["in order", "swapped"] and 0.3 < np.mean(order.labels["train"]) < 0.7
    assert of["tokens"].per_token and by_name["part_of_speech"].types["test"]
