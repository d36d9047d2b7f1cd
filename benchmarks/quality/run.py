"""Trains and evaluates the models of a comparison, one run after another, skipping what is done.

``python benchmarks/quality/run.py baseline data-bin/wikitext-2`` runs comparisons/baseline.yaml with
scripts/train_lambda_bert.sh. Every run has a line in benchmarks/results/quality/baseline.jsonl, which is rewritten
after each validation, so that curves survive a lost machine. Run the command again after a kill, and it resumes.
benchmarks/quality/report.py prints the table and draws the picture.

Two runs at a time with one core each make more updates than one at a time with two cores: ``--jobs 2``.

Machines and days differ in speed. ``--time`` trains nothing: it times an update of every model that has a line, all of
them in turns in this process, and adds that to the lines.
"""

import argparse
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import torch
from comparison import Comparison, Results, Run, open_comparison
from curves import curve, ms_per_update
from fairseq.utils import import_user_module
from windows import perplexities

from fairseq_lambda.commands.evaluate import evaluate
from fairseq_lambda.files import whole_folder
from fairseq_lambda.models import LambdaBertModel

SCRIPT = measuring.ROOT / "scripts/train_lambda_bert.sh"
TOKENS_PER_BATCH = 4096  # in evaluation
TIMED_UPDATES = 25
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}


