"""A training step on a CPU without the changes that reduce its overhead, and with these changes added one by one.

Each row includes the changes of the rows above. All rows take turns, so that disturbances affect all of them; a row's
gain is the median over turns of the ratio of its step to that of the row above. Changes that a process needs from its
start are measured between processes, the others within one. A step is fairseq's whole Trainer.train_step, in bfloat16
if the processor is faster in it. Its floor is that of training_step.py: the operations of its products over the rate of
a large product, the median of one measurement per turn.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import measuring
import torch
from step_parts import costs
from trainers import random_batch, trainer_of

from fairseq_lambda.commands.train import KEEPS_MEMORY
from fairseq_lambda.models.lambda_bert_config import SIZES

COLUMNS = {
    "tokens": ("length",),
    "model": ("model",),
    "with": ("change",),
    "ms": ("seconds", 1e-3),
    "over the row above": ("over_previous", 1, 3),
    "over the floor": ("over_floor", 1, 2),
}


class Change(NamedTuple):
    """A change: environment variables, or the flags of a step without it."""

    name: str
    environment: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()


ADAM = "--optimizer adam --adam-eps 1e-6 --weight-decay 0.01 --adam-betas".split()
CHANGES = (
    Change("nothing"),
    Change("freed memory kept", environment=tuple(KEEPS_MEMORY.items())),
    Change("threads spin before they sleep", environment=(("GOMP_SPINCOUNT", "5000"),)),
    Change("fused_adam", flags=(*ADAM, "(0.9, 0.98)")),
)


def work(options) -> None:
    """Read [row, steps] from stdin; write the seconds of each step, or for 0 steps the floor (operations / rate)."""
    logging.disable(logging.INFO)
    batch, trainers = max(1, options.tokens // options.length), {}
    sample = random_batch(options.length, batch, options.seed)
    dtype = torch.bfloat16 if options.autocast == "bfloat16" else torch.float32
    for line in sys.stdin:
        row, steps = json.loads(line)
        missing = CHANGES[row + 1 :]
        flags = tuple(flag for change in missing for flag in change.flags)
        if flags not in trainers:
            with tempfile.TemporaryDirectory() as folder:
                trainers[flags] = trainer_of(options.model, options.length, options, Path(folder), flags)
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            trainers[flags].train_step([sample])
            seconds.append(time.perf_counter() - start)
        if steps == 0:
            operations = sum(costs(trainers[flags].model.encoder.bert, options.length, options.length * batch).values())
            seconds = [operations / measuring.matmul_rate(dtype, "cpu")]
        print(json.dumps(seconds), flush=True)


def environment_of(row: int) -> dict[str, str]:
    """Return the environment of a process that measures ``row``: with the changes up to it, without later ones."""
    every = {name for change in CHANGES for name, _ in change.environment}
    own = {name: value for change in CHANGES[: row + 1] for name, value in change.environment}
    return {name: value for name, value in os.environ.items() if name not in every} | own


def measure(model: str, length: int, options) -> list[dict]:
    """Return a row for each of CHANGES, with the medians over turns."""
    processes, worker_of = {}, []
    for row in range(len(CHANGES)):
        environment = environment_of(row)
        key = json.dumps(environment, sort_keys=True)
        if key not in processes:
            command = [sys.executable, __file__, "--worker", "--model", model, "--length", length]
            for name in ("size", "tokens", "autocast", "seed"):
                command += [f"--{name}", getattr(options, name)]
            processes[key] = subprocess.Popen(
                list(map(str, command)),
                env=environment | {"PYTHONWARNINGS": "ignore"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        worker_of.append(processes[key])

    def ask(row: int, steps: int) -> float:
        worker_of[row].stdin.write(f"[{row}, {steps}]\n")
        worker_of[row].stdin.flush()
        line = worker_of[row].stdout.readline() or sys.exit("error: the training process has ended")
        return statistics.mean(json.loads(line))

    times, floors, rows = [[] for _ in CHANGES], [], range(len(CHANGES))
    try:
        for row in rows:
            ask(row, 2)
        for turn in range(options.repeats):
            for row in rows if turn % 2 == 0 else reversed(rows):
                times[row].append(ask(row, options.steps))
            floors.append(ask(rows[-1], 0))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    floor, result = statistics.median(floors), []
    for row, change in enumerate(CHANGES):
        seconds = statistics.median(times[row])
        found = {"length": length, "model": model, "change": change.name, "seconds": seconds}
        found |= {"fastest": min(times[row]), "floor": floor, "over_floor": seconds / floor}
        if row:
            found["over_previous"] = statistics.median(b / a for a, b in zip(*times[row - 1 : row + 1], strict=True))
        result.append(found)
    return result


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = measuring.parser(__doc__, repeats=8)
    parser.set_defaults(device="cpu")
    parser.add_argument("--size", choices=SIZES, default="base", help="(%(default)s)")
    parser.add_argument("--models", nargs="+", choices=["lambda", "baseline"], default=["lambda", "baseline"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--tokens", type=int, default=2048, help="per step (%(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="timed steps per turn (%(default)s)")
    parser.add_argument("--autocast", choices=["none", "bfloat16"], help="default: bfloat16 if it is faster")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    options = measuring.parse(parser, argv)
    options.autocast = options.autocast or measuring.faster_precision("cpu")
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    if options.worker:
        return work(options)
    rows = []
    for length in options.lengths:
        for model in options.models:
            measuring.say(f"{model}, {length} tokens")
            rows += measure(model, length, options)
    print(measuring.table(rows, COLUMNS))
    shape = {key: getattr(options, key) for key in ("size", "autocast", "tokens", "repeats", "steps")}
    measuring.save(options, "step_changes", rows, shape=shape)


if __name__ == "__main__":
    main()
