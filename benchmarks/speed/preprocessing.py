"""Time, CPU time and peak memory of ``lambda-bert preprocess``, over all its processes.

Memory is summed over the processes at the same moment, sampled every 0.2 seconds: ``rss`` counts shared pages once per
process, ``pss`` once. ``--copies 2`` reads the train split twice, as two files. Needs Linux.
"""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import measuring

STAGES = ("reading", "learning", "encoding")  # the first words of progress lines
SAMPLE = 0.2  # seconds


def memory_of(group: int) -> tuple[int, int]:
    """Return the memory of the processes in a process group, in bytes: the sums of RSS and of PSS."""
    rss = pss = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) != group:
                continue
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss += int(line.split()[1]) * 1024
                elif line.startswith("Pss:"):
                    pss += int(line.split()[1]) * 1024
        except (OSError, ValueError):  # the process has ended
            continue
    return rss, pss


def measure(command: list[str]) -> dict:
    """Run the command in its own process group; return its times by stage and its peaks.

    Raises:
        SystemExit: the command failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(measuring.ROOT), "PYTHONWARNINGS": "ignore"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    stage, spent, peaks = "start", Counter(), {"rss": Counter(), "pss": Counter()}

    def follow():
        nonlocal stage
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            word = line.split(maxsplit=1)[0] if line.strip() else ""
            stage = word if word in STAGES else stage

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    last = began
    while process.poll() is None:
        now, sums = time.monotonic(), memory_of(process.pid)
        for kind, value in zip(peaks, sums, strict=True):
            peaks[kind][stage] = max(peaks[kind][stage], value)
        spent[stage] += now - last
        last = now
        time.sleep(SAMPLE)
    reader.join()
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} has failed with code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_rss": max(peaks["rss"].values()),
        "peak_pss": max(peaks["pss"].values()),
        "stage_seconds": {name: round(seconds, 1) for name, seconds in spent.items()},
        "stage_peak_rss": dict(peaks["rss"]),
    }


def with_copies(corpus: Path, copies: int, folder: Path) -> Path:
    """Return a folder with several copies of the corpus's train split, as links."""
    for path in sorted(corpus.iterdir()):
        if path.name.startswith("train."):
            for number in range(copies):
                (folder / f"train-{number}{path.name.removeprefix('train')}").symlink_to(path.resolve())
        elif path.name.startswith(("valid.", "test.")):
            (folder / path.name).symlink_to(path.resolve())
    return folder


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=None)
    parser.set_defaults(device="cpu")
    parser.add_argument("corpus", type=Path, help="folder with train, valid and test")
    parser.add_argument("--copies", type=int, default=1, help="copies of the train split (%(default)s)")
    parser.add_argument("--vocab-size", type=int, default=16000, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--dest", type=Path, help="keep the result here (default: remove it)")
    options = measuring.parse(parser, argv)
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch, "text")
        text.mkdir()
        corpus = with_copies(options.corpus, options.copies, text) if options.copies > 1 else options.corpus
        dest = options.dest or Path(scratch, "data")
        command = [sys.executable, "-m", "fairseq_lambda.commands", "preprocess", str(corpus), "--dest", str(dest)]
        command += ["--vocab-size", str(options.vocab_size), "--workers", str(options.workers)]
        row = measure(command)
        row["output_bytes"] = sum(path.stat().st_size for path in dest.iterdir())
    row = {"corpus": options.corpus.resolve().name, "copies": options.copies, **row}
    columns = {
        "s": ("seconds", 1),
        "CPU s": ("cpu_seconds", 1),
        "RSS MB": ("peak_rss", 1e6),
        "PSS MB": ("peak_pss", 1e6),
    }
    print(measuring.table([row], {"corpus": ("corpus",), "copies": ("copies",), **columns}))
    shape = {"vocab_size": options.vocab_size, "workers": options.workers}
    name = "preprocessing" if options.copies == 1 else f"preprocessing-{options.copies}_copies"
    measuring.save(options, name, [row], shape=shape)


if __name__ == "__main__":
    main()
