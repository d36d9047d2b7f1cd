"""What saving, checking and determinism cost: their share of a training's time with a save every 200 updates.

``python benchmarks/checkpoint_cost.py data-bin/wikitext-2`` trains lambda_bert_mini with the script's batch, in this
process, takes the time of each save, of the checks before a resume, and of the updates, and prints the shares.
Validation is not counted. Nothing is switched on for determinism on a CPU (the runs of
tests/checkpointing/test_resume.py are equal to the bit as they are), so it costs nothing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from fairseq_lambda.checkpointing import fairseq_hooks
from fairseq_lambda.commands import train as command
from fairseq_lambda.commands.evaluate import write_whole

ROOT = Path(__file__).resolve().parents[1]


def timed(function, times: list[float]):
    """Return the function, which then notes how long each call took."""

    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            times.append(time.perf_counter() - began)

    return wrapper


def run(data: Path, folder: Path, updates: int, size: str, batch: int) -> None:
    sys.argv = ["fairseq-train", str(data), "--user-dir", str(ROOT / "fairseq_lambda"), "--task", "masked_lm_sop"]
    sys.argv += ["--criterion", "masked_lm_sop", "--arch", f"lambda_bert_{size}", "--tokens-per-sample", "128"]
    sys.argv += ["--optimizer", "adam", "--lr", "2e-3", "--batch-size", str(batch), "--max-update", str(updates)]
    sys.argv += ["--required-batch-size-multiple", "1", "--cpu", "--disable-validation", "--log-format", "none"]
    sys.argv += ["--save-dir", str(folder), "--save-interval-updates", "200", "--keep-interval-updates", "1"]
    sys.argv += ["--no-epoch-checkpoints", "--num-workers", "1"]
    command.main()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--size", default="mini")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/checkpoint_cost.json")
    args = parser.parse_args()

    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    saves, checks, steps = [], [], []
    checkpoint_utils.save_checkpoint = timed(checkpoint_utils.save_checkpoint, saves)
    fairseq_hooks._prepare = timed(fairseq_hooks._prepare, checks)
    Trainer.train_step = timed(Trainer.train_step, steps)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        run(args.data, folder, args.updates, args.size, args.batch_size)
        trained, first = sum(steps), len(saves)
        run(args.data, folder, args.updates + 1, args.size, args.batch_size)  # a resume: all checks
        size = (folder / "checkpoint_last.pt").stat().st_size
    interval = 200 * trained / args.updates
    save, check = sum(saves[:first]) / first, checks[-1]
    share = 100 * (save + check) / (interval + save + check)
    print(
        f"200 updates {interval:.2f} s, a save of {size / 1e6:.1f} MB and its copies {save:.3f} s, checks {check:.3f} s"
    )
    print(f"saving and checking: {share:.2f} % of the time, if every save is followed by a resume; determinism: 0 %")
    report = {
        "size": args.size, "batch_size": args.batch_size, "updates": args.updates, "file_bytes": size,
        "seconds_200_updates": interval, "seconds_save": save, "seconds_checks": check, "share_percent": share,
        "torch": torch.__version__, "threads": torch.get_num_threads(), "cpus": os.cpu_count(),
    }  # fmt: skip
    write_whole(args.json, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
