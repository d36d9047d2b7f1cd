"""Kills a training again and again, at random moments and inside checkpoint writes, and compares how it ends.

    python tests/soak/kill_anything.py --kills 200
    python tests/soak/kill_anything.py --kills 10 --script     # through scripts/train_lambda_bert.sh, with its start-up

A training of a few seconds is started, killed with SIGKILL and started again until it is complete; then the next one,
until there have been enough kills. A process lives from a start to a kill. Two kills in three aim at a checkpoint write
of that life, of the new file or of one of its copies: they come when the unfinished file is seen, and count as inside
the write only if the file is there, unfinished, after the kill, and was not there before. The end state (weights,
optimizer, position in the data, best score; of the last and of the best checkpoint) must equal that of a training that
was never killed, to the bit. Without ``--script`` the processes are forks of one that has imported torch already.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import Process, get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from training import PACKAGE, arguments, differences, state_of_training, write_data  # noqa: E402

from fairseq_lambda.commands import fairseq_train as train_command  # noqa: E402
from fairseq_lambda.files import UNFINISHED  # noqa: E402

FORK = get_context("fork")
UPDATES, SAVES = 40, 3
KINDS = ["kills", "kills inside a write of a new file", "kills inside a copy", "kills elsewhere"]
KINDS += ["trainings completed", "end states that differ"]
# wide enough that a write takes some milliseconds
SHAPE = ["--encoder-embed-dim", "256", "--encoder-ffn-embed-dim", "512", "--save-interval-updates", str(SAVES)]
SHAPE += ["--keep-interval-updates", "1", "--no-epoch-checkpoints", "--dropout", "0.1", "--encoder-layerdrop", "0.2"]


def run(data: Path, folder: Path, log_path: Path, script: bool) -> None:
    """Train in ``folder``, or resume; the target of a child process, which leads a process group of its own."""
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    if script:
        command = [ROOT / "scripts/train_lambda_bert.sh", "tiny", data, "--save-dir", folder, "--updates", UPDATES]
        command += "--tokens-per-sample 32 --batch-size 4 --lambda-local-context 7 --autocast none".split() + SHAPE
        environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        os.execve(command[0], [str(c) for c in command], environment)
    sys.argv = arguments(data, folder, UPDATES, *SHAPE)
    train_command.main()


def unfinished(folder: Path) -> dict[str, int]:
    """Return name and inode of the files that are being written, or were when a process died."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.endswith(UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.inode()
    return found


def live(process: Process, folder: Path, stale: dict, aim: int, rng: random.Random, longest: float) -> str:
    """Let the process run up to a moment, and kill it; return where it was hit, or how it ended by itself.

    Args:
        stale: what an earlier life left unfinished; it does not count.
        aim: the number of the write of this life to hit, from 1; 0: any moment.
    """
    moment, writes, last = time.monotonic() + rng.random() * longest, 0, None
    while process.exitcode is None:
        if aim:
            new = sorted(unfinished(folder).items() - stale.items())
            if new and new != last:
                last, writes = new, writes + 1
                if writes >= aim:
                    time.sleep(0 if is_copy(new) else rng.random() * 0.003)
                    break
            time.sleep(0.0001)
        elif time.monotonic() > moment:
            break
        else:
            time.sleep(0.005)
    else:
        return "complete" if process.exitcode == 0 else f"failed with {process.exitcode}"
    while os.getpgid(process.pid) != process.pid:  # until it has its group
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode == 0:
        return "complete"
    new = sorted(unfinished(folder).items() - stale.items())
    if not new:
        return "elsewhere"
    return "inside a copy" if is_copy(new) else "inside a write of a new file"


def is_copy(new: list) -> bool:
    return "_last" in new[0][0] or "_best" in new[0][0]


def run_until_complete(data: Path, folder: Path, log_path: Path, script: bool, lives, tally: Counter) -> None:
    """Start the training in ``folder`` until it is complete, killing it as ``lives`` says; count into ``tally``."""
    while True:
        stale = unfinished(folder)
        process = FORK.Process(target=run, args=(data, folder, log_path, script))
        process.start()
        outcome = lives(process, folder, stale)
        if outcome.startswith("failed"):
            sys.exit(f"{outcome} after {dict(tally)}:\n{log_path.read_text()[-3000:]}")
        if outcome == "complete":
            tally["trainings completed"] += 1
            return
        tally["kills"] += 1
        tally[f"kills {outcome}"] += 1


def main(argv: list[str] | None = None) -> Counter:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--script", action="store_true", help="through scripts/train_lambda_bert.sh; some 6 s per kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep runs and logs here (default: a temporary folder)")
    args = parser.parse_args(argv)
    rng, tally, began = random.Random(args.seed), Counter(dict.fromkeys(KINDS, 0)), time.monotonic()
    with contextlib.ExitStack() as stack:
        work = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = write_data(work / "data")
        first = time.monotonic()
        never = Counter()
        run_until_complete(
            data, work / "whole", work / "whole.log", args.script, lambda p, f, s: live(p, f, s, 0, rng, 1e6), never
        )
        longest = (time.monotonic() - first) * 1.1
        while tally["kills"] < args.kills:
            number = tally["trainings completed"]
            folder, log = work / f"run{number}", work / f"run{number}.log"

            def lives(process, folder, stale):
                if tally["kills"] >= args.kills:
                    return live(process, folder, stale, 0, rng, 1e6)
                aim = rng.randint(1, 12) if rng.random() < 0.67 else 0
                return live(process, folder, stale, aim, rng, longest)

            run_until_complete(data, folder, log, args.script, lives, tally)
            text = log.read_text()
            tally["restarts that resumed from a checkpoint"] += len(re.findall("resuming from", text))
            tally["unfinished writes reported"] += len(re.findall("an unfinished write", text))
            tally["saves completed on restart"] += len(re.findall("a save was cut short", text))
            for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
                different = differences(state_of_training(work / "whole", name), state_of_training(folder, name))
                tally["end states that differ"] += bool(different)
                if different:
                    print(f"{folder} {name}: {different[:5]}", file=sys.stderr)
            if not args.folder:
                shutil.rmtree(folder)
    print("\n".join(f"{count:6d} {what}" for what, count in tally.items()))
    print(f"{'script' if args.script else 'forks'}, seed {args.seed}, {time.monotonic() - began:.0f} s, {PACKAGE.name}")
    return tally


if __name__ == "__main__":
    sys.exit(main()["end states that differ"] > 0)
