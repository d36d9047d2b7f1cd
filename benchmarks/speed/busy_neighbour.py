"""A training step on a CPU while another process keeps a core busy, for several wait policies of OpenMP's threads.

The threads meet at a barrier after every operation. By default, early threads spin there, on the core that the late
thread needs. With OMP_WAIT_POLICY=PASSIVE they sleep and have to be woken; with GOMP_SPINCOUNT in addition, as the
scripts set it, they spin for a fraction of a millisecond first. One process per policy takes turns, with and without
the busy process. A turn in which other work used more than 5 % of the cores is repeated. A step is fairseq's whole
Trainer.train_step. Needs Linux.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch  # isort: skip  before measuring sets the variable, which OpenMP reads once, when torch loads it
import measuring
from trainers import random_batch, trainer_of

from lambda_bert_command import WAITING

POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "short spin": WAITING}


def work(options) -> None:
    """Read numbers of steps from stdin; for each write the seconds per step, and the core seconds of all steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of("lambda", options.length, options, Path(folder))
    sample = random_batch(options.length, options.batch, options.seed)
    torch.manual_seed(options.seed)
    for line in sys.stdin:
        seconds, before = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            trainer.train_step([sample])
            seconds.append(time.perf_counter() - start)
        print(json.dumps([seconds, time.process_time() - before]), flush=True)


def core_seconds(path: str = "/proc/stat") -> float:
    """Return the seconds that all cores have worked, or that the process with this ``stat`` file has used."""
    fields = Path(path).read_text().split("\n")[0].split()
    ticks = fields[13:15] if path != "/proc/stat" else fields[1:4] + fields[6:8]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def neighbour(busy: bool):
    """A context with a process that computes without pause, if ``busy``; yields a function that returns its seconds."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield (lambda: core_seconds(f"/proc/{process.pid}/stat")) if busy else (lambda: 0.0)
    finally:
        if process:
            process.kill()
            process.wait()


def worker(policy: dict[str, str], arguments: list[str]) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k not in POLICIES["short spin"]}
    environment |= policy | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--worker", *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(options, arguments: list[str]) -> dict[str, dict[str, float]]:
    """Return the median seconds per step for each policy, quiet and busy."""
    times = {name: {"quiet": [], "busy": []} for name in POLICIES}
    workers: dict[str, subprocess.Popen] = {}

    def steps(name: str, count: int) -> tuple[list[float], float]:
        workers[name].stdin.write(f"{count}\n")
        workers[name].stdin.flush()
        return json.loads(workers[name].stdout.readline() or sys.exit("error: the training process has ended"))

    def turn(name: str, others) -> list[float]:
        for _ in range(options.tries):
            before = core_seconds() - others()
            seconds, own = steps(name, options.steps)
            if core_seconds() - others() - before - own < 0.05 * sum(seconds) * os.cpu_count():
                return seconds
        sys.exit(f"error: other work used more than 5 % of the cores, {options.tries} times: wait until it has ended")

    for number in range(options.repeats):  # with new processes, because some are slow from their start to their end
        try:
            workers |= {name: worker(policy, arguments) for name, policy in POLICIES.items()}
            order = list(POLICIES) if number % 2 == 0 else list(POLICIES)[::-1]
            for name in order:
                steps(name, 2)
            for situation in ("quiet", "busy"):
                with neighbour(situation == "busy") as others:
                    for name in order:
                        times[name][situation] += turn(name, others)
        finally:
            for process in workers.values():
                process.kill()
                process.wait()
    return {name: {k: statistics.median(v) for k, v in of.items()} for name, of in times.items()}


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=8)
    parser.set_defaults(device="cpu")
    parser.add_argument("--size", default="mini", help="of lambda_bert (%(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens per sample (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="samples (%(default)s)")
    parser.add_argument("--autocast", choices=["none", "bfloat16"], help="default: bfloat16 if the processor has it")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per turn (%(default)s)")
    parser.add_argument("--tries", type=int, default=50, help="attempts per turn if other work runs (%(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = argv or sys.argv[1:]
    options = measuring.parse(parser, arguments)
    options.autocast = options.autocast or measuring.faster_precision("cpu")
    if options.worker:
        return work(options)
    seconds = measure(options, arguments)
    default = seconds["default"]
    rows = [{"policy": name, **of} for name, of in seconds.items()]
    print(measuring.table(rows, {"ms per step": ("policy",), "quiet": ("quiet", 1e-3), "busy": ("busy", 1e-3)}))
    for name in list(POLICIES)[1:]:
        print(", ".join(f"{name} / default, {k}: {seconds[name][k] / default[k]:.2f}" for k in default))
    shape = {k: getattr(options, k) for k in ("size", "length", "batch", "autocast", "repeats", "steps")}
    measuring.save(options, "busy_neighbour", [{"seconds": seconds}], shape=shape)


if __name__ == "__main__":
    main()
