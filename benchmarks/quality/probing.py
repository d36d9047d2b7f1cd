"""What each layer encodes about a text: probes of content lambdas, of hidden states, and of controls.

``python benchmarks/quality/probing.py MODEL --baseline ROTARY`` computes the features of all texts once, into files in
``--work``, and trains the probes. benchmarks/results/quality/probing.jsonl has a line per task, feature, layer and
seed, after a first line with the models and data. Run it again, and it resumes. benchmarks/quality/probing_report.py
prints the tables and draws the pictures.

The tasks and their rules are in probing_tasks.py; the data is not part of the repository. Features:

| feature | of each layer | dimension |
| --- | --- | --- |
| lambda | its content lambda, flattened | k v |
| lambda-small | the same, through a random projection | C |
| values | the mean of its values V over the tokens: a content lambda with uniform keys | v u |
| mean | the mean over the tokens of the hidden states that it reads; above the top layer, of those that it writes | C |
| mean-wide | the same, through a random projection | k v |
| first | the state of <s> | C |

All are standardised, and so centred over the texts. ``part_of_speech`` uses the ``states`` and ``values`` of a word's
pieces. The model is compared with ``untrained``, its architecture with new weights; ``baseline``, a model of softmax
layers that was trained in the same way; and the texts themselves, as ``bag of words`` and as their ``length``.
"""

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import numpy as np
from probing_classifiers import Split, majority, probe, shuffled
from probing_features import features, key_of, projection, rows_of, untrained
from probing_tasks import SPLITS, Group, Task, make_tasks

from fairseq_lambda.commands.inspect import open_model
from fairseq_lambda.inspection import Reader
from fairseq_lambda.inspection.reader import is_lambda_layer

RESULTS = measuring.ROOT / "benchmarks/results/quality/probing.jsonl"
DRAWN = 0.8  # share of the training examples that a seed draws
TEXT_FEATURES = ("bag of words", "length")


@dataclass(frozen=True)
class Job:
    """A probe of a model's feature at a layer, or of the texts themselves (``model`` "text", ``layer`` 0)."""

    task: str
    model: str
    feature: str
    layer: int
    seed: int


def jobs_of(task: Task, models: dict[str, Path], seeds: int) -> list[Job]:
    """Return the probes of a task, given each model's folder with the features of its texts."""
    found = []
    for model, folder in models.items():
        for feature, layers in available(folder, model).items():
            found += [(model, feature, layer) for layer in layers]
    found += [("text", feature, 0) for feature in TEXT_FEATURES if feature != "length" or not task.types]
    return [Job(task.name, *what, seed) for seed in range(1, seeds + 1) for what in found]


def available(folder: Path, model: str) -> dict[str, range]:
    """Return the features of a folder, and the layers that each has."""
    layers = {
        path.stem: np.load(path, mmap_mode="r").shape[1] for path in folder.glob("*.npy") if path.stem != "offsets"
    }
    found = {name: range(count) for name, count in layers.items()}
    if "first" in found:  # in the embeddings it may be the same for all texts
        found["first"] = range(1, layers["first"])
    if model == "model" and "lambda" in found:
        found["lambda-small"], found["mean-wide"] = found["lambda"], found["lambda"]
    return found


def matrix(job: Job, folder: Path, rows: np.ndarray) -> np.ndarray:
    """Return the features (rows, dimension) of a job, float32."""
    stored = {"lambda-small": "lambda", "mean-wide": "mean"}.get(job.feature, job.feature)
    array = np.load(folder / f"{stored}.npy", mmap_mode="r")[rows, job.layer].astype(np.float32)
    if stored == job.feature:
        return array
    other = np.load(folder / ("mean.npy" if stored == "lambda" else "lambda.npy"), mmap_mode="r").shape[2]
    return array @ projection(array.shape[1], other)


