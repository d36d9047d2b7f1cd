"""What a comparison of :mod:`quality` consists of: its YAML file, the runs that this names, and their results."""

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fairseq_lambda.commands.evaluate import write_whole


@dataclass(frozen=True)
class Comparison:
    """What a YAML file in benchmarks/comparisons says; flags are those of scripts/train_lambda_bert.sh without ``--``.

    Args:
        title: a line for the table.
        size: of the recipe, such as mini.
        updates: of each run; a model may have its own.
        every: updates between validations.
        lr: the grid of learning rates, the same for all models, as strings; a model may have its own.
        seeds: the first for the grid, all of them at the best rate.
        models: name to flags; ``true`` stands for a flag without a value.
        baselines: the models that the others are measured against, one table each; the first heads the scores.
        flags: of all models.
        lengths: evaluate with samples of these many tokens too, without training again.
        draws: of pairs and masks, at each of these lengths.
        brief: the models of the short table and its picture, all if there are none.
    """

    title: str
    size: str
    updates: int
    every: int
    lr: list
    seeds: list
    models: dict
    baselines: list
    flags: dict = field(default_factory=dict)
    lengths: list = field(default_factory=list)
    draws: int = 1
    brief: list = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        try:
            comparison = cls(**yaml.safe_load(path.read_text(encoding="utf-8")))
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
        for name in comparison.baselines + comparison.brief:
            if name not in comparison.models:
                raise ValueError(f"{path}: {name} of baselines or brief is none of {', '.join(comparison.models)}")
        return comparison

    def runs(self, seed: int) -> list["Run"]:
        """Return the runs of all models over the grid, models in turns."""
        grids = {name: flags.get("lr", self.lr) for name, flags in self.models.items()}
        grids = {name: grid if isinstance(grid, list) else [grid] for name, grid in grids.items()}
        longest = max(map(len, grids.values()))
        return [self.run(name, grid[i], seed) for i in range(longest) for name, grid in grids.items() if i < len(grid)]

    def run(self, model: str, lr: str, seed: int) -> "Run":
        flags = {"validate-interval-updates": self.every, **self.flags, **self.models[model]}
        updates = flags.pop("updates", self.updates)
        flags |= {"lr": lr, "seed": seed}
        words = [w for name, value in flags.items() for w in (f"--{name}", value) if w is not True]
        return Run(model, str(lr), seed, updates, tuple(map(str, words)))


@dataclass(frozen=True)
class Run:
    model: str
    lr: str
    seed: int
    updates: int
    flags: tuple

    @property
    def name(self) -> str:
        return f"{self.model}-lr{self.lr}-seed{self.seed}"


class Results:
    """The JSON file of a comparison: runs by name, curves of unfinished ones, and times of an update if measured."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.runs, self.timing = content.get("runs", {}), content.get("timing")
        self.unfinished = content.get("unfinished", {})

    def has(self, run: Run) -> bool:
        """Return whether the run is there.

        Raises:
            ValueError: it is there, but made with other flags.
        """
        found = self.runs.get(run.name)
        if found is None:
            return False
        if (found["updates"], pairs_of(found["flags"])) != (run.updates, pairs_of(run.flags)):
            raise ValueError(
                f"{self.path} holds {run.name} made with {' '.join(found['flags'])} ({found['updates']} updates), not "
                f"{' '.join(run.flags)} ({run.updates} updates): take it out of the file, or name the model otherwise"
            )
        return True

    def elsewhere(self, run: Run, comparison: Comparison, data: str) -> dict | None:
        """Return the same run as another comparison beside this file made it, under this one's name of the model."""
        wanted = (comparison.size, data, run.updates, pairs_of(run.flags))
        for path in sorted(self.path.parent.glob("*.json")):
            for found in Results(path).runs.values():
                made = (found["size"], found["data"], found["updates"], pairs_of(found["flags"]))
                if path != self.path and made == wanted and fits(found["lengths"], comparison):
                    lengths = {str(n): found["lengths"][str(n)] for n in comparison.lengths}
                    return {**found, "model": run.model, "lengths": lengths}
        return None

    def add(self, run: Run, report: dict, comparison: Comparison) -> None:
        with self.lock:
            self.runs[run.name] = report
            self.unfinished.pop(run.name, None)
            self.write(comparison)

    def add_unfinished(self, run: Run, curve: list[dict], comparison: Comparison) -> None:
        with self.lock:
            known = {"model": run.model, "lr": run.lr, "seed": run.seed, "updates": run.updates}
            self.unfinished[run.name] = known | {"curve": curve}
            self.write(comparison)

    def write(self, comparison: Comparison) -> None:
        content = {"title": comparison.title, "runs": dict(sorted(self.runs.items()))}
        rest = {"unfinished": dict(sorted(self.unfinished.items())), "timing": self.timing}
        content |= {key: value for key, value in rest.items() if value}
        write_whole(self.path, json.dumps(content, indent=1) + "\n")

    def best_rate(self, model: str, seed: int) -> str:
        """Return the learning rate with the lowest validation loss among the model's runs of this seed.

        Raises:
            ValueError: there are none.
        """
        runs = [r for r in self.runs.values() if r["model"] == model and r["seed"] == seed]
        if not runs:
            raise ValueError(
                f"{self.path} has no run of {model} with seed {seed}, by which its learning rate is chosen"
            )
        return min(runs, key=lambda r: r["splits"]["valid"]["mlm_loss"])["lr"]


def pairs_of(flags: list | tuple) -> list[str]:
    """Return each flag with its value, in an order that does not depend on the YAML file's."""
    return sorted(pair.strip() for pair in " ".join(flags).split("--"))


def precision_of(log: str) -> str:
    """Return what the commands in ``log`` train in, which the script chooses by the machine."""
    names = {"none": "float32"}
    return " and ".join(dict.fromkeys(names.get(word, word) for word in re.findall(r"--autocast (\w+)", log)))


def fits(lengths: dict, comparison: Comparison) -> bool:
    """Return whether all the lengths were read, with as many draws of masks."""
    return all(len(lengths.get(str(n), {}).get("draws", [])) == comparison.draws for n in comparison.lengths)
