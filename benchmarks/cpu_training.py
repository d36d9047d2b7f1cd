"""What makes training on a CPU fast beside the model: batches in few shapes, and another allocator.

``python benchmarks/cpu_training.py data-bin/wikitext-2`` trains lambda_bert_mini and its rotary twin by
scripts/train_lambda_bert.sh, as it is and with either or both left out, each in a process of its own, and prints the
time of an update and the most memory that a run took. It wants the machine to itself. Flags that it does not know go
to the script.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measuring import ROOT, markdown, setting, setting_line
from quality import read_rates

from fairseq_lambda.commands.evaluate import write_whole

MODELS = {"lambda": [], "twin rotary": ["--lambda-layers", "none", "--attention-rotary"]}
ANY_SHAPE = ["--required-seq-len-multiple", "1"]
SETTINGS = {  # flags, and whether tcmalloc may be used
    "as the script does it": ([], True),
    "batches in any shape": (ANY_SHAPE, True),
    "the C library's allocator": ([], False),
    "both": (ANY_SHAPE, False),
}


def train(data: Path, updates: int, flags: list[str], tcmalloc: bool) -> tuple[float, float]:
    """Return the seconds of an update, the quick quartile of the log's lines, and the peak resident memory in GB."""
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("LD_PRELOAD", None)
    if not tcmalloc:
        environment["LD_PRELOAD"] = ""  # that it is set is enough
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "scripts/train_lambda_bert.sh", "mini", data, "--updates", updates, *flags]
        command += ["--save-dir", folder, "--no-save", "--disable-validation"]
        command += ["--log-format", "json", "--log-interval", max(1, updates // 15)]
        process = subprocess.Popen(
            [str(c) for c in command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        log = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"training ended with {process.returncode}:\n{log[-2000:]}")
    return float(read_rates(log)[0]), usage.ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--updates", type=int, default=300, help="of each run (%(default)s)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/cpu_training.json")
    args, others = parser.parse_known_args(argv)
    if torch.cuda.is_available():
        sys.exit("error: this is about training on a CPU; set CUDA_VISIBLE_DEVICES= to hide the GPU")
    rows = []
    try:
        for name, (flags, tcmalloc) in SETTINGS.items():
            for model, options in MODELS.items():
                seconds, memory = train(args.data, args.updates, [*options, *flags, *others], tcmalloc)
                rows.append({"setting": name, "model": model, "ms": round(1e3 * seconds), "gb": round(memory, 2)})
                print(rows[-1], file=sys.stderr, flush=True)
    except ValueError as error:
        sys.exit(f"error: {error}")
    header = ["", *(f"{model}, {what}" for model in MODELS for what in ("ms an update", "peak GB"))]
    table = [header]
    for name in SETTINGS:
        cells = [(str(row["ms"]), f"{row['gb']:.2f}") for row in rows if row["setting"] == name]
        table.append([name, *(cell for pair in cells for cell in pair)])
    print(markdown(table))
    print(f"\n{args.updates} updates, " + setting_line(setting("cpu", seed=1)))
    report = {"updates": args.updates, "flags": others, "rows": rows, "setting": setting("cpu", seed=1)}
    write_whole(args.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
