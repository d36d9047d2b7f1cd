"""Fine-tunes pretrained models on labelled tasks, and compares them with controls: JSON lines, a table, a picture.

    python benchmarks/quality/tasks.py --data TASKS --model lambda=checkpoints/my-run --model rotary=checkpoints/other
    python benchmarks/quality/tasks.py --report

TASKS is a folder with the tasks of benchmarks/quality/tasks.yaml, as distributed by their sources. For each model and
task, every learning rate is run with the first seed, and the one that is best on the validation data with the others.
The test file is scored once per run, at its end. Controls are the same architecture without pretraining for each model
(``--no-untrained``: none), the majority, and a bag of words with logistic regression, or for tags each word's most
frequent one. The same command resumes: runs with a line in the results are skipped, and interrupted ones continue.
"""

import argparse
import functools
import itertools
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import bags_of_words
import measuring
import torch
import yaml
from comparison import HERE, RESULTS

from fairseq_lambda.checkpointing.exported import CONFIG, find_checkpoint, write_exported
from fairseq_lambda.commands.export import export
from fairseq_lambda.commands.score_tables import TITLES
from fairseq_lambda.corpora.opening import TextFile
from fairseq_lambda.files import sha256, whole, whole_folder
from fairseq_lambda.finetuning.metrics import NOT_PERCENT
from fairseq_lambda.models import LambdaBertModel

CONTROLS = ("majority", "bag of words")
UNTRAINED = "not pretrained"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def read_tasks(only: str | None) -> dict[str, dict]:
    """Return the tasks of tasks.yaml by name.

    Raises:
        ValueError: a name in ``only`` is unknown.
    """
    tasks = yaml.safe_load((HERE / "tasks.yaml").read_text(encoding="utf-8"))
    chosen = only.split(",") if only else list(tasks)
    unknown = [name for name in chosen if name not in tasks]
    if unknown:
        raise ValueError(f"--only {only}: no task '{unknown[0]}' among {', '.join(tasks)}")
    return {name: tasks[name] for name in chosen}


def cut(path: Path, task: dict, work: Path) -> Path:
    """Return a file with the part of ``path`` that the task asks for, or ``path`` itself.

    Args:
        task: ``lines`` is the number of examples to take from the start, below a header; ``every: 3`` takes each third
            line, for a file without a header that is sorted by label.
    """
    lines, every = task.get("lines"), task.get("every", 1)
    if lines is None and every == 1:
        return path
    name = str(lines) if lines else f"every-{every}"
    suffix = path.with_suffix("").suffix or path.suffix  # of the text, if it is compressed
    shorter = work / f"{path.parent.name}-{name}{suffix}"
    if not shorter.is_file():
        with TextFile(path) as source, whole(shorter) as part:
            part.write_bytes(b"".join(itertools.islice(source, 0, lines and lines + 1, every)))
    return shorter


def finetune(task: dict, model: Path, files: dict[str, Path], folder: Path, lr: float, seed: int, flags: list[str]):
    """Fine-tune a model and return the content of its ``scores.json``.

    Raises:
        ValueError: it failed.
    """
    command = [sys.executable, "-m", "fairseq_lambda.commands", "finetune", model, "--save-dir", folder, "--quiet"]
    command += ["--train", files["train"], "--test", files["test"], "--valid", files.get("valid", "0.1")]
    command += ["--lr", lr, "--seed", seed, *shlex.split(task["flags"]), *flags]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{folder} ended with {done.returncode}; the last lines of its train.log say why")
    for checkpoint in folder.glob("*.pt"):  # hundreds of runs would fill the disk; scores and log stay
        checkpoint.unlink()
    shutil.rmtree(folder / "data", ignore_errors=True)
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def untrained(model: Path, folder: Path) -> Path:
    """Return an exported folder with the architecture and vocabulary of ``model``, and new weights."""
    if not folder.is_dir():
        with whole_folder(folder) as part:
            export(model, part / "model")
            hub = LambdaBertModel.from_pretrained(part / "model")
            config = json.loads((part / "model" / CONFIG).read_text(encoding="utf-8"))
            torch.manual_seed(1)
            write_exported(part / "model", hub.task.build_model(hub.cfg.model).state_dict(), {**config, "updates": 0})
            for file in list((part / "model").iterdir()):
                file.rename(part / file.name)
            (part / "model").rmdir()
    return folder


