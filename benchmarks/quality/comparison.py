"""A comparison: a YAML file that says which models are trained, and a file of JSON lines with what came of each run."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measuring
import yaml

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results/quality"


@dataclass(frozen=True)
class Run:
    model: str
    lr: str
    seed: int
    size: str
    updates: int
    flags: dict
    trunk: str | None = None  # the model whose training this one continues,
    start: int = 0  # after so many updates
    branches: tuple[int, ...] = ()  # the updates after which others branch off

    @property
    def folder(self) -> str:
        return f"{self.model.replace(',', '').replace(' ', '-')}-lr{self.lr}-seed{self.seed}"

    @property
    def trunk_folder(self) -> str:
        return Run(self.trunk, self.lr, self.seed, self.size, 0, {}).folder

    def command_line(self) -> list[str]:
        """Return the flags of scripts/train_lambda_bert.sh; ``true`` stands for a flag without a value."""
        flags = {"updates": self.updates, **self.flags, "lr": self.lr, "seed": self.seed}
        return [str(word) for name, value in flags.items() for word in (f"--{name}", value) if word is not True]


@dataclass(frozen=True)
class Comparison:
    """What a YAML file in comparisons/ says.

    Args:
        title: the picture's title, the one thing that it shows.
        size: of the recipe, such as mini.
        updates: of each run.
        lr: one learning rate, or a list: all are run with a model's first seed, and the best with its other seeds.
        seeds: a list.
        baseline: the model that the others are measured against.
        models: name to flags of scripts/train_lambda_bert.sh; ``updates``, ``lr`` and ``seeds`` may be a model's own.
            ``trunk`` names another model, listed before, whose flags this one has, and whose training it shares up to
            the decay of its learning rate.
        flags: of all models.
        lengths: how many tokens to read at once: the same validation tokens, with more or less around them.
        draw: the models in the picture; no picture if there are none.
        order_title: the title of a second picture, of sentence-order accuracy against updates; None: no such picture.
        warmup: updates in which the learning rate rises, if ``decay`` is given.
        decay: the share of the updates, at the end, in which the learning rate falls; before, it is constant. So a run
            of any length can share another's updates up to its own decay. None: the schedule of the recipe.
    """

    title: str
    size: str
    updates: int
    lr: str | list
    seeds: list
    baseline: str
    models: dict
    flags: dict = field(default_factory=dict)
    lengths: list = field(default_factory=list)
    draw: list = field(default_factory=list)
    order_title: str | None = None
    warmup: int = 1000
    decay: float | None = None

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Return the comparison of a file.

        Raises:
            ValueError: it names something that does not exist.
        """
        try:
            comparison = cls(**yaml.safe_load(path.read_text(encoding="utf-8")))
        except (TypeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: {error}") from error
        for name in (comparison.baseline, *comparison.draw):
            if name not in comparison.models:
                raise ValueError(f"{path}: no model '{name}' among {'; '.join(comparison.models)}")
        names = list(comparison.models)
        for place, (name, own) in enumerate(comparison.models.items()):
            trunk = (own or {}).get("trunk")
            if trunk is not None and (trunk not in names[:place] or comparison.decay is None):
                raise ValueError(f"{path}: '{name}' needs its trunk '{trunk}' listed before it, and decay")
        return comparison

    @property
    def trunks(self) -> set[str]:
        """The models that exist only for others to continue."""
        return {own["trunk"] for own in self.models.values() if own and "trunk" in own}

    def start(self, updates: int) -> int:
        """Return after how many of its updates a training's learning rate begins to fall."""
        return updates - round(updates * self.decay)

    def schedule(self, updates: int, is_trunk: bool) -> dict:
        """Return the flags of the learning rate's schedule."""
        if self.decay is None:
            return {}
        constant = (updates if is_trunk else self.start(updates)) - self.warmup
        decay = 1 if is_trunk else updates - self.start(updates)  # fairseq divides by it
        stages = {"warmup-steps": self.warmup, "hold-steps": constant, "decay-steps": decay}
        return {"lr-scheduler": "tri_stage", **stages}

    @property
    def options(self) -> dict[str, dict]:
        """The options of each model, with those that it inherits."""
        options = {}
        for name, own in self.models.items():
            inherited = options[own["trunk"]] if own and "trunk" in own else {"lr": self.lr, "seeds": self.seeds}
            options[name] = {**inherited, **(own or {})}
        return options

    def rounds(self, results: "Results", models: Sequence[str] = (), seeds: Sequence[int] = ()) -> Iterator[list[Run]]:
        """Yield the runs, seed by seed; if models or seeds are given, only theirs.

        The learning rate of a later seed may depend on the results of the first: ask for the next round when this one
        has ended.
        """
        options = self.options

        def ends(trunk: str) -> tuple[int, ...]:
            """Return where others branch off from this model, if any do."""
            of = [own for own in options.values() if own.get("trunk") == trunk]
            return tuple(sorted({self.start(own.get("updates", self.updates)) for own in of}))

        for seed in sorted({seed for own in options.values() for seed in own["seeds"]}):
            if seeds and seed not in seeds:
                continue
            chosen = [n for n, own in options.items() if seed in own["seeds"] and (not models or n in models)]
            yield [run for name in chosen for run in self.runs_of(name, options[name], seed, ends(name), results)]

    def runs_of(self, name: str, options: dict, seed: int, ends: tuple[int, ...], results: "Results") -> Iterator[Run]:
        """Yield a model's runs of one seed, one per learning rate; others branch off after ``ends`` updates."""
        rates = options["lr"] if isinstance(options["lr"], list) else [options["lr"]]
        if len(rates) > 1 and seed != options["seeds"][0]:
            rates = [results.best_rate(name, options["seeds"][0])]
        own = {key: value for key, value in options.items() if key not in ("lr", "seeds", "updates", "trunk")}
        updates = ends[-1] if ends else options.get("updates", self.updates)
        flags = {**self.flags, **self.schedule(updates, bool(ends)), **own}
        trunk = options.get("trunk")
        start = self.start(updates) if trunk else 0
        for lr in rates:
            yield Run(name, str(lr), seed, self.size, updates, flags, trunk, start, ends)


class Results:
    """A file of JSON lines, one per run. A line without ``scores`` belongs to a run that has not ended."""

    def __init__(self, path: Path):
        self.path = path
        self.writing = threading.Lock()

    @property
    def lines(self) -> list[dict]:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def finished(self, run: Run, data: str) -> bool:
        """Return whether the run has ended.

        Raises:
            ValueError: it is there, finished or not, but made with other flags.
        """
        wanted = {"size": run.size, "updates": run.updates, "flags": run.flags, "data": data}
        for line in self.lines:
            if same_run(line, run):
                if other := {key: line[key] for key in wanted if line[key] != wanted[key]}:
                    wants = {key: wanted[key] for key in other}
                    raise ValueError(
                        f"{self.path} holds {run.folder} with {other}, not {wants}: delete its line and the folder of "
                        "its checkpoints, or give the model another name"
                    )
                return "scores" in line
        return False

    def put(self, run: Run, values: dict) -> None:
        """Write the line of a run, replacing an earlier one."""
        known = {key: getattr(run, key) for key in ("model", "lr", "seed", "size", "updates", "flags")}
        with self.writing:
            lines = self.lines
            place = next((i for i, line in enumerate(lines) if same_run(line, run)), len(lines))
            lines[place : place + 1] = [known | values]
            measuring.write_lines(self.path, lines)

    def best_rate(self, model: str, seed: int) -> str:
        """Return the learning rate with the lowest validation loss among the model's finished runs of this seed.

        Raises:
            ValueError: there is none.
        """
        runs = [x for x in self.lines if (x["model"], x["seed"]) == (model, seed) and "scores" in x]
        if not runs:
            raise ValueError(f"{self.path}: no finished run of {model} with seed {seed}, which chooses its --lr")
        return min(runs, key=lambda line: line["scores"]["valid"]["mlm_loss"])["lr"]


def same_run(line: dict, run: Run) -> bool:
    return (line["model"], line["lr"], line["seed"]) == (run.model, run.lr, run.seed)


def open_comparison(name: str) -> tuple[Comparison, Results]:
    """Return a comparison, by its name in comparisons/ or the path of a YAML file, and its results."""
    path = Path(name) if name.endswith(".yaml") else HERE / f"comparisons/{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in (HERE / "comparisons").glob("*.yaml")))
        raise ValueError(f"{name}: neither a YAML file nor one of {names}")
    return Comparison.read(path), Results(RESULTS / f"{path.stem}.jsonl")
