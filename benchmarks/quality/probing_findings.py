"""What follows from the lines of probing.py: differences with their intervals, and checks of the probes themselves."""

import statistics
from dataclasses import dataclass

import numpy as np
from probing_classifiers import unpacked
from probing_rows import Layers, best, by_layer, chance, mean, score, tasks_of
from scipy.stats import bootstrap

CHANCE_MARGIN = 20  # points above chance that a probe should reach, as was asked before the first run
STANDARD_ERRORS = 5  # by which swapped bigrams should be above chance and above the untrained model
RESAMPLES = 1000
LAMBDA, SMALL, EQUAL = "content lambda", "content lambda, C dim.", "content lambda, v u dim."
STATES, VALUES = "mean of states", "mean of values"
# what is compared with what, with its name in the sentences
GAPS = {
    "Content lambdas minus the mean of states": {"": (LAMBDA, STATES), "at C dimensions ": (SMALL, STATES)},
    "Content lambdas minus the mean of values": {
        "": (LAMBDA, VALUES),
        "untrained ": ("untrained lambda", "untrained values"),
        "at v u dimensions ": (EQUAL, VALUES),
        "untrained, at v u dimensions ": ("untrained lambda, v u dim.", "untrained values"),
    },
}


@dataclass(frozen=True)
class Gap:
    """A difference of test accuracies in points, and its 95 % interval; None if lines do not have ``right``."""

    points: float
    interval: tuple[float, float] | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def __str__(self) -> str:
        return f"{self.points:+.1f}" + (" ({:+.1f} to {:+.1f})".format(*self.interval) if self.interval else "")


def gap(one: Layers, other: Layers) -> Gap:
    """Return the difference at the layers that are best on dev, with a paired bootstrap over the test examples.

    An example counts with the share of seeds that got it right. So the interval is of the draw of test examples.
    """
    lines, others = best(one)[1], best(other)[1]
    points = mean(lines, "test") - mean(others, "test")
    if not all("right" in line for line in lines + others):
        return Gap(points, None)
    difference = 100 * (share_right(lines) - share_right(others))
    found = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return Gap(points, tuple(float(x) for x in found.confidence_interval))


def share_right(lines: list[dict]) -> np.ndarray:
    """Return for each test example the share of the lines that got it right."""
    return np.mean([unpacked(line["right"], line["examples"]["test"]) for line in lines], axis=0)


def answer(lines: list[dict]) -> str:
    """Return whether content lambdas tell more about a text than means do, also if the model is untrained."""
    sentences, intervals = [], True
    for what, pairs in GAPS.items():
        parts = []
        for condition, (one, other) in pairs.items():
            tasks = [by_layer(lines, task) for task in tasks_of(lines)]
            gaps = [gap(features[one], features[other]) for features in tasks if {one, other} <= features.keys()]
            if gaps:
                parts.append(f"{condition}{statistics.mean(g.points for g in gaps):+.1f} points, {_counts(gaps)}")
                intervals = intervals and all(g.interval for g in gaps)
        if parts:
            sentences.append(f"{what}: {'; '.join(parts)}.")
    if intervals:
        sentences.append("Better and worse: the 95 % interval of a paired bootstrap excludes 0.")
    return " ".join(sentences)


def _counts(gaps: list[Gap]) -> str:
    if not all(g.interval for g in gaps):
        return f"higher in {sum(g.points > 0 for g in gaps)} of {len(gaps)} tasks"
    better, worse = (sum(g.clear and sign * g.points > 0 for g in gaps) for sign in (1, -1))
    return f"better in {better} and worse in {worse} of {len(gaps)} tasks"


def standard_error(lines: list[dict]) -> float:
    """Return that of a test accuracy at chance, in points; seeds share their test examples."""
    p = chance(lines[0]) / 100
    return 100 * (p * (1 - p) / lines[0]["examples"]["test"]) ** 0.5


def checks(lines: list[dict]) -> list[tuple[str, bool]]:
    """Return what must hold if the probes work, and whether it does.

    Without absolute positions, the content lambda of layer 0 is a function of a bag of pieces, and a sentence with a
    swapped bigram has the same bag. The rule in standard errors was fixed before the first run that uses it.
    """
    found = []
    words, bigrams = by_layer(lines, "word_content"), by_layer(lines, "bigram_shift")
    if 0 in words.get(LAMBDA, {}):
        found.append(_far_above("word_content, content lambda of layer 0", words[LAMBDA][0]))
    if 0 in bigrams.get(LAMBDA, {}):
        layer = bigrams[LAMBDA][0]
        reached, at = mean(layer, "test"), chance(layer[0])
        what = f"bigram_shift, content lambda of layer 0: {reached:.1f} %, wanted at chance ({at:.1f} %)"
        found.append((what, abs(reached - at) <= 3 * standard_error(layer)))
    if STATES in bigrams:
        index, layer = best(bigrams[STATES])
        name = f"bigram_shift, mean of states of layer {index}"
        found.append(_far_above(name, layer))
        others = {"chance": (chance(layer[0]), 1)}
        if "untrained states" in bigrams:
            others["the untrained model"] = (score(bigrams["untrained states"]), 2**0.5)  # both have an error
        for other, (at, errors) in others.items():
            above = (mean(layer, "test") - at) / (errors * standard_error(layer))
            wanted = f"wanted {STANDARD_ERRORS} above {other} ({at:.1f} %)"
            found.append((f"{name}: {above:.1f} standard errors, {wanted}", above >= STANDARD_ERRORS))
    return found


def _far_above(name: str, layer: list[dict]) -> tuple[str, bool]:
    reached, at = mean(layer, "test"), chance(layer[0])
    what = f"{name}: {reached:.1f} %, wanted {CHANCE_MARGIN} points above chance ({at:.1f} %)"
    return what, reached >= at + CHANCE_MARGIN


def notes(lines: list[dict]) -> list[str]:
    """Return what a reader of the tables should know: tasks that length solves, grids that may be too small."""
    found = []
    for task in tasks_of(lines):
        features = by_layer(lines, task)
        if {LAMBDA, "length alone"} <= features.keys():
            beyond = gap(features[LAMBDA], features["length alone"])
            if beyond.points <= 0 or (beyond.interval and not beyond.clear):
                found.append(f"{task}: length alone does as well as content lambdas, {beyond} points between them.")
    chosen = [line for line in lines if "edge" in line]
    for key, value, what in (
        ("edge", True, "the strength of the regularisation is the first or last that was tried"),
        ("converged", False, "the training reached its last iteration"),
    ):
        counts = {task: sum(x[key] is value for x in chosen if x["task"] == task) for task in tasks_of(chosen)}
        if sum(counts.values()):
            of_tasks = ", ".join(f"{task} {count}" for task, count in counts.items() if count)
            found.append(f"In {sum(counts.values())} of {len(chosen)} probes {what}: {of_tasks}.")
    return found
