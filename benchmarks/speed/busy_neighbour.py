"""A training step on a CPU beside another process that keeps a core busy, with OMP_WAIT_POLICY=PASSIVE and without.

OpenMP's threads meet at a barrier after every operation. By default those that are early spin there, on the core that
the late one waits for; with PASSIVE they sleep. Two processes, one with the variable and one without, take turns in
both situations. A turn in which other work had more than 5 % of the cores is done again. A step is all of fairseq's
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

FOLDER = Path(__file__).resolve().parent
POLICIES = {"default": None, "passive": "PASSIVE"}


def work(options) -> None:
    """Read numbers of steps from stdin; for each write the seconds of its steps and those of all cores on them."""
    import torch  # before measuring, which sets the variable
    from training_step import parse, random_batch, trainer_of

    shape = parse(["--device", "cpu", "--size", options.size, "--seed", str(options.seed)])
    shape.autocast = options.autocast
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dict.txt").write_text("".join(f"w{i} 1\n" for i in range(shape.vocabulary)))
        trainer = trainer_of("lambda", options.length, shape, Path(folder))
    sample = random_batch(options.length, options.batch, shape)
    torch.manual_seed(options.seed)
    for line in sys.stdin:
        seconds, before = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            trainer.train_step([sample])
            seconds.append(time.perf_counter() - start)
        print(json.dumps([seconds, time.process_time() - before]), flush=True)


def core_seconds(path: str = "/proc/stat") -> float:
    """Return the seconds that all cores have worked, or those of the process of this ``stat`` file."""
    fields = Path(path).read_text().split("\n")[0].split()
    ticks = fields[13:15] if path != "/proc/stat" else fields[1:4] + fields[6:8]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def neighbour(busy: bool):
    """A process that computes without a pause, if ``busy``; yields a function of the seconds that it has had."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield (lambda: core_seconds(f"/proc/{process.pid}/stat")) if busy else (lambda: 0.0)
    finally:
        if process:
            process.kill()
            process.wait()


def worker(policy: str | None, arguments: list[str]) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"PYTHONWARNINGS": "ignore"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, __file__, "--worker", *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(options, arguments: list[str]) -> dict[str, dict[str, float]]:
    """Return the median seconds of a step for each policy, quiet and busy."""
    times = {name: {"quiet": [], "busy": []} for name in POLICIES}
    workers = {name: worker(policy, arguments) for name, policy in POLICIES.items()}

    def steps(name: str, count: int) -> tuple[list[float], float]:
        workers[name].stdin.write(f"{count}\n")
        workers[name].stdin.flush()
        return json.loads(workers[name].stdout.readline() or sys.exit("error: the process that trains has ended"))

    def turn(name: str, others) -> list[float]:
        for _ in range(options.tries):
            before = core_seconds() - others()
            seconds, own = steps(name, options.steps)
            if core_seconds() - others() - before - own < 0.05 * sum(seconds) * os.cpu_count():
                return seconds
        sys.exit(f"error: other work had more than 5 % of the cores, {options.tries} times: wait until it has ended")

    try:
        for name in POLICIES:
            steps(name, 3)
        for number in range(options.rounds):
            order = list(POLICIES) if number % 2 == 0 else list(POLICIES)[::-1]
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="mini", help="of lambda_bert (%(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="samples (%(default)s)")
    parser.add_argument("--autocast", choices=["none", "bfloat16"], help="default: bfloat16 where the processor has it")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each in each situation (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps in a turn (%(default)s)")
    parser.add_argument("--tries", type=int, default=50, help="of a turn, until nothing else runs (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER.parent / "results/speed/busy_neighbour.jsonl")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(arguments)
    if options.worker:
        return work(options)
    from measuring import markdown, multiplies_bfloat16, setting, setting_line

    options.autocast = options.autocast or ("bfloat16" if multiplies_bfloat16("cpu") else "none")
    seconds = measure(options, [*arguments, "--autocast", options.autocast])
    rows = [["ms per step", "quiet", "busy"]]
    rows += [[name, *(f"{1000 * s[k]:.0f}" for k in ("quiet", "busy"))] for name, s in seconds.items()]
    ratio = {k: seconds["passive"][k] / seconds["default"][k] for k in ("quiet", "busy")}
    rows.append(["passive / default", *(f"{ratio[k]:.2f}" for k in ("quiet", "busy"))])
    shape = {k: getattr(options, k) for k in ("size", "length", "batch", "autocast", "rounds", "steps")}
    where = setting("cpu", options.seed)
    print(f"{markdown(rows)}\n\n{setting_line(shape)}\n{setting_line(where)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seconds": seconds, "shape": shape, "setting": where}) + "\n")


if __name__ == "__main__":
    main()
