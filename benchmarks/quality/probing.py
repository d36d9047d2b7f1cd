"""What each layer encodes about a text: probes of content lambdas, of hidden states, and of controls.

``python benchmarks/quality/probing.py MODEL --baseline ROTARY`` computes the features of all texts once, into files in
``--work``, and trains the probes. benchmarks/results/quality/probing.jsonl has a line per task, feature, layer and
seed, after a first line with the models and data. Run it again, and it resumes. benchmarks/quality/probing_report.py
prints the tables and draws the pictures.

The tasks and their rules are in probing_tasks.py; the data is not part of the repository. Features:

| feature | of each layer | dimension |
| --- | --- | --- |
| lambda | its content lambda, flattened | k v |
| lambda-small, lambda-values | the same, through random projections | C, v u |
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
from probing_classifiers import Split, control_labels, probe
from probing_examples import SPLITS, Group, Task
from probing_features import features, key_of, untrained
from probing_matrices import TEXT_FEATURES, available, matrix, rows_of, text_features
from probing_tasks import make_tasks

from fairseq_lambda.commands.inspect import open_model
from fairseq_lambda.inspection import Reader
from fairseq_lambda.inspection.reader import is_lambda_layer

RESULTS = measuring.ROOT / "benchmarks/results/quality/probing.jsonl"
DRAWN = 0.8  # share of the training examples that a seed draws


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
        x = {s: matrix(job.feature, job.layer, folder, rows_of(task, s, folder)) for s in SPLITS}
    labels = {split: np.array(task.labels[split]) for split in SPLITS}
    control = control_labels(labels, task.types, job.seed) if task.types else {}
    splits = {split: Split(x[split], labels[split], control.get(split)) for split in SPLITS}
    count = len(labels["train"])
    drawn = np.random.default_rng(job.seed).permutation(count)[: max(1, round(DRAWN * count))]
    splits["train"] = Split(x["train"][drawn], labels["train"][drawn], control["train"][drawn] if control else None)
    found = probe(splits, len(task.classes), job.seed)
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
    data, probing, corpus = (os.environ.get(name) or None for name in ("TASKS_DIR", "PROBING_DIR", "PROBING_CORPUS"))
    made.add_argument("model", help="folder of the model")
    made.add_argument("--baseline", help="folder of a model of attention layers, trained the same way (default: none)")
    made.add_argument("--data", type=Path, default=data, help="folder with ud_ewt and 20ng (TASKS_DIR)")
    made.add_argument("--probing", type=Path, default=probing, help="folder with bso (PROBING_DIR)")
    made.add_argument(
        "--corpus",
        type=Path,
        default=corpus,
        help="folder with train.txt or train.txt.xz, valid.txt, test.txt, for word_content and bigram_shift "
        "(PROBING_CORPUS; default: none, and these tasks use ud_ewt)",
    )
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
    groups, tasks = make_tasks(options.data, options.probing, most, options.corpus)
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
        "corpus": options.corpus and options.corpus.resolve().name,
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
