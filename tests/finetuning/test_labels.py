"""Which labels a file has, in which order, and what is refused."""

import dataclasses

import numpy as np
import pytest

from fairseq_lambda.finetuning.examples import Example, natural_order
from fairseq_lambda.finetuning.labels import Labels, divide, learn_labels, part


def examples(labels):
    return [Example(i + 2, ("text",), None, label) for i, label in enumerate(labels)]


def learn(labels, objective=None, names=None):
    return learn_labels(examples(labels), "train.tsv", objective, names)


def test_order_is_that_of_numbers_or_the_alphabet_or_the_users():
    assert learn(["10", "9", "10", "-1"]).names == ["-1", "9", "10"]
    assert learn(["b", "10", "a", "b"]).names == ["10", "a", "b"]
    assert learn(["1.0", "3.8"], "classification").names == ["1.0", "3.8"]
    found = learn(["b", "a", "b"], names=["b", "c", "a"])
    assert found.names == ["b", "c", "a"] and found.counts == [2, 0, 1]
    assert natural_order(["é", "z", "e"]) == ["e", "z", "é"]


def test_targets():
    labels = learn(["x", "y", "x"])
    assert [labels.target(e, "f") for e in examples(["x", "y"])] == [0, 1]
    several = learn([["x", "y"], [], ["y"]])
    assert several.objective == "multilabel" and several.counts == [1, 2] and several.examples == 3
    assert several.target(examples([["y"]])[0], "f") == [0, 1]
    words = [Example(2, (), ["a", "b", "c"], ["N", "V", "N"])]
    tags = learn_labels(words, "f", None, None)
    assert tags.objective == "tagging" and tags.target(words[0], "f") == [0, 1, 0]
    numbers = learn(["1", "3"], "regression")
    assert (numbers.mean, numbers.deviation, numbers.outputs) == (2, 1, 1)
    assert numbers.target(examples(["5"])[0], "f") == 3


@pytest.mark.parametrize("names,spans", [
    (["O", "B-A", "I-A"], True), (["B-A", "I-A"], True), (["S-A", "E-A", "O"], True), (["NOUN", "B-A"], False),
    (["O", "I-A"], False), (["x", "y"], False),
])  # fmt: skip
def test_names_of_spans(names, spans):
    assert Labels("tagging", names).spans == spans


@pytest.mark.parametrize("labels,options,message", [
    (["x"] * 5, {}, "train.tsv has only one label, 'x'"),
    ([], {}, "train.tsv is empty"),
    ([str(i) for i in range(90)], {}, "train.tsv has 90 labels in 90 lines"),
    (["1", "x"], {"objective": "regression"}, "train.tsv, line 3: 'x' is not a number"),
    (["1", "nan"], {"objective": "regression"}, "train.tsv, line 3: 'nan' is not a number"),
    (["1.0", "3.8"], {}, "train.tsv has numbers as labels, such as '1.0': add --objective regression"),
    (["2", "2"], {"objective": "regression"}, "train.tsv: all targets are 2"),
    (["x", "y"], {"objective": "tagging"}, "train.tsv: --objective tagging needs words with a label each"),
    (["x", "y"], {"objective": "multilabel"}, "train.tsv: --objective multilabel needs a list of labels"),
    ([["x"], ["y"]], {"objective": "classification"}, "train.tsv: --objective classification needs one label per text"),
    ([[], []], {}, "train.tsv has no labels at all"),
    (["x", "y"], {"names": ["x", "z"]}, "train.tsv has the label 'y', which is not in --labels"),
])  # fmt: skip
def test_what_cannot_be_learned(labels, options, message):
    with pytest.raises(ValueError) as error:
        learn(labels, **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("kinds,message", [
    ([(("a",), None, "x"), (("b",), None, ["x"])], "one text with a list of labels, but training starts with one text"),
    ([(("a",), None, "x"), (("b",), None, [])], "one text with a list of labels, but training starts with one text"),
    ([(("a",), None, ["x"]), (("b",), None, "x")], "one label, but training starts with one text with a list"),
    ([((), ["a"], ["x"]), (("b",), None, "x")], "one text with one label, but training starts with words with a label"),
    ([(("a",), None, "x"), (("a", "b"), None, "x")], "two texts with one label, but training starts with one text"),
    ([(("a", "b"), None, "x"), (("a",), None, "x")], "one text with one label, but training starts with two texts"),
])  # fmt: skip
def test_a_line_of_another_kind_is_refused_in_training_and_elsewhere(kinds, message):
    first, other = (Example(i + 2, *kind) for i, kind in enumerate(kinds))
    with pytest.raises(ValueError, match=f"^train.tsv, line 3 has .*{message}"):
        learn_labels([first, other], "train.tsv", None, None)
    both = [first, dataclasses.replace(first, label=["y"] if isinstance(first.label, list) else "y")]
    with pytest.raises(ValueError, match=f"^valid.tsv, line 3 has .*{message}"):
        learn_labels(both, "train.tsv", None, None).target(other, "valid.tsv")


@pytest.mark.parametrize("base", [0, 1.6e9])
def test_a_small_spread_of_large_targets(base):
    found = learn([f"{base + i:.0f}" for i in range(10)], "regression")
    assert (found.mean, found.deviation) == pytest.approx((base + 4.5, 8.25**0.5), rel=1e-12)


def test_unknown_label():
    with pytest.raises(ValueError, match=r"valid.tsv, line 2: the label 'z' is not in training, which has x, y: "):
        learn(["x", "y"]).target(examples(["z"])[0], "valid.tsv")


def test_saved_and_loaded(tmp_path):
    labels = learn(["é", "b", "b"])
    labels.save(tmp_path, {"train": "sum"})
    assert Labels.load(tmp_path) == (labels, {"train": "sum"}) and Labels(**labels.state()) == labels
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(ValueError, match=r"labels.json is damaged .*make the folder again"):
        Labels.load(tmp_path)


def test_a_share_is_split_off_by_seed():
    one, two = divide(1000, 0.1, 1), divide(1000, 0.1, 2)
    assert one.sum() == two.sum() == 100 and (one != two).any() and np.array_equal(one, divide(1000, 0.1, 1))
    assert divide(2, 0.001, 1).sum() == divide(2, 0.999, 1).sum() == 1
    rows = examples("abcdefghij")
    held_out = divide(10, 0.3, 1)
    parts = [list(part(rows, held_out, wanted)) for wanted in (True, False)]
    assert len(parts[0]) == 3 and sorted(e.line for p in parts for e in p) == [e.line for e in rows]
    assert list(part(rows, None, True)) == rows
