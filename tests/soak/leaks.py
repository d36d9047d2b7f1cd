"""Memory and open files of a training after 200 and after 2,000 updates, with data workers.

    python tests/soak/leaks.py --updates 2000

Epochs are short, so that some ninety sets of workers come and go. The main process's resident memory counts, after
a garbage collection, and the files that it holds open: the fewest over the last two epochs, because each tensor that
waits in the loader's queue is an open file for as long as it waits.
"""

import argparse
import gc
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fairseq.trainer import Trainer  # noqa: E402
from training import train, write_data  # noqa: E402

EARLY = 200
WINDOW = 50  # updates, two epochs and more


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--early", type=int, default=EARLY, help="update of the first measurement (%(default)s)")
    args = parser.parse_args(argv)
    memory, files, step = {}, {}, Trainer.train_step

    def watched(trainer, samples, *rest):
        out = step(trainer, samples, *rest)
        now = trainer.get_num_updates()
        for mark in (args.early, args.updates - 1):
            if mark - WINDOW < now <= mark:
                files.setdefault(mark, []).append(len(os.listdir("/proc/self/fd")))
            if now == mark:
                gc.collect()
                memory[mark] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return out

    Trainer.train_step = watched
    with tempfile.TemporaryDirectory() as work:
        data = write_data(Path(work) / "data")
        train(data, Path(work) / "run", args.updates, "--num-workers", args.workers, "--log-format", "none",
              "--save-interval-updates", 200, "--keep-interval-updates", 1, "--no-epoch-checkpoints")  # fmt: skip
    for mark, counts in files.items():
        print(f"update {mark}: {memory[mark] // 1024} KiB, {min(counts)} to {max(counts)} files open")
    (early, late), (fewest, fewest_late) = memory.values(), map(min, files.values())
    return int(late > 1.05 * early or fewest_late > fewest)


if __name__ == "__main__":
    sys.exit(main())
