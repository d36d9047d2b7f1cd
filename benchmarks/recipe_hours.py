"""How long a recipe takes on this machine, from some of its updates.

``python benchmarks/recipe_hours.py base data-bin/wikitext-103`` runs the first updates of the recipe in
scripts/train_lambda_bert.sh, saves nothing, and prints the tokens a second, the hours that all of the recipe's updates
would take, and how far the run went. Flags that it does not know go to the script.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring import ROOT, setting, setting_line
from quality import read_rates

from fairseq_lambda.commands.evaluate import write_whole


def script(*arguments) -> str:
    """Return what scripts/train_lambda_bert.sh prints, on both channels."""
    command = [str(c) for c in (ROOT / "scripts/train_lambda_bert.sh", *arguments)]
    environment = {**os.environ, "PYTHON": sys.executable}
    run = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if run.returncode:
        raise ValueError(f"{shlex.join(command)} ended with {run.returncode}:\n{run.stdout[-2000:]}")
    return run.stdout


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", help="of the recipe, such as base")
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--measure", type=int, default=20, help="updates to run (%(default)s)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/recipe_hours.json")
    args, flags = parser.parse_known_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        recipe = shlex.split(script(args.size, args.data, *flags, "--dry-run"))
        updates = int(recipe[recipe.index("--max-update") + 1])
        with tempfile.TemporaryDirectory() as folder:
            short = ["--save-dir", folder, "--no-save", "--disable-validation", "--max-update", args.measure]
            log = script(args.size, args.data, *flags, *short, "--log-format", "json", "--log-interval", 1)
    except ValueError as error:
        sys.exit(f"error: {error}")
    seconds, rate = read_rates(log)
    hours = updates * seconds / 3600
    print(f"{args.size} on {args.data.name}: {rate:,.0f} tokens/s, {seconds:.3g} s an update")
    print(f"{updates:,} updates: {hours:,.1f} hours, {updates * seconds * rate / 1e9:.2f} billion tokens")
    print(f"run here: {args.measure} of {updates:,} updates ({100 * args.measure / updates:.2g} %)")
    print(setting_line(setting(device, seed=1)))
    report = {"size": args.size, "data": args.data.name, "flags": flags, "updates": updates, "run": args.measure}
    report |= {"tokens_a_second": round(rate), "seconds_an_update": round(float(seconds), 3), "hours": round(hours, 1)}
    write_whole(args.json, json.dumps({**report, "setting": setting(device, seed=1)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
