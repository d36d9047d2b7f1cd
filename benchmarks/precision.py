"""Mixed precision against float32: the same training, and the validation loss that each ends with.

``python benchmarks/precision.py data-bin/wikitext-2`` trains lambda_bert_tiny for 1,000 updates in float32 and in
bfloat16 autocast, on a GPU also in float16 by fairseq's --fp16 and --amp, evaluates each on the whole validation split
in float32, and fails if one is not finite or above float32's loss by more than 2 %. Flags that it does not know go to
scripts/train_lambda_bert.sh, such as ``--batch-size 8 --tokens-per-sample 64`` where bfloat16 is emulated, slowly.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch
from measuring import ROOT, multiplies_bfloat16, setting

from fairseq_lambda.commands.evaluate import evaluate, write_whole
from fairseq_lambda.models import LambdaBertModel

PRECISIONS = {
    "float32": ["--autocast", "none"],
    "bfloat16 autocast": ["--autocast", "bfloat16"],
    "float16 --fp16": ["--autocast", "none", "--fp16"],
    "float16 --amp": ["--autocast", "none", "--amp"],
}
MARGIN = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("checkpoints/precision"), help="folder of the runs")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/precision.json")
    args, flags_of_all = parser.parse_known_args()
    gpu = torch.cuda.is_available()
    losses = {}
    for name, flags in PRECISIONS.items():
        if name.startswith("float16") and not gpu:
            print(f"{name}: skipped, fairseq's float16 needs a GPU")
            continue
        folder = args.runs / f"{args.size}-{args.updates}-{name.split()[-1].strip('-')}"
        folder.mkdir(parents=True, exist_ok=True)
        command = [ROOT / "scripts/train_lambda_bert.sh", args.size, args.data, "--save-dir", folder]
        command += ["--updates", args.updates, "--disable-validation", *flags_of_all, *flags]
        environment = {**os.environ, "PYTHON": sys.executable}
        with (folder / "train.log").open("a") as log:
            subprocess.run([str(c) for c in command], check=True, stdout=log, stderr=log, env=environment)
        hub = LambdaBertModel.from_pretrained(folder, "checkpoint_last.pt")
        hub.task.cfg.data = str(args.data)
        hub.cfg.criterion.autocast = "none"
        losses[name] = evaluate(hub.cuda() if gpu else hub, ["valid"], 32)["valid"]["mlm_loss"]
        difference = 100 * (losses[name] / losses["float32"] - 1)
        print(f"{name}: validation loss {losses[name]:.4f} nats, {difference:+.2f} % of float32's", flush=True)
    report = {
        "size": args.size,
        "updates": args.updates,
        "flags": flags_of_all,
        "data": args.data.name,
        "mlm_loss": losses,
        "bfloat16_is_emulated": not multiplies_bfloat16("cuda" if gpu else "cpu"),
        "setting": setting("cuda" if gpu else "cpu", seed=1),
    }
    write_whole(args.json, json.dumps(report, indent=2) + "\n")
    bound = (1 + MARGIN) * losses["float32"]
    return int(not all(math.isfinite(loss) and loss <= bound for loss in losses.values()))


if __name__ == "__main__":
    sys.exit(main())
