"""lambda_bert against its equal-size softmax twin: same data, masks, updates, schedule, each at its best learning rate.

``python benchmarks/twin.py data-bin/wikitext-2`` trains both through scripts/train_lambda_bert.sh, in turns over the
learning rates, evaluates each on the whole validation and test splits, and prints a table with the training time of
every run. A run that is complete is not repeated; an interrupted one goes on.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from fairseq_lambda.commands.evaluate import evaluate, write_whole
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"lambda": ["--lambda-layers", "all"], "twin": ["--lambda-layers", "none"]}


def finished(folder: Path) -> tuple[int, float]:
    """Return how many updates the last checkpoint has behind it, and the seconds that fairseq counted in them."""
    last = folder / "checkpoint_last.pt"
    if not last.exists():
        return 0, 0.0
    state = load_checkpoint(last)
    meters = {name: values for _, name, _, values in state["extra_state"]["metrics"]["default"]}
    return state["optimizer_history"][-1]["num_updates"], meters["train_wall"]["sum"]


def train(size: str, data: Path, folder: Path, updates: int, flags: list[str]) -> float:
    """Train in ``folder``, as far as that is not done, and return the seconds of all updates."""
    if finished(folder)[0] < updates:
        folder.mkdir(parents=True, exist_ok=True)
        command = [ROOT / "scripts/train_lambda_bert.sh", size, data, "--save-dir", folder]
        command += ["--updates", updates, *flags]
        environment = {**os.environ, "PYTHON": sys.executable}
        with (folder / "train.log").open("a") as log:
            subprocess.run([str(c) for c in command], check=True, stdout=log, stderr=log, env=environment)
    return finished(folder)[1]


def cpu_name() -> str:
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of fairseq-preprocess output")
    parser.add_argument("--size", default="mini")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--lr", default="1e-3,2e-3", help="grid for both models (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("checkpoints/twin"), help="folder of the runs")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/twin.json")
    args = parser.parse_args()

    rows = []
    for lr in args.lr.split(","):
        for name, flags in MODELS.items():
            folder = args.runs / f"{args.size}-{name}-lr{lr}-{args.updates}-seed{args.seed}"
            print(f"{time.strftime('%H:%M:%S')} {folder}", file=sys.stderr, flush=True)
            seconds = train(args.size, args.data, folder, args.updates, [*flags, "--lr", lr, "--seed", str(args.seed)])
            hub = LambdaBertModel.from_pretrained(folder, "checkpoint_last.pt")
            hub.task.cfg.data = str(args.data)
            scores = evaluate(hub, ["valid", "test"], batch_size=32)
            parameters = sum(p.numel() for p in hub.model.parameters())
            rows.append({"model": name, "lr": lr, "parameters": parameters, "seconds": seconds, **scores})

    best = {n: min((r for r in rows if r["model"] == n), key=lambda r: r["valid"]["mlm_ppl"]) for n in MODELS}
    print("| model | learning rate | parameters | valid ppl | valid acc | valid order | test ppl | training |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        star = " (best)" if r is best[r["model"]] else ""
        print(
            f"| {r['model']}{star} | {r['lr']} | {r['parameters']:,} | {r['valid']['mlm_ppl']:.1f} "
            f"| {r['valid']['mlm_acc']:.1f} % | {r['valid'].get('sop_acc', float('nan')):.1f} % "
            f"| {r['test']['mlm_ppl']:.1f} | {r['seconds']:.0f} s |"
        )
    ours, twin = best["lambda"], best["twin"]
    perplexity = ours["valid"]["mlm_ppl"] / twin["valid"]["mlm_ppl"]
    seconds = ours["seconds"] / twin["seconds"]
    print(f"\nat the best learning rates: perplexity {perplexity:.2f} and training time {seconds:.2f} of the twin's")
    setting = {
        "size": args.size,
        "data": args.data.name,
        "updates": args.updates,
        "seed": args.seed,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    print(", ".join(f"{k} {v}" for k, v in setting.items()))
    write_whole(args.json, json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