class Results:
    """The JSON lines, one per run; each is appended when its run is complete."""

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        self.lines = [json.loads(line) for line in text.splitlines() if line.strip()]

    def once(self, key: dict, made_by: dict[str, str], run) -> dict:
        """Return the line with the values of ``key``; if it is missing, ``run()`` makes it.

        Raises:
            ValueError: it was made by something else than ``made_by``, which holds all that the result depends on.
        """
        for line in self.lines:
            if all(line.get(name) == value for name, value in key.items()):
                other = [name for name in made_by if line["made_by"].get(name) != made_by[name]]
                if other:
                    raise ValueError(
                        f"{self.path} has {key['task']}, {key['model']} with other {' and '.join(other)}: remove its "
                        "lines, give the model another name, or choose another --results"
                    )
                return line
        line = {**key, **run(), "made_by": made_by, "setting": measuring.setting(DEVICE, key.get("seed", 0))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        print(
            f"{line['task']}, {line['model']}: {line['metric']} {line['test'][line['metric']]:.4f} on test", flush=True
        )
        return line


def run_task(name: str, task: dict, models: dict[str, Path], args, results: Results) -> None:
    """Run those parts of a task that have no results yet."""
    data = args.data / name
    files = {split: data / file for split, file in task["files"].items()}
    files["train"] = cut(files["train"], task, args.work)
    made_by = {"flags": " ".join([task["flags"], *args.flags])}
    made_by |= {f"{split} file": sha256(file)[:12] for split, file in files.items()}
    for control in CONTROLS:
        run = functools.partial(bags_of_words.control, control, task, files)
        results.once({"task": name, "model": control}, made_by, run)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for model, path in models.items():
        origin = models[model.removesuffix(f", {UNTRAINED}")]
        weights = sha256(find_checkpoint(origin))[:12]

        def run(lr, seed, model=model, path=path):
            folder = args.work / f"{name}-{model.replace(' ', '-')}-lr{lr}-seed{seed}"
            scores = finetune(task, path, files, folder, lr, seed, args.flags)
            return {"metric": scores["metric"], "valid": scores["splits"]["valid"], "test": scores["splits"]["test"]}

        def line(lr, seed, model=model, weights=weights, run=run):
            key = {"task": name, "model": model, "lr": lr, "seed": seed}
            return results.once(key, {**made_by, "weights": weights}, functools.partial(run, lr, seed))

        first = [line(lr, seeds[0]) for lr in args.lrs]
        best = max(first, key=lambda made: made["valid"][made["metric"]])["lr"]
        for seed in seeds[1:]:
            line(best, seed)


def chosen_runs(lines: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Return the runs that count, by (task, model): all seeds with the learning rate that was best on validation."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for line in lines:
        groups.setdefault((line["task"], line["model"]), []).append(line)
    for key, group in groups.items():
        if "lr" in group[0]:
            first = [line for line in group if line["seed"] == group[0]["seed"]]
            best = max(first, key=lambda line: line["valid"][line["metric"]])["lr"]
            groups[key] = [line for line in group if line["lr"] == best]
    return groups


def cell(runs: list[dict]) -> str:
    """Return the mean and the standard deviation of the task's score on the test file."""
    metric = runs[0]["metric"]
    scale, digits = (1, 3) if metric in NOT_PERCENT else (100, 1)
    values = [scale * run["test"][metric] for run in runs]
    spread = f" ({statistics.stdev(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def report(lines: list[dict]) -> str:
    """Return the table: a row per task, a column per model."""
    groups = chosen_runs(lines)
    tasks = list(dict.fromkeys(task for task, _ in groups))
    models = list(dict.fromkeys(model for _, model in groups))
    rows = [["task", "score", *models]]
    for task in tasks:
        metric = next(runs for (name, _), runs in groups.items() if name == task)[0]["metric"]
        rows.append([task, TITLES[metric], *(cell(groups[task, m]) if (task, m) in groups else "-" for m in models)])
    return measuring.markdown(rows)


def draw(lines: list[dict], path: Path) -> None:
    """Draw a bar per model for each task, with the deviation over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = chosen_runs(lines)
    tasks = list(dict.fromkeys(task for task, _ in groups))
    models = list(dict.fromkeys(model for _, model in groups))
    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        present = [(at, groups[task, model]) for at, task in enumerate(tasks) if (task, model) in groups]
        values = [[run["test"][run["metric"]] for run in runs] for _, runs in present]
        axes.bar(
            [at + number * width for at, _ in present], [statistics.mean(v) for v in values], width, label=model,
            yerr=[statistics.stdev(v) if len(v) > 1 else 0 for v in values],
        )  # fmt: skip
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(tasks))], tasks)
    axes.set_ylabel("score on the test file")
    axes.set_title("Fine-tuned on labelled tasks: mean and deviation over seeds")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder with the tasks")
    add("--model", action="append", default=[], metavar="NAME=FOLDER", help="a pretrained model; may be given again")
    add("--only", metavar="TASK,...", help="tasks to run (default: all in tasks.yaml)")
    add("--seeds", default="1,2,3", help="random seeds (default: %(default)s)")
    add("--lrs", default="1e-4,3e-4,1e-3", help="learning rates to choose from (default: %(default)s)")
    add("--work", type=Path, default=Path("checkpoints/tasks"), help="folder for fine-tuning (default: %(default)s)")
    add("--results", type=Path, default=RESULTS / "tasks.jsonl", help="file of JSON lines (default: %(default)s)")
    add("--no-untrained", action="store_true", help="leave out the architectures without pretraining")
    add("--report", action="store_true", help="run nothing; print the table and draw the picture of existing results")
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args, args.flags = parser.parse_known_args(argv)
    results = Results(args.results)
    try:
        if not args.report:
            args.lrs = [float(lr) for lr in args.lrs.split(",")]
            if args.data is None or not args.model:
                raise ValueError("--data and --model are needed, or --report")
            args.work.mkdir(parents=True, exist_ok=True)
            pairs = [given.partition("=") for given in args.model]
            models = {name: Path(folder) for name, _, folder in pairs}
            for folder in models.values():
                find_checkpoint(folder)
            if not args.no_untrained:
                models |= {
                    f"{name}, {UNTRAINED}": untrained(folder, args.work / f"{name}-{UNTRAINED.replace(' ', '-')}")
                    for name, folder in list(models.items())
                }
            for name, task in read_tasks(args.only).items():
                run_task(name, task, models, args, results)
        if not results.lines:
            raise ValueError(f"{args.results} contains no run")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(report(results.lines))
    draw(results.lines, args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