def text_features(feature: str, group: Group, task: Task) -> dict[str, np.ndarray]:
    """Return "bag of words", counts of words that occur in two training texts, or "length": words and characters."""
    if task.types:
        chosen = task.types
    else:
        chosen = {split: [group.texts[row] for row in rows] for split, rows in task.rows.items()}
    sides = [[text if isinstance(text, tuple) else (text,) for text in chosen[split]] for split in SPLITS]
    count = len(sides[0][0])
    if feature == "length":
        made = [
            [[float(n) for part in text for n in (len(part.split()), len(part))] for text in side] for side in sides
        ]
        return dict(zip(SPLITS, (np.array(rows, dtype=np.float32) for rows in made), strict=True))
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    columns = []
    for part in range(count):  # each text of a pair has its own bag
        bag = CountVectorizer(min_df=1 if task.types else 2, token_pattern=r"\S+" if task.types else r"\w+")
        train, *others = ([text[part] for text in side] for side in sides)
        columns.append([bag.fit_transform(train), *(bag.transform(texts) for texts in others)])
    joined = [sparse.hstack(parts).tocsr().astype(np.float32) for parts in zip(*columns, strict=True)]
    return dict(zip(SPLITS, joined, strict=True))


_TASKS: dict[str, Task] = {}  # of a worker process
_GROUPS: dict[str, Group] = {}
_FOLDERS: dict[str, dict[str, Path]] = {}


def _start_worker(tasks: dict, groups: dict, folders: dict) -> None:
    _TASKS.update(tasks)
    _GROUPS.update(groups)
    _FOLDERS.update(folders)


def run_job(job: Job) -> dict:
    """Return the line of a probe."""
    begin = time.monotonic()
    task = _TASKS[job.task]
    if job.model == "text":
        x = text_features(job.feature, _GROUPS[task.group], task)
    else:
        folder = _FOLDERS[task.group][job.model]
        x = {split: matrix(job, folder, rows_of(task, split, folder)) for split in SPLITS}
    labels = {split: np.array(task.labels[split]) for split in SPLITS}
    control = shuffled(labels, task.types, job.seed)
    splits = {split: Split(x[split], labels[split], control[split]) for split in SPLITS}
    count = len(labels["train"])
    drawn = np.random.default_rng(job.seed).permutation(count)[: max(1, round(DRAWN * count))]
    splits["train"] = Split(x["train"][drawn], labels["train"][drawn], control["train"][drawn])
    found = probe(splits, len(task.classes), job.seed)
    found |= {"classes": len(task.classes), "majority": round(majority(labels["train"], labels["test"]), 2)}
    return asdict(job) | found | {"seconds": round(time.monotonic() - begin, 2)}


