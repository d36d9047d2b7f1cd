"""Scores of predictions, by scikit-learn and scipy; spans as the CoNLL-2003 evaluation counts them."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_squared_error

from fairseq_lambda.finetuning.labels import Labels

# By objective; training selects by the first. For tags of spans that is span_f1.
NAMES = {
    "classification": ("accuracy", "matthews", "macro_f1", "f1"),
    "multilabel": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("pearson", "spearman", "mse"),
    "tagging": ("accuracy", "macro_f1", "span_f1", "span_precision", "span_recall"),
}
LOWER_IS_BETTER = ("mse",)
NOT_PERCENT = ("matthews", "pearson", "spearman", "mse")  # shown as they are


def names_of(labels: Labels) -> list[str]:
    """Return the names of the scores that go with these labels, the one to select by first."""
    names = list(NAMES[labels.objective])
    if labels.objective == "classification" and len(labels.names) != 2:
        names.remove("f1")
    if labels.objective == "tagging":
        names = names[2:] + names[:2] if labels.spans else names[:2]
    return names


def scores(labels: Labels, predicted: np.ndarray, target: np.ndarray, lengths: Sequence[int] = ()) -> dict[str, float]:
    """Return the scores of :func:`names_of`, as fractions.

    ``f1`` is that of the second of two labels, such as 1 of 0 and 1; ``macro_f1`` is the mean over the labels that
    occur in target or prediction; ``exact_match`` is the share of texts with all labels correct. A correlation with
    predictions that are all equal is 0.

    Args:
        predicted, target: indices (n,) for classification and, of all words one after another, for tagging; floats (n,)
            for regression; 0 and 1, (n, labels), for several labels.
        lengths: words of each text, for spans.
    """
    if labels.objective == "regression":
        constant = np.ptp(predicted) == 0 or np.ptp(target) == 0
        return {
            "pearson": 0.0 if constant else float(pearsonr(predicted, target)[0]),
            "spearman": 0.0 if constant else float(spearmanr(predicted, target)[0]),
            "mse": float(mean_squared_error(target, predicted)),
        }
    if labels.objective == "multilabel":
        return {
            "micro_f1": float(f1_score(target, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(target, predicted, average="macro", zero_division=0)),
            "exact_match": float(accuracy_score(target, predicted)),
        }
    result = {
        "accuracy": float(accuracy_score(target, predicted)),
        "macro_f1": float(f1_score(target, predicted, average="macro", zero_division=0)),
    }
    if labels.objective == "classification":
        result["matthews"] = float(matthews_corrcoef(target, predicted))
        if len(labels.names) == 2:
            result["f1"] = float(f1_score(target, predicted, pos_label=1, average="binary", zero_division=0))
    elif labels.spans:
        result |= span_scores(labels.names, predicted, target, lengths)
    return {name: result[name] for name in names_of(labels)}


def span_scores(names: Sequence[str], predicted, target, lengths: Sequence[int]) -> dict[str, float]:
    """Return precision, recall and F1 of whole spans with their type, over all texts (micro)."""
    right = ours = theirs = start = 0
    for length in lengths:
        found, true = (
            set(spans([names[index] for index in tags[start : start + length]])) for tags in (predicted, target)
        )
        right, ours, theirs, start = right + len(found & true), ours + len(found), theirs + len(true), start + length
    precision, recall = right / max(ours, 1), right / max(theirs, 1)
    f1 = 2 * right / max(ours + theirs, 1)
    return {"span_f1": f1, "span_precision": precision, "span_recall": recall}


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (type, start, end) of the spans of one text, end exclusive.

    As in CoNLL-2003's conlleval, ``I-X`` after anything other than X begins a span; ``E-`` ends one, ``S-`` is one.
    """
    found, start, kind = [], 0, None
    for index, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind is not None and (mark in ("O", "B", "S") or name != kind):
            found.append((kind, start, index))
            kind = None
        if mark in ("B", "S", "I", "E") and kind is None:
            start, kind = index, name
        if mark in ("S", "E") and kind is not None:
            found.append((kind, start, index + 1))
            kind = None
    return found


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation of a sample (n - 1); 0 for a single value."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))
