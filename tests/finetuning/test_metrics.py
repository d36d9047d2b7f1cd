"""Scores against values computed by hand."""

import numpy as np
import pytest

from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.metrics import mean_and_deviation, names_of, scores, spans


def test_two_classes():
    """True positives 2, false 1, false negatives 1, true negatives 1."""
    found = scores(Labels("classification", ["0", "1"]), np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]))
    assert found["accuracy"] == pytest.approx(3 / 5) and found["f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["matthews"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_three_classes_have_no_f1_of_one():
    labels = Labels("classification", ["a", "b", "c"])
    found = scores(labels, np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert list(found) == ["accuracy", "matthews", "macro_f1"]
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_several_labels():
    """Label x: 1 of 1 found and 1 too many; label y: 1 of 2 found."""
    predicted, target = np.array([[1, 1], [1, 0], [0, 0]]), np.array([[1, 1], [0, 1], [0, 0]])
    found = scores(Labels("multilabel", ["x", "y"]), predicted, target)
    assert found == pytest.approx({"micro_f1": 2 / 3, "macro_f1": 2 / 3, "exact_match": 2 / 3})


def test_regression():
    """Pearson by hand: deviations (-1, 0, 1) and (-1, 1, 0); the ranks are the same numbers."""
    found = scores(Labels("regression", []), np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    assert found["pearson"] == pytest.approx(0.5) and found["spearman"] == pytest.approx(0.5)
    assert found["mse"] == pytest.approx((81 + 784 + 289) / 3)
    constant = scores(Labels("regression", []), np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    assert constant["pearson"] == constant["spearman"] == 0


@pytest.mark.parametrize("tags,expected", [
    ("B-A I-A O B-B", [("A", 0, 2), ("B", 3, 4)]),
    ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
    ("I-A I-A I-B", [("A", 0, 2), ("B", 2, 3)]),  # IOB1: a span may begin with I
    ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
    ("S-A B-A E-A E-B O", [("A", 0, 1), ("A", 1, 3), ("B", 3, 4)]),
    ("O O", []),
    ("B-A-x I-A-x", [("A-x", 0, 2)]),
])  # fmt: skip
def test_spans(tags, expected):
    assert spans(tags.split()) == expected


def test_span_scores():
    """Three true spans, two predicted, one of them right; the type counts, and so does every word."""
    labels = Labels("tagging", ["O", "B-A", "I-A", "B-B"])
    target = [labels.names.index(t) for t in "B-A I-A O B-B O B-A".split()]
    predicted = [labels.names.index(t) for t in "B-A I-A O B-A O O".split()]
    found = scores(labels, np.array(predicted), np.array(target), [4, 2])
    assert list(found) == names_of(labels) and found["span_f1"] == pytest.approx(2 / 5)
    assert found["span_precision"] == pytest.approx(1 / 2) and found["span_recall"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)


def test_a_span_ends_with_its_text():
    labels = Labels("tagging", ["O", "B-A", "I-A"])
    tags = np.array([1, 2, 2])
    assert scores(labels, tags, tags, [3])["span_f1"] == 1
    assert scores(labels, tags, np.array([1, 2, 2]), [1, 2])["span_recall"] == 1


def test_mean_and_deviation():
    assert mean_and_deviation([1, 2, 3]) == (2, 1) and mean_and_deviation([5]) == (5, 0)
