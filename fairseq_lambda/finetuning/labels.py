"""What a task predicts: its objective, and the names of its labels in the order of the model's outputs."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fairseq_lambda.finetuning.examples import Example, Source, natural_order
from fairseq_lambda.finetuning.tables import shown

OBJECTIVES = ("classification", "multilabel", "regression", "tagging")
FILE = "labels.json"
MOST_SHOWN = 20
ANY = 0  # as the number of texts: not known
NO_LABEL = -1  # of a piece that does not start a word


@dataclass
class Labels:
    """The outputs of a model.

    Args:
        objective: ``classification`` (one label per text), ``multilabel`` (any number), ``regression`` (a number) or
            ``tagging`` (a label per word).
        names: the labels, in the order of the outputs; empty for regression.
        texts: how many texts make a sample, 1 or 2, or ``ANY``.
        counts: how often each name occurs in training, for class weights.
        examples: texts in training.
        mean, deviation: of a regression's targets in training; the model predicts (target - mean) / deviation.
    """

    objective: str
    names: list[str]
    texts: int = 1
    counts: list[int] | None = None
    examples: int = 0
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self):
        self.names, self.counts = list(self.names), list(self.counts or [])
        self._index = {name: index for index, name in enumerate(self.names)}

    @property
    def outputs(self) -> int:
        """Return how many numbers the model's head gives for a text, or for a word."""
        return len(self.names) or 1

    def state(self) -> dict:
        """Return plain values, for a checkpoint; ``Labels(**state)`` restores them."""
        return asdict(self)

    def target(self, example: Example, name: str):
        """Return what the model has to predict: an index, a float, a list of 0 and 1, or an index per word.

        Raises:
            ValueError: a label that does not occur in training, or an example of another kind, such as a pair among
                single texts; the message has the file ``name`` and the line.
        """
        _check_kind(example, name, self.objective == "tagging", self.texts, self.objective == "multilabel")
        if self.objective == "regression":
            return (_number(example, name) - self.mean) / self.deviation
        wanted = [example.label] if isinstance(example.label, str) else example.label
        unknown = next((label for label in wanted if label not in self._index), None)
        if unknown is not None:
            known = ", ".join(self.names[:MOST_SHOWN]) + (", ..." if len(self.names) > MOST_SHOWN else "")
            raise ValueError(
                f"{name}, line {example.line}: the label {shown(unknown)} is not in training, which has {known}: "
                "correct it, or list all names with --labels"
            )
        if self.objective == "multilabel":
            return [int(label in wanted) for label in self.names]
        found = [self._index[label] for label in wanted]
        return found if self.objective == "tagging" else found[0]

    @property
    def spans(self) -> bool:
        """Return whether the names are those of spans: ``B-X``, ``I-X`` and so on, and ``O`` outside."""
        return any(name.startswith(("B-", "S-")) for name in self.names) and all(
            name == "O" or name[:2] in ("B-", "I-", "E-", "S-") for name in self.names
        )

    def save(self, folder: Path, made_of: dict) -> None:
        text = json.dumps({**self.state(), "made_of": made_of}, indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple["Labels", dict]:
        """Return the labels of a data folder, and what it was made from.

        Raises:
            FileNotFoundError, ValueError: no such file, or not one made by lambda-bert finetune.
        """
        path = Path(folder) / FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            made_of = state.pop("made_of", {})
            return cls(**state), made_of
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}): make the folder again with lambda-bert finetune") from error


