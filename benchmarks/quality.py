"""A comparison of models by what they learn: trains, evaluates, tabulates and draws all that a YAML file names.

``python benchmarks/quality.py twin data-bin/wikitext-2`` runs benchmarks/comparisons/twin.yaml: every model at every
learning rate of the grid with the first seed, then the other seeds at each model's best rate, all of it by
scripts/train_lambda_bert.sh and so by fairseq-train. A finished run is added to benchmarks/results/quality/twin.json,
and not repeated, on whichever machine and by whichever comparison it was made; an unfinished one goes on from its
checkpoint, and has its curve in that file after every validation: a run of hours may lose its machine. Tables, the
figures against the baselines and a picture are made from that file at the end, or with ``--report`` from what there is.

Runs of different days log different times of an update. ``--time`` measures them again, all models in turns in one
process, and the tables use those from then on.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import quality_plot
import quality_report
import torch
from measuring import ROOT, setting
from quality_runs import Comparison, Results, Run, precision_of
from quality_time import time_updates

from fairseq_lambda.commands.evaluate import evaluate
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface

COMPARISONS = ROOT / "benchmarks/comparisons"
TOKENS_A_BATCH = 4096  # in evaluation


def lines_of(log: str, kind: str) -> dict[int, dict]:
    """Return the values of a train.log's lines of a kind, ``valid`` or ``train_inner``, by their updates.

    A run that was interrupted logs some updates twice; the later line counts.
    """
    number = "valid_num_updates" if kind == "valid" else "num_updates"
    lines = [json.loads(line) for line in re.findall(rf"\| {kind} \| (\{{.*\}})", log)]
    return {int(values[number]): values for values in lines}


def read_curve(log: str) -> list[dict]:
    """Return the validations of a train.log; their training perplexity is the mean of the log's line before each."""
    names = {"mlm_ppl": "ppl", "mlm_acc": "acc", "sop_acc": "order_acc"}
    train_ppl = {updates: float(values["mlm_ppl"]) for updates, values in lines_of(log, "train_inner").items()}
    points = []
    for updates, values in sorted(lines_of(log, "valid").items()):
        scores = {short: float(values[f"valid_{long}"]) for long, short in names.items() if f"valid_{long}" in values}
        before = max((u for u in train_ppl if u <= updates), default=None)
        points.append({"updates": updates, **scores, "train_ppl": train_ppl.get(before)})
    return points


def read_rates(log: str) -> tuple[float, float]:
    """Return the seconds of an update and the tokens a second of a train.log.

    Both are the quartile on the quick side of all its lines, which leaves out validation, saves and most of what other
    work on the machine did to them.
    """
    lines = [v for v in lines_of(log, "train_inner").values() if float(v["wps"]) > 0]
    rates = [float(values["wps"]) for values in lines]
    seconds = [float(values["wpb"]) / rate for values, rate in zip(lines, rates, strict=True)]
    return np.quantile(seconds, 0.25), np.quantile(rates, 0.75)


