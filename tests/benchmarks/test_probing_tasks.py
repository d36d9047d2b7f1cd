"""The rules that turn trees, pairs and posts into the probing tasks."""

import random

import numpy as np
import pytest
from made_up_probing import data, few_words  # noqa: F401  fixtures
from probing_tasks import SPLITS, depth, make_tasks, number_of, read_trees, shifted, swappable, tense, text_of

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
    first = trees[0]
    assert [first[i].form for i in swappable(first)] == ["see", "old"]  # "n't" and "here." are not between spaces
    assert not swappable(trees[1])
    found = {text_of(shifted(first, random.Random(seed))) for seed in range(20)}
    assert found == {"I don't old see cats here.", "I don't see cats old here."}
    assert {tuple(sorted(text.split())) for text in found} == {tuple(sorted(text_of(first).split()))}


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