def read_lines(path: Path) -> tuple[dict, list[dict]]:
    """Return the first line of the results, with the models and data, and the probes' lines; nothing without a file.

    A last line that was cut off by a kill is left out.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return (lines[0], lines[1:]) if lines else ({}, [])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data, probing = (os.environ.get(name) for name in ("TASKS_DIR", "PROBING_DIR"))
    made.add_argument("model", help="folder of the model")
    made.add_argument("--baseline", help="folder of a model of attention layers, trained the same way (default: none)")
    made.add_argument("--data", type=Path, default=data, help="folder with ud_ewt and 20ng (TASKS_DIR)")
    made.add_argument("--probing", type=Path, default=probing, help="folder with bso (PROBING_DIR)")
    made.add_argument("--work", type=Path, default=Path("checkpoints/probing"), help="feature folder (%(default)s)")
    made.add_argument("--out", type=Path, default=RESULTS, help="file of JSON lines (%(default)s)")
    made.add_argument("--tasks", nargs="*", metavar="TASK", help="the tasks to run (default: all)")
    made.add_argument("--seeds", type=int, default=3, help="number of seeds (%(default)s)")
    made.add_argument("--train", type=int, default=6000, help="most training examples per task (%(default)s)")
    made.add_argument("--heldout", type=int, default=2000, help="most dev and test examples, each (%(default)s)")
    made.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (%(default)s)")
    return made


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    try:
        run(options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    """Compute the missing features, and train the probes that have no line yet.

    Raises:
        ValueError: no data, no such task, or lines of other models or data.
    """
    for flag, value in (("--data", options.data), ("--probing", options.probing)):
        if value is None:
            raise ValueError(f"{flag} names no folder: give it, or set the variable that --help names")
    begin = time.monotonic()
    most = {"train": options.train, "dev": options.heldout, "test": options.heldout}
    groups, tasks = make_tasks(options.data, options.probing, most)
    if unknown := {*(options.tasks or ())} - {task.name for task in tasks}:
        raise ValueError(f"--tasks {' '.join(sorted(unknown))}: choose from {', '.join(task.name for task in tasks)}")
    digest = hashlib.sha256(repr([groups, tasks]).encode()).hexdigest()[:16]
    tasks = [task for task in tasks if not options.tasks or task.name in options.tasks]
    groups = {group.name: group for group in groups if any(task.group == group.name for task in tasks)}

    models = open_models(options)
    names = {"model": options.model, "baseline": options.baseline}
    wanted = {
        "names": {name: Path(folder).resolve().name for name, folder in names.items() if folder},
        "weights": {name: key_of(reads, Group("", [])) for name, reads in models.items()},
        "lambda_layers": [i for i, mixing in enumerate(models["model"].mixings) if is_lambda_layer(mixing)],
        "examples": digest,  # of all texts and labels
        "train": options.train,
        "heldout": options.heldout,
    }
    header, lines = read_lines(options.out)
    if header and (other := {k: header.get(k) for k in wanted if header.get(k) != wanted[k]}):
        raise ValueError(f"{options.out} contains probes of {other}: choose another --out, or remove it")
    header = header or wanted | {"setting": measuring.setting("cpu", options.seeds)}
    measuring.write_lines(options.out, [header, *lines])
    folders = compute_features(models, groups, options.work)
    say(f"features: {time.monotonic() - begin:.0f} s")

    done = {tuple(line[k] for k in Job.__dataclass_fields__) for line in lines}
    jobs = [job for task in tasks for job in jobs_of(task, folders[task.group], options.seeds)]
    jobs = [job for job in jobs if tuple(asdict(job).values()) not in done]
    jobs.sort(key=lambda job: job.seed)  # so that there is a complete table after a third of the time
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # workers read it when they start
    initial = ({task.name: task for task in tasks}, groups, folders)
    spawn = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang
    with (
        concurrent.futures.ProcessPoolExecutor(options.workers, spawn, _start_worker, initial) as pool,
        options.out.open("a", encoding="utf-8") as file,
    ):
        for count, line in enumerate(pool.map(run_job, jobs), 1):
            file.write(json.dumps(line) + "\n")
            file.flush()
            if count % 20 == 0 or count == len(jobs):
                say(f"probes: {count} of {len(jobs)}, {time.monotonic() - begin:.0f} s")


def open_models(options: argparse.Namespace) -> dict[str, Reader]:
    """Return the model, an untrained copy, and the baseline if there is one."""
    model = open_model(options.model)
    models = {"model": model, "untrained": untrained(model, seed=1)}
    return models | ({"baseline": open_model(options.baseline)} if options.baseline else {})


def compute_features(models: dict[str, Reader], groups: dict[str, Group], work: Path) -> dict[str, dict[str, Path]]:
    """Return the folder of features of each group and model."""
    last = [0.0]

    def progress(message: str) -> None:
        if time.monotonic() - last[0] > 10:
            last[0] = time.monotonic()
            say(message)

    return {
        name: {m: features(reads, group, work, progress) for m, reads in models.items()}
        for name, group in groups.items()
    }


say = measuring.say

if __name__ == "__main__":
    main()