def train(run: Run, size: str, data: Path, folder: Path, threads: int, validated: Callable[[str], None]) -> str:
    """Train in ``folder``, as far as that is not done, and return its log; ``validated`` gets it so far, each time."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [ROOT / "scripts/train_lambda_bert.sh", size, data, "--save-dir", folder, "--updates", run.updates]
    command += ["--log-format", "json", *run.flags]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": str(threads)}
    say(f"{run.name}: {run.updates} updates in {folder}")
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
        )
        for line in process.stdout:
            log.write(line)
            log.flush()
            if found := re.search(r'\| valid \| .*"valid_mlm_ppl": "([\d.]+)".*"valid_num_updates": "(\d+)"', line):
                say(f"{run.name}: {found[2]} updates, validation perplexity {found[1]}")
                validated((folder / "train.log").read_text(encoding="utf-8"))
    if process.wait():
        raise ValueError(f"{run.name} ended with {process.returncode}; the last lines of {folder}/train.log say why")
    return (folder / "train.log").read_text(encoding="utf-8")


def report(run: Run, comparison: Comparison, data: Path, folder: Path, log: str, threads: int) -> dict:
    """Return what is kept of a finished run."""
    hub = LambdaBertModel.from_pretrained(folder, "checkpoint_last.pt")
    hub = hub.cuda() if torch.cuda.is_available() else hub
    hub.task.cfg.data = str(data)
    trained = hub.task.cfg.tokens_per_sample
    splits = evaluate(hub, ["valid", "test"], max(1, TOKENS_A_BATCH // trained))
    fitting = [n for n in comparison.lengths if n <= hub.model.max_positions()]  # a table of positions ends
    lengths = {str(length): at_length(hub, length, comparison.draws) for length in fitting}
    seconds, rate = read_rates(log)
    return {
        "model": run.model,
        "lr": run.lr,
        "seed": run.seed,
        "size": comparison.size,
        "updates": run.updates,
        "flags": list(run.flags),
        "precision": precision_of(log),
        "parameters": sum(p.numel() for p in hub.model.parameters()),
        "max_positions": hub.model.max_positions(),
        "seconds_an_update": round(float(seconds), 4),
        "tokens_a_second": round(rate),
        "curve": read_curve(log),
        "splits": splits,
        "lengths": lengths,
        "data": data.resolve().name,
        "setting": setting("cuda" if torch.cuda.is_available() else "cpu", run.seed) | {"threads": threads},
    }


def at_length(hub: LambdaBertHubInterface, length: int, draws: int) -> dict:
    """Return validation scores in samples of this many tokens, and the loss of each draw of pairs and masks.

    Samples of another length have other masks, so that of a single draw some of the difference is chance.
    """
    seed, hub.task.cfg.tokens_per_sample = hub.task.cfg.seed, length
    scores = []
    for draw in range(draws):
        hub.task.cfg.seed = seed + draw
        scores.append(evaluate(hub, ["valid"], max(1, TOKENS_A_BATCH // length))["valid"])
    hub.task.cfg.seed = seed
    losses = [s["mlm_loss"] for s in scores]
    loss = float(np.mean(losses))
    return {"mlm_ppl": math.exp(loss), "mlm_loss": loss, "draws": losses, "masked_tokens": scores[0]["masked_tokens"]}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(sorted(path.stem for path in COMPARISONS.glob("*.yaml")))
    parser.add_argument("comparison", help=f"a YAML file, or one of: {names}")
    parser.add_argument("data", type=Path, nargs="?", help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--models", help="of these models only, with commas (default: all)")
    parser.add_argument("--seeds", help="of these seeds only, with commas (default: those of the file)")
    parser.add_argument("--lr", help="at these learning rates only, with commas (default: those of the file)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("checkpoints/quality"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/quality", help="folder of the results")
    without = parser.add_mutually_exclusive_group()
    without.add_argument("--report", action="store_true", help="train nothing, tabulate and draw what there is")
    without.add_argument("--time", action="store_true", help="train nothing, time an update of every model that has "
                         "runs, in turns, for the tables; it wants the machine to itself")  # fmt: skip
    parser.add_argument(
        "--readme", type=Path, help="put the table into this file too, between the comments of its name"
    )
    parser.add_argument(
        "--brief",
        action="store_true",
        help="one short table, against the first baseline, "
        "and a picture NAME-brief.png, of the models that the file names for it",
    )
    args = parser.parse_args(argv)
    path = Path(args.comparison)
    path = path if path.suffix == ".yaml" else COMPARISONS / f"{path}.yaml"
    try:
        comparison, results = Comparison.read(path), Results(args.out / f"{path.stem}.json")
        if not args.report and (args.data is None or not (args.data / "dict.txt").is_file()):
            raise ValueError(f"{args.data} holds no dict.txt: make it with scripts/preprocess_wikitext.sh")
        if not (args.report or args.time):
            run_all(comparison, results, args, path.stem)
        if not (results.runs or results.unfinished):
            raise ValueError(f"{results.path} holds no run")
        if args.time:
            having_runs = {run["model"] for run in results.runs.values()}
            results.timing = time_updates(comparison, args.data, [m for m in comparison.models if m in having_runs])
            results.write(comparison)
        tables = quality_report.brief if args.brief else quality_report.tables
        runs = quality_report.timed(results.runs, results.timing)
        picture = results.path.with_suffix(".png")
        if args.brief and comparison.brief:
            runs = {name: run for name, run in runs.items() if run["model"] in comparison.brief}
            picture = picture.with_stem(f"{path.stem}-brief")
        parts = quality_report.unfinished(results.unfinished, runs, comparison.baselines[0])
        if runs:
            parts = [tables(runs, comparison.baselines), *parts, *quality_report.settings_of(runs, results.timing)]
            quality_plot.draw(comparison.title, runs, comparison.baselines[0], picture)
        text = "\n\n".join(parts)
        if args.readme:
            quality_report.put_between(args.readme, f"quality {path.stem}", text)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    print(text)


def run_all(comparison: Comparison, results: Results, args, name: str) -> None:
    """Make the runs that are missing: the grid with the first seed, then the other seeds at the best rates."""
    models = args.models.split(",") if args.models else list(comparison.models)
    if unknown := set(models) - set(comparison.models):
        raise ValueError(f"--models {','.join(sorted(unknown))}: the file has {', '.join(comparison.models)}")
    seeds = [int(s) for s in args.seeds.split(",")] if args.seeds else comparison.seeds
    rates = args.lr.split(",") if args.lr else []
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: must be at least 1")
    threads = max(1, torch.get_num_threads() // args.jobs)

    def make(run: Run) -> None:
        if results.has(run):
            return
        done = results.elsewhere(run, comparison, args.data.resolve().name)
        if done is None:
            folder = args.runs / name / run.name
            log = train(
                run, comparison.size, args.data, folder, threads,
                lambda so_far: results.add_unfinished(run, read_curve(so_far), comparison),
            )  # fmt: skip
            with results.lock:  # one at a time: fairseq's loading and torch's threads are of the whole process
                done = report(run, comparison, args.data, folder, log, threads)
        results.add(run, done, comparison)
        say(f"{run.name}: done, validation perplexity {done['splits']['valid']['mlm_ppl']:.2f}")

    with ThreadPoolExecutor(args.jobs) as pool:
        first = comparison.seeds[0]
        if first in seeds:
            grid = (run for run in comparison.runs(first) if run.model in models and (not rates or run.lr in rates))
            list(pool.map(make, grid))
        others = [(model, seed) for seed in seeds if seed != first for model in models]
        list(pool.map(make, [comparison.run(m, results.best_rate(m, first), s) for m, s in others]))


if __name__ == "__main__":
    main()
