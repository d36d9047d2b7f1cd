"""Memory and open files of a training after 200 and after 2,000 updates, with data workers.

    python tests/soak/leaks.py --updates 2000

Epochs are short, so that some ninety sets of workers come and go. The main process's own memory counts (what it shares
with the workers included once), after a garbage collection, and the files that it holds open.
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


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--early", type=int, default=EARLY, help="update of the first measurement (%(default)s)")
    args = parser.parse_args(argv)
    marks, step = {}, Trainer.train_step

    def watched(trainer, samples, *rest):
        out = step(trainer, samples, *rest)
        # in mid-epoch both times: the workers of the epoch are there
        if trainer.get_num_updates() in (args.early, args.updates - 1):
            gc.collect()
            marks[trainer.get_num_updates()] = resident(), len(os.listdir("/proc/self/fd"))
        return out

    Trainer.train_step = watched
    with tempfile.TemporaryDirectory() as work:
        data = write_data(Path(work) / "data")
        train(data, Path(work) / "run", args.updates, "--num-workers", args.workers, "--log-format", "none",
              "--save-interval-updates", 200, "--keep-interval-updates", 1, "--no-epoch-checkpoints")  # fmt: skip
    (early, files), (late, files_late) = marks.values()
    growth = 100 * (late / early - 1)
    print(f"{early // 1024} KiB and {files} files after {args.early} updates")
    print(f"{late // 1024} KiB and {files_late} files after {args.updates - 1} updates: memory {growth:+.1f} %")
    return int(growth > 5 or files_late > files + 2)


if __name__ == "__main__":
    sys.exit(main())
