"""The online code length of labels, given features: how much data a linear probe needs (Voita & Titov, 2020)."""

import itertools

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier

PORTIONS = (0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
HELD_OUT = 4  # one in so many of the examples that were seen decides between the classifiers
UNIFORM = 0.01  # weight of the uniform distribution in a code, because a class may not have been seen yet


def code_length(models: list, x, y: np.ndarray, classes: int, seed: int) -> float:
    """Return the bits per label of the online code: each portion is coded by a probe trained on all earlier ones.

    Which of the models it is, or else the frequencies of the classes, is chosen for each portion on held-out examples
    of the earlier ones: what is best for all examples would overfit a few. The first portion is coded uniformly.
    """
    models = [DummyClassifier(strategy="prior"), *models]
    order = np.random.default_rng(seed).permutation(len(y))
    ends = sorted({max(2, round(portion * len(y))) for portion in PORTIONS})
    bits = ends[0] * np.log2(classes)
    for start, end in itertools.pairwise(ends):
        seen, new, fewer = order[:start], order[start:end], order[: start - max(1, start // HELD_OUT)]
        on_held_out = [bits_of(model, x, y, fewer, seen[len(fewer) :], classes) for model in models]
        bits += bits_of(models[int(np.argmin(on_held_out))], x, y, seen, new, classes)
    return float(bits / len(y))


def bits_of(model, x, y: np.ndarray, seen: np.ndarray, new: np.ndarray, classes: int) -> float:
    """Return the bits in which the model, trained on the ``seen`` examples, codes the ``new`` ones."""
    if len({*y[seen].tolist()}) == 1:
        model = DummyClassifier(strategy="prior")  # a classifier needs two classes
    model = clone(model).fit(x[seen], y[seen])
    p = np.full((len(new), classes), UNIFORM / classes)
    p[:, model.classes_] += (1 - UNIFORM) * model.predict_proba(x[new])
    return -float(np.log2(p[np.arange(len(new)), y[new]]).sum())