def learn_labels(source: Iterable[Example], name: str, objective: str | None, names: list[str] | None) -> Labels:
    """Return the labels of a training file, read once.

    Args:
        source: its examples.
        name: of the file, for errors.
        objective: one of ``OBJECTIVES``; default: tagging for words, multilabel for lists, else classification.
        names: all labels, in the order of the outputs; default: those that occur, sorted by :func:`natural_order`.

    Raises:
        ValueError: no examples; examples of several kinds, or labels that do not fit the objective; only one label; or
            nearly as many as examples.
    """
    asked, counts = objective, Counter()
    examples, mean, squares = 0, 0.0, 0.0
    for example in source:
        if not examples:
            first = (example.words is not None, max(len(example.texts), 1), isinstance(example.label, list))
            kind = "tagging" if example.words is not None else "multilabel" if isinstance(example.label, list) else None
            objective = objective or kind or "classification"
            if (objective == "tagging") != (kind == "tagging") or (objective == "multilabel") != (kind == "multilabel"):
                needs = {"tagging": "words with a label each", "multilabel": "a list of labels: --label-separator"}
                raise ValueError(f"{name}: --objective {objective} needs {needs.get(objective, 'one label per text')}")
        _check_kind(example, name, *first)
        examples += 1
        if objective == "regression":  # Welford's way: with sums of squares, a small spread of large targets is lost
            value = _number(example, name)
            before, mean = mean, mean + (value - mean) / examples
            squares += (value - before) * (value - mean)
        else:
            counts.update([example.label] if isinstance(example.label, str) else example.label)
    if not examples:
        raise ValueError(f"{name} is empty")
    if objective == "regression":
        deviation = math.sqrt(squares / examples)
        if deviation < 1e-12 * max(abs(mean), 1):
            raise ValueError(f"{name}: all targets are {mean:g}: there is nothing to learn")
        return Labels(objective, [], first[1], None, examples, mean, deviation)
    if unlisted := [label for label in counts if names and label not in names]:
        raise ValueError(f"{name} has the label {shown(unlisted[0])}, which is not in --labels")
    if len(counts) < 2 and objective != "multilabel":
        raise ValueError(f"{name} has only one label, {shown(next(iter(counts)))}: a model can learn nothing from it")
    if not counts:
        raise ValueError(f"{name} has no labels at all")
    if asked is None and objective == "classification" and all(map(_is_decimal, counts)):
        raise ValueError(
            f"{name} has numbers as labels, such as {shown(next(iter(counts)))}: add --objective regression, or "
            "--objective classification if they are names"
        )
    if objective == "classification" and len(counts) > max(20, examples // 3):
        raise ValueError(
            f"{name} has {len(counts):,} labels in {examples:,} lines, such as {shown(next(iter(counts)))}: name the "
            "right column with --label, or choose --objective regression for numbers"
        )
    names = names or natural_order(counts)
    return Labels(objective, names, first[1], [counts[label] for label in names], examples)


def _check_kind(example: Example, name: str, words: bool, texts: int, several: bool) -> None:
    """Raise ValueError if an example is not of the kind of the training data."""

    def kind(words: bool, texts: int, several: bool) -> str:
        if words:
            return "words with a label each"
        return f"{'two texts' if texts == 2 else 'one text'} with {'a list of labels' if several else 'one label'}"

    wanted = kind(words, len(example.texts) if texts == ANY else texts, several)
    found = kind(example.words is not None, len(example.texts), isinstance(example.label, list))
    if found != wanted:
        raise ValueError(
            f"{name}, line {example.line} has {found}, but training starts with {wanted}: correct it, or see --text, "
            "--label and --label-separator"
        )


def _number(example: Example, name: str) -> float:
    try:
        value = float(example.label)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name}, line {example.line}: {shown(example.label)} is not a number, which regression needs")
    return value


def _is_decimal(label: str) -> bool:
    """Return whether a label is a number with a decimal point, such as 3.8: a score, not a name."""
    return re.fullmatch(r"-?\d+\.\d+", label) is not None


def divide(count: int, fraction: float, seed: int) -> np.ndarray:
    """Return which of ``count`` examples are for validation, (count,) bool: a share ``fraction``, drawn by ``seed``."""
    chosen = np.random.default_rng([seed, count]).permutation(count)[: min(max(round(count * fraction), 1), count - 1)]
    held_out = np.zeros(count, dtype=bool)
    held_out[chosen] = True
    return held_out


def part(source: Source, held_out: np.ndarray | None, wanted: bool) -> Iterator[Example]:
    """Yield the examples of a file that are held out (or not); all of them if nothing is."""
    for index, example in enumerate(source):
        if held_out is None or bool(held_out[index]) == wanted:
            yield example
