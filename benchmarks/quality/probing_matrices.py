"""The matrix of a probe: rows of a model's stored features, projections of them, or words and lengths of the texts."""

from pathlib import Path

import numpy as np
from probing_examples import SPLITS, Group, Task
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

TEXT_FEATURES = ("bag of words", "length")
# a random projection: the array that is projected, and the array whose dimension it then has
PROJECTIONS = {
    "lambda-small": ("lambda", "mean"),
    "lambda-values": ("lambda", "values"),
    "mean-wide": ("mean", "lambda"),
}


def available(folder: Path, model: str) -> dict[str, range]:
    """Return the features of a folder, and the layers that each has."""
    layers = {
        path.stem: np.load(path, mmap_mode="r").shape[1] for path in folder.glob("*.npy") if path.stem != "offsets"
    }
    found = {name: range(count) for name, count in layers.items()}
    if "first" in found:  # in the embeddings it may be the same for all texts
        found["first"] = range(1, layers["first"])
    if "lambda" in found:
        found["lambda-values"] = found["lambda"]
        if model == "model":
            found["lambda-small"], found["mean-wide"] = found["lambda"], found["lambda"]
    return found


def matrix(feature: str, layer: int, folder: Path, rows: np.ndarray) -> np.ndarray:
    """Return a model's features (rows, dimension), float32."""
    stored, like = PROJECTIONS.get(feature, (feature, None))
    array = np.load(folder / f"{stored}.npy", mmap_mode="r")[rows, layer].astype(np.float32)
    if like is None:
        return array
    return array @ projection(array.shape[1], np.load(folder / f"{like}.npy", mmap_mode="r").shape[2])


def projection(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    """Return a random projection (rows, columns), Gaussian, that keeps norms on average."""
    return (np.random.default_rng(seed).standard_normal((rows, columns)) / columns**0.5).astype(np.float32)


def rows_of(task: Task, split: str, folder: Path) -> np.ndarray:
    """Return the rows of the arrays for a split of a task."""
    rows = task.rows[split]
    if rows and isinstance(rows[0], tuple):
        offsets = np.load(folder / "offsets.npy")
        return np.array([offsets[text] + word for text, word in rows])
    return np.array(rows, dtype=np.int64)


def text_features(feature: str, group: Group, task: Task) -> dict[str, np.ndarray]:
    """Return "bag of words", counts of words that occur in two training texts, or "length": words and characters."""
    chosen = task.types or {split: [group.texts[row] for row in rows] for split, rows in task.rows.items()}
    sides = {s: [text if isinstance(text, tuple) else (text,) for text in chosen[s]] for s in SPLITS}
    if feature == "length":
        return {
            split: np.array([[float(n) for part in text for n in (len(part.split()), len(part))] for text in side])
            for split, side in sides.items()
        }
    bags = {split: [] for split in SPLITS}
    for part in range(len(sides["train"][0])):  # each text of a pair has its own bag
        bag = CountVectorizer(min_df=1 if task.types else 2, token_pattern=r"\S+" if task.types else r"\w+")
        bag.fit(text[part] for text in sides["train"])
        for split, side in sides.items():
            bags[split].append(bag.transform(text[part] for text in side))
    return {split: sparse.hstack(parts).tocsr().astype(np.float32) for split, parts in bags.items()}
