"""One probe, logistic regression or a hidden layer of 50, whichever is better on dev: tested once, with controls."""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.001, 0.01, 0.1)  # C of the logistic regression, on features of unit variance
HIDDEN = 50
ITERATIONS = 100  # of the logistic regression, at most
# From this many classes on, there is no hidden layer, because it would be narrower than the number of classes. The time
# of the logistic regression is proportional to the classes, so it has fewer iterations, strengths and portions.
MANY_CLASSES, FEW_ITERATIONS, FEW_STRENGTHS = 100, 15, (0.01, 0.1)
PORTIONS = (0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)  # of online coding (Voita & Titov, 2020)
FEW_PORTIONS = PORTIONS[-4:]
UNIFORM = 0.01  # weight of the uniform distribution in a code, because a class may not have been seen yet


@dataclass
class Split:
    """Features (N, d), dense or sparse, their labels (N,), and labels of the control task (N,)."""

    x: np.ndarray
    y: np.ndarray
    control: np.ndarray


def classifiers(classes: int, dense: bool, seed: int) -> dict[str, object]:
    """Return the classifiers from which the best on dev is chosen."""
    many = classes >= MANY_CLASSES
    strengths, iterations = (FEW_STRENGTHS, FEW_ITERATIONS) if many else (STRENGTHS, ITERATIONS)
    found = {f"logistic C={c:g}": LogisticRegression(C=c, max_iter=iterations) for c in strengths}
    if dense and not many:
        found[f"hidden {HIDDEN}"] = MLPClassifier(
            (HIDDEN,), batch_size=64, early_stopping=True, n_iter_no_change=5, max_iter=60, random_state=seed
        )
    return found


def probe(splits: dict[str, Split], classes: int, seed: int) -> dict:
    """Return accuracies in %, and the online code length of the training labels in bits per label.

    ``test`` is the accuracy of the classifier that is best on dev; only that one is tested. ``control`` is its accuracy
    when trained and tested on the control's labels (Hewitt & Liang, 2019: ``selectivity`` is test minus control).
    ``codelength`` is that of the online code (Voita & Titov, 2020) with that classifier; ``compression`` is the uniform
    code's length divided by it.
    """
    train, dev, test = (splits[name] for name in ("train", "dev", "test"))
    dense = not sparse.issparse(train.x)
    scaler = StandardScaler(with_mean=dense).fit(train.x)
    x = {name: scaler.transform(split.x) for name, split in splits.items()}
    on_dev, models = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, model in classifiers(classes, dense, seed).items():
            models[name] = fit(model, x["train"], train.y)
            on_dev[name] = accuracy(models[name], x["dev"], dev.y)
        best = max(on_dev, key=on_dev.get)
        score = accuracy(models[best], x["test"], test.y)
        control = fit(classifiers(classes, dense, seed)[best], x["train"], train.control)
        bits = code_length(lambda: classifiers(classes, dense, seed)[best], x["train"], train.y, classes, seed)
    uniform = np.log2(classes)
    return {
        "dim": train.x.shape[1],
        "examples": {name: len(split.y) for name, split in splits.items()},
        "classifier": best,
        "dev": round(on_dev[best], 2),
        "test": round(score, 2),
        "control": round(accuracy(control, x["test"], test.control), 2),
        "codelength": round(bits, 4),
        "compression": round(uniform / bits, 4),
    }


def accuracy(model, x, y: np.ndarray) -> float:
    return 100 * float((model.predict(x) == y).mean())


def code_length(make, x, y: np.ndarray, classes: int, seed: int) -> float:
    """Return the bits per label of the online code: each portion is coded by a probe trained on all earlier ones.

    The first portion is coded uniformly.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    portions = FEW_PORTIONS if classes >= MANY_CLASSES else PORTIONS
    ends = sorted({max(2, round(portion * len(y))) for portion in portions})
    bits = ends[0] * np.log2(classes)
    for start, end in itertools.pairwise(ends):
        seen, new = order[:start], order[start:end]
        p = np.full((len(new), classes), UNIFORM / classes)
        model = fit(make(), x[seen], y[seen])
        p[:, model.classes_] += (1 - UNIFORM) * model.predict_proba(x[new])
        bits -= np.log2(p[np.arange(len(new)), y[new]]).sum()
    return float(bits / len(y))


def fit(model, x, y: np.ndarray):
    """Return the trained model; if there is only one class, a model that always predicts it."""
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) == 1:
        return DummyClassifier(strategy="most_frequent").fit(x, y)
    if isinstance(model, MLPClassifier):  # scikit-learn holds out a tenth, which must contain all classes
        model.set_params(early_stopping=counts.min() >= 2 and len(y) // 10 >= len(counts))
    return model.fit(x, y)


def shuffled(labels: dict[str, np.ndarray], types: dict[str, list[str]], seed: int) -> dict[str, np.ndarray]:
    """Return the labels of the control task, which has the same label frequencies and nothing to learn.

    Without types, the labels are shuffled within each split. With the types of tokens, each type has one fixed label,
    drawn from the training labels, as in Hewitt & Liang (2019): a probe can only memorise the types.
    """
    draw = np.random.default_rng(seed)
    if not types:
        return {split: draw.permutation(y) for split, y in labels.items()}
    label_of: dict[str, int] = {}
    for names in types.values():
        for name in names:
            label_of.setdefault(name, int(draw.choice(labels["train"])))
    return {split: np.array([label_of[name] for name in names]) for split, names in types.items()}


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Return the accuracy in % of the most frequent training label."""
    return 100 * float((test == np.bincount(train).argmax()).mean())
