"""Kills a training again and again, at random moments and inside checkpoint writes, and compares how it ends.

    python tests/soak/kill_anything.py --kills 200
    python tests/soak/kill_anything.py --kills 10 --script     # through scripts/train_lambda_bert.sh, start-up and all

A training of a few seconds is started, killed with SIGKILL and started again until it is complete, then another one,
until there have been enough kills. Two kills in three aim at a checkpoint write, the first of a life or a later one, of
the new file or of one of its copies: they come when the unfinished file is seen, and count as inside the write only if
it is there, unfinished, after the kill, and was not there before this life. The end state (weights,
optimizer, position in the data, best score; of the last and of the best checkpoint) must be that of a training that was
never killed, to the bit. Without ``--script`` the processes are forks of one that has imported torch already.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from training import PACKAGE, arguments, differences, state_of_training, write_data  # noqa: E402

from fairseq_lambda.commands import fairseq_train as train_command  # noqa: E402
from fairseq_lambda.files import UNFINISHED  # noqa: E402

UPDATES, SAVES = 40, 3
KINDS = ["kills", "kills inside a write of a new file", "kills inside a copy", "kills elsewhere"]
KINDS += ["trainings completed", "end states that differ"]
# wide enough that a write takes some milliseconds
SHAPE = ["--encoder-embed-dim", "256", "--encoder-ffn-embed-dim", "512", "--save-interval-updates", str(SAVES)]
SHAPE += ["--keep-interval-updates", "1", "--no-epoch-checkpoints", "--dropout", "0.1", "--encoder-layerdrop", "0.2"]


def start(data: Path, folder: Path, log, script: bool) -> int:
    """Start or go on with the training in ``folder``; return its process id, which is also its process group."""
    if script:
        command = [ROOT / "scripts/train_lambda_bert.sh", "tiny", data, "--save-dir", folder, "--updates", UPDATES]
        command += [
            "--tokens-per-sample",
            32,
            "--batch-size",
            4,
            "--lambda-local-context",
            7,
            "--autocast",
            "none",
            *SHAPE,
        ]
        environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(c) for c in command], stdout=log, stderr=log, env=environment, start_new_session=True
        ).pid
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.argv = arguments(data, folder, UPDATES, *SHAPE)
        status = 1
        try:
            train_command.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        finally:
            os._exit(status if isinstance(status, int) else 1)
    return child


def ended(process: int) -> int | None:
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def unfinished(folder: Path) -> dict[str, int]:
    """Return name and inode of the files that are being written, or were when a process died."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.endswith(UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.inode()
    return found


def live(process: int, folder: Path, stale: dict, aim: int, rng: random.Random, longest: float) -> str:
    """Let the process run up to a moment, and kill it; return where it was hit, or how it ended by itself.

    Args:
        stale: what an earlier life left unfinished; it does not count.
        aim: the number of the write of this life to hit, from 1; 0: any moment.
    """
    moment, writes, last = time.monotonic() + rng.random() * longest, 0, None
    while (code := ended(process)) is None:
        if aim:
            new = sorted(unfinished(folder).items() - stale.items())
            if new and new != last:
                last, writes = new, writes + 1
                if writes >= aim:
                    time.sleep(rng.random() * 0.003 if "_last" not in new[0][0] and "_best" not in new[0][0] else 0)
                    break
            time.sleep(0.0001)
        elif time.monotonic() > moment:
            break
        else:
            time.sleep(0.005)
    else:
        return "complete" if code == 0 else f"failed with {code}"
    os.killpg(process, signal.SIGKILL)
    if ended_after_kill(process) == 0:
        return "complete"
    new = sorted(unfinished(folder).items() - stale.items())
    if not new:
        return "elsewhere"
    return "inside a copy" if "_last" in new[0][0] or "_best" in new[0][0] else "inside a write of a new file"


def ended_after_kill(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run_until_complete(data: Path, folder: Path, log_path: Path, script: bool, lives, tally: Counter) -> None:
    """Start the training in ``folder`` until it is complete, killing it as ``lives`` says; count into ``tally``."""
    while True:
        stale = unfinished(folder)
        with log_path.open("a") as log:
            process = start(data, folder, log, script)
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
    parser.add_argument("--script", action="store_true", help="through scripts/train_lambda_bert.sh; some 6 s a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep runs and logs here (default: a temporary folder)")
    args = parser.parse_args(argv)
    rng, tally, began = random.Random(args.seed), Counter(), time.monotonic()
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
            tally["restarts that went on from a checkpoint"] += len(re.findall("resuming from", text))
            tally["unfinished writes reported"] += len(re.findall("a write that was not finished", text))
            tally["saves completed on restart"] += len(re.findall("the save was cut short", text))
            for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
                different = differences(state_of_training(work / "whole", name), state_of_training(folder, name))
                tally["end states that differ"] += bool(different)
                if different:
                    print(f"{folder} {name}: {different[:5]}", file=sys.stderr)
            if not args.folder:
                for path in folder.iterdir():
                    path.unlink()
    for key in KINDS:
        tally.setdefault(key, 0)
    print("\n".join(f"{count:6d} {what}" for what, count in tally.items()))
    print(f"{'script' if args.script else 'forks'}, seed {args.seed}, {time.monotonic() - began:.0f} s, {PACKAGE.name}")
    return tally


if __name__ == "__main__":
    sys.exit(main()["end states that differ"] > 0)