def train(run: Run, data: Path, folder: Path, validated: Callable[[str], None]) -> str:
    """Train in ``folder``, unless that is done; return the log, which ``validated`` gets after each validation.

    A run with a trunk starts from the checkpoint that the trunk's run left where this one branches off.

    Raises:
        ValueError: the training failed; the trunk's checkpoint is missing.
    """
    if run.trunk and not folder.exists():
        branch = folder.parent / run.trunk_folder / f"at-{run.start}"
        if not branch.is_dir():
            raise ValueError(f"{run.folder} continues {branch}, which is missing: train {run.trunk} first")
        with whole_folder(folder) as unfinished:
            shutil.copytree(branch, unfinished, dirs_exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for stop in run.branches or (run.updates,):
        branch = folder / f"at-{stop}"
        if branch.is_dir():
            continue
        log = train_until(run, stop, data, folder, validated)
        if run.branches:
            with whole_folder(branch) as unfinished:
                for name in ("checkpoint_last.pt", "train.log"):
                    shutil.copy(folder / name, unfinished / name)
    return log if not run.branches else (branch / "train.log").read_text(encoding="utf-8")


def train_until(run: Run, stop: int, data: Path, folder: Path, validated: Callable[[str], None]) -> str:
    """Train until ``stop`` updates are made; return the log."""
    command = [SCRIPT, run.size, data, "--save-dir", folder, "--log-format", "json", *run.command_line()]
    command += ["--max-update", str(stop)] if stop != run.updates else []
    path = folder / "train.log"
    with path.open("a", encoding="utf-8") as log:
        log.write("\n")  # after a kill the last line may be incomplete
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout:
            log.write(line)
            log.flush()
            if re.search(r"\| valid \| \{", line):
                validated(path.read_text(encoding="utf-8"))
    if process.wait():
        raise ValueError(f"{run.folder} ended with {process.returncode}; the last lines of {path} say why")
    return path.read_text(encoding="utf-8")


def line_of(log: str, seed: int, data: Path) -> dict:
    """Return what is kept of a run before it has ended."""
    known = {"data": data.resolve().name, "setting": measuring.setting(DEVICE, seed)}
    return known | {"ms_per_update": ms_per_update(log), "curve": curve(log)}


def scores(comparison: Comparison, data: Path, folder: Path) -> dict:
    """Return what evaluating the last checkpoint gives."""
    hub = LambdaBertModel.from_pretrained(folder, "checkpoint_last.pt").to(DEVICE)
    hub.task.cfg.data = str(data)
    splits = evaluate(hub, ["valid", "test"], max(1, TOKENS_PER_BATCH // hub.task.cfg.tokens_per_sample))
    lengths = perplexities(hub, comparison.lengths) if comparison.lengths else {}
    precision = {"none": "float32"}.get(hub.cfg.criterion.autocast, hub.cfg.criterion.autocast)
    parameters = sum(p.numel() for p in hub.model.parameters())
    found = {"precision": precision, "parameters": parameters, "scores": splits}
    return found | {"lengths": lengths} if lengths else found


def run_all(
    runs: list[Run], comparison: Comparison, results: Results, data: Path, checkpoints: Path, jobs: int
) -> None:
    """Do the runs, ``jobs`` at a time with an equal share of the cores; a trunk and its ends run one after another."""
    chains = {}
    for run in runs:
        chains.setdefault((run.trunk or run.model, run.lr), []).append(run)
    evaluating = threading.Lock()  # fairseq's state is global to the process

    def do(chain: list[Run]) -> None:
        for run in chain:
            if results.finished(run, data.resolve().name):
                continue
            measuring.say(f"{run.folder}: {run.updates:,} updates")

            def validated(log: str, run=run) -> None:
                line = line_of(log, run.seed, data)
                results.put(run, line)
                last = line["curve"][-1]
                measuring.say(f"{run.folder}: perplexity {last['valid_ppl']} after {last['updates']:,}")

            log = train(run, data, checkpoints / run.folder, validated)
            with evaluating:
                found = scores(comparison, data, checkpoints / run.folder)
            results.put(run, line_of(log, run.seed, data) | found)

    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(do, chain) for chain in chains.values()]):
            done.result()


def time_in_turns(comparison: Comparison, results: Results, data: Path) -> None:
    """Add the median time of an update of each model to its lines, measured on the first batch of the data."""
    from trainers import make_trainer

    lines, functions = results.lines, {}
    runs = {run.model: run for runs in comparison.rounds(results) for run in runs}
    logging.disable(logging.INFO)
    for model in dict.fromkeys(line["model"] for line in lines if line["model"] in runs):
        command = [SCRIPT, comparison.size, data, *runs[model].command_line(), "--dry-run"]
        words = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout
        words = shlex.split(words)
        trainer = make_trainer(words[words.index(str(data)) :], comparison.seeds[0])
        trainer.task.load_dataset("train")
        batches = trainer.get_train_iterator(epoch=1, load_dataset=False).next_epoch_itr(shuffle=True)
        functions[model] = lambda trainer=trainer, batch=next(batches): trainer.train_step([batch])
    logging.disable(logging.NOTSET)
    times = measuring.interleaved(functions, DEVICE, TIMED_UPDATES)
    setting = measuring.setting(DEVICE, comparison.seeds[0])
    for line in lines:
        if line["model"] in times:
            line["in_turns"] = {"ms_per_update": round(1000 * times[line["model"]], 1), "setting": setting}
    measuring.write_lines(results.path, lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="a name in benchmarks/quality/comparisons, or a YAML file")
    parser.add_argument("data", type=Path, help="folder made by scripts/preprocess_wikitext.sh")
    parser.add_argument("--models", help="only these models, separated by semicolons")
    parser.add_argument("--seeds", help="only these seeds, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores (%(default)s)")
    parser.add_argument("--runs", type=Path, help="folder of the checkpoints (checkpoints/quality/COMPARISON)")
    parser.add_argument("--time", action="store_true", help="time an update of each model; needs an idle machine")
    args = parser.parse_args(argv)
    try:
        if not (args.data / "dict.txt").is_file():
            raise ValueError(f"{args.data} holds no dict.txt: make it with scripts/preprocess_wikitext.sh")
        comparison, results = open_comparison(args.comparison)
        # for models that the package does not have
        import_user_module(argparse.Namespace(user_dir=comparison.flags.get("user-dir")))
        if args.time and (args.models or args.seeds):
            raise ValueError("--time times all models that have a line: leave out --models and --seeds")
        if args.time:
            time_in_turns(comparison, results, args.data)
            return
        models = args.models.split(";") if args.models else list(comparison.models)
        if unknown := set(models) - set(comparison.models):
            raise ValueError(f"--models {';'.join(sorted(unknown))}: the file has {';'.join(comparison.models)}")
        seeds = [seed.strip() for seed in args.seeds.split(",")] if args.seeds else []
        known = sorted({seed for model in models for seed in comparison.options[model]["seeds"]})
        if unknown := set(seeds) - {str(seed) for seed in known}:
            raise ValueError(f"--seeds {','.join(sorted(unknown))}: the models have {','.join(map(str, known))}")
        if args.jobs < 1:
            raise ValueError(f"--jobs {args.jobs}: must be at least 1")
        if args.jobs > 1 and DEVICE == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // args.jobs))
            os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        checkpoints = args.runs or Path("checkpoints/quality") / Path(args.comparison).stem
        for runs in comparison.rounds(results, models, [int(seed) for seed in seeds]):
            run_all(runs, comparison, results, args.data, checkpoints, args.jobs)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
