"""One probe: of several classifiers the one that is best on dev, tested once.

| features | classes | classifiers |
| --- | --- | --- |
| dense | below 100 | logistic regression, or a hidden layer of 50 |
| dense | from 100 | linear discriminant analysis with shrinkage |
| counts of words | any | logistic regression on counts of unit variance, or on whether each word is there |

From 100 classes on, they are more than a hidden layer is wide, and a logistic regression does not converge in time.
All but the last are trained on features of unit variance.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from probing_code import code_length
from scipy import sparse
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer, StandardScaler

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)  # C of the logistic regression on dense features
BAG_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # on counts of words
# of the logistic regression; at ten times the default, half the iterations give the same accuracy to 0.3 points
TOLERANCE = 1e-3
ITERATIONS = 300
HIDDEN = 50
MANY_CLASSES = 100  # from which the classifier is the discriminant analysis
SHRINKAGES = (0.001, 0.01, 0.05, 0.2)
Grid = dict[str, Pipeline]  # classifiers by name, in the order of their strength


@dataclass
class Split:
    """Features (N, d), dense or sparse, their labels (N,), and labels of the control task (N,) if there is one."""

    x: np.ndarray
    y: np.ndarray
    control: np.ndarray | None = None


def linear(classes: int, dense: bool) -> list[Grid]:
    """Return the grids of linear classifiers."""
    if not dense:
        scalings = {"scaled": StandardScaler(with_mean=False), "binary": Binarizer()}
        return [
            {f"{name} words, logistic C={c:g}": make_pipeline(scaling, _logistic(c)) for c in BAG_STRENGTHS}
            for name, scaling in scalings.items()
        ]
    if classes < MANY_CLASSES:
        return [{f"logistic C={c:g}": make_pipeline(StandardScaler(), _logistic(c)) for c in STRENGTHS}]
    models = {f"LDA shrinkage={s:g}": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s) for s in SHRINKAGES}
    return [{name: make_pipeline(StandardScaler(), model) for name, model in models.items()}]


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, tol=TOLERANCE, max_iter=ITERATIONS)


def grids(classes: int, dense: bool, seed: int) -> list[Grid]:
    """Return the classifiers from which the best on dev is chosen."""
    found = linear(classes, dense)
    if dense and classes < MANY_CLASSES:
        hidden = MLPClassifier(
            (HIDDEN,), batch_size=64, early_stopping=True, n_iter_no_change=5, max_iter=60, random_state=seed
        )
        found.append({f"hidden {HIDDEN}": make_pipeline(StandardScaler(), hidden)})
    return found


def probe(splits: dict[str, Split], classes: int, seed: int) -> dict:
    """Return what is known of the classifier that is best on dev; only that one is tested.

    ``dev`` and ``test`` are its accuracies in %, ``right`` is which test examples it got right (see :func:`packed`).
    ``edge`` is whether a classifier of yet more, or less, strength may be better, and ``converged`` whether its
    training ended by itself. ``control`` is its accuracy when trained and tested on the control's labels (Hewitt &
    Liang, 2019: ``selectivity`` is test minus control). ``codelength`` is that of the training labels in bits per label
    (see :func:`probing_code.code_length`), with the classifiers of its grid, or linear ones if it has a hidden layer;
    ``compression`` is the uniform code's divided by it.
    """
    train, dev, test = (splits[name] for name in ("train", "dev", "test"))
    dense = not sparse.issparse(train.x)
    all_grids = grids(classes, dense, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # "converged" tells
        warnings.filterwarnings("ignore", "The number of unique classes")  # in the first portions of the code
        models = {name: fit(model, train.x, train.y) for grid in all_grids for name, model in grid.items()}
        on_dev = {name: accuracy(model, dev.x, dev.y) for name, model in models.items()}
        best = max(on_dev, key=on_dev.get)
        right = models[best].predict(test.x) == test.y
        found = {
            "dim": train.x.shape[1],
            "examples": {name: len(split.y) for name, split in splits.items()},
            "classes": classes,
            "chance": round(chance(test.y, classes), 2),
            "classifier": best,
            "edge": any(len(grid) > 1 and best in (next(iter(grid)), [*grid][-1]) for grid in all_grids),
            "converged": converged(models[best]),
            "dev": round(on_dev[best], 2),
            "test": round(100 * float(right.mean()), 2),
            "right": packed(right),
        }
        if train.control is not None:
            control = fit(clone(models[best]), train.x, train.control)
            found["control"] = round(accuracy(control, test.x, test.control), 2)
        if classes < MANY_CLASSES:
            choices = linear(classes, dense)
            choices = next((grid for grid in choices if best in grid), choices[0])
            bits = code_length([*choices.values()], train.x, train.y, classes, seed)
            found |= {"codelength": round(bits, 4), "compression": round(float(np.log2(classes)) / bits, 4)}
    return found


def accuracy(model, x, y: np.ndarray) -> float:
    return 100 * float((model.predict(x) == y).mean())


def chance(test: np.ndarray, classes: int) -> float:
    """Return the accuracy in % that needs no features: the largest share of a class, or that of a guess."""
    return 100 * max(float(np.bincount(test).max()) / len(test), 1 / classes)


def packed(right: np.ndarray) -> str:
    """Return booleans as hexadecimal digits, one for four."""
    return np.packbits(right).tobytes().hex()


def unpacked(digits: str, count: int) -> np.ndarray:
    """Return the first ``count`` booleans that were :func:`packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=count).astype(bool)


def converged(model) -> bool:
    """Return whether the training of a pipeline's classifier ended before its last iteration."""
    last = model[-1] if isinstance(model, Pipeline) else model
    return not hasattr(last, "n_iter_") or bool(np.max(last.n_iter_) < last.max_iter)


def fit(model: Pipeline, x, y: np.ndarray):
    """Return the trained model; if there is only one class, a model that always predicts it."""
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) == 1:
        return DummyClassifier(strategy="most_frequent").fit(x, y)
    if isinstance(model[-1], MLPClassifier):  # scikit-learn holds out a tenth, which must contain all classes
        model[-1].set_params(early_stopping=counts.min() >= 2 and len(y) // 10 >= len(counts))
    return model.fit(x, y)


def control_labels(labels: dict[str, np.ndarray], types: dict[str, list[str]], seed: int) -> dict[str, np.ndarray]:
    """Return the labels of the control task of tokens: each type has one, drawn from the training labels.

    A probe can only memorise the types (Hewitt & Liang, 2019). Texts have no types, and so no such task: each occurs
    once, and a probe of random labels shows only how it guesses.
    """
    draw = np.random.default_rng(seed)
    label_of: dict[str, int] = {}
    for names in types.values():
        for name in names:
            label_of.setdefault(name, int(draw.choice(labels["train"])))
    return {split: np.array([label_of[name] for name in names]) for split, names in types.items()}
