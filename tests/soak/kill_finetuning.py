"""Kills a fine-tuning again and again, at random moments, and compares how it ends.

    python tests/soak/kill_finetuning.py MODEL --kills 20
    python tests/soak/kill_finetuning.py MODEL --kills 3 --script     # scripts/finetune.sh, with its start-up

``lambda-bert finetune`` is started on a toy file, killed with SIGKILL and started again until it is complete; then the
next one, until there have been enough kills. With ``--script`` the command alone is killed, and the training that it
has launched must end with it. The scores and the state of training, of the last and of the best checkpoint, must equal
those of a run that was never killed, to the bit. Without ``--script`` the processes are forks of one that has imported
torch already, and train in themselves.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/finetuning")]

from fine_tunings import FAST, launch_here, topics, write_tsv  # noqa: E402
from training import differences, state_of_training  # noqa: E402

from fairseq_lambda.commands import finetune  # noqa: E402

FORK = get_context("fork")
FLAGS = ["--max-epoch", "6", "--save-interval-updates", "7", "--layer-decay", "0.9", "--valid", "0.2"]


def arguments(model: str, folder: Path, data: Path) -> list[str]:
    flags = [*FAST, *FLAGS, "--dropout", "0.1", "--train", str(data / "train.tsv"), "--test", str(data / "test.tsv")]
    return [model, "--save-dir", str(folder), *flags]


def in_this_process(argv: list[str], log: Path) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    finetune.launch = launch_here
    finetune.main(argv)


def start(argv: list[str], log: Path, script: bool):
    """Return (process number, function that returns the exit status or None)."""
    if not script:
        process = FORK.Process(target=in_this_process, args=(argv, log))
        process.start()
        return process.pid, lambda: process.exitcode
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    with open(log, "a") as file:
        process = subprocess.Popen(
            [ROOT / "scripts/finetune.sh", *argv], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    return process.pid, process.poll


def live(argv: list[str], log: Path, script: bool, seconds: float | None) -> int:
    """Run, kill after ``seconds``; return the exit status, -SIGKILL if it was killed."""
    process, status = start(argv, log, script)
    end = None if seconds is None else time.monotonic() + seconds
    while status() is None:
        if end is not None and time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            end = None
        time.sleep(0.002)
    return status()


def outcome(folder: Path) -> dict:
    scores = json.loads((folder / "scores.json").read_text())
    return {
        "scores": scores["splits"],
        "last": state_of_training(folder),
        "best": state_of_training(folder, "checkpoint_best.pt"),
    }


def main() -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a pretrained model, small")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", action="store_true")
    args = parser.parse_args()
    rng, tally = random.Random(args.seed), Counter(dict.fromkeys(["kills", "completed", "end states that differ"], 0))
    with tempfile.TemporaryDirectory() as place:
        data, log = Path(place), Path(place, "log")
        write_tsv(data / "train.tsv", topics(150))
        write_tsv(data / "test.tsv", topics(40, seed=1))
        begin = time.monotonic()
        assert live(arguments(args.model, data / "whole", data), log, args.script, None) == 0, log.read_text()[-3000:]
        longest = time.monotonic() - begin
        expected = outcome(data / "whole")
        while tally["kills"] < args.kills:
            folder = data / "cut"
            shutil.rmtree(folder, ignore_errors=True)
            while True:
                argv = arguments(args.model, folder, data)
                seconds = rng.random() * 1.5 * longest if tally["kills"] < args.kills else None
                status = live(argv, log, args.script, seconds)
                if status == 0:
                    break
                assert status == -signal.SIGKILL, log.read_text()[-3000:]
                tally["kills"] += 1
            tally["completed"] += 1
            found = differences(expected, outcome(folder))
            if found:
                tally["end states that differ"] += 1
                print(found[:3])
    for what, count in tally.items():
        print(f"{count:>6} {what}")
    print(f"{'script' if args.script else 'forks'}, seed {args.seed}, one run takes {longest:.1f} s")
    return tally


if __name__ == "__main__":
    sys.exit(main()["end states that differ"] > 0)
