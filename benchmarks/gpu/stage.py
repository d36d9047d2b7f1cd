"""What the stages of gpu.sh share: flags, the clock, rows that are written as they are measured, and device times."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/ops"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

import measuring
import torch

from fairseq_lambda.ops.triton import tiles

HERE = Path(__file__).resolve().parent


class Stage:
    """One stage: its options, its clock, and the file of its rows.

    Args:
        name: of the stage; its rows go to FOLDER/name.jsonl.
    """

    def __init__(self, name: str):
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--seconds", type=float, default=60)
        parser.add_argument("--seed", type=int, default=1)
        options = parser.parse_args()
        self.name, self.device, self.out, self.seed = name, options.device, options.out, options.seed
        self.seconds, self.start = options.seconds, time.monotonic()
        if self.cuda and not torch.cuda.is_available():
            sys.exit("error: torch finds no CUDA device; --device cpu tries the command without one")
        self.out.mkdir(parents=True, exist_ok=True)
        self.failures: list[str] = []
        torch.manual_seed(self.seed)

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def left(self) -> float:
        """The remaining seconds."""
        return self.seconds - (time.monotonic() - self.start)

    def write(self, **row) -> dict:
        """Append one row to the file, and print it."""
        with open(self.out / f"{self.name}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        return row

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.failures.append(what)
            print(f"FAILED: {what}", flush=True)

    def finish(self) -> None:
        """End the process: exit code 1 if a check failed."""
        for what in self.failures:
            print(f"FAILED: {what}")
        sys.exit(1 if self.failures else 0)

    def use_tiles(self) -> None:
        """Use the fastest tiles found by the stage ``tiles``, if it ran."""
        path = self.out / "tiles.json"
        if path.exists():
            for name, table in json.loads(path.read_text()).items():
                for size, block, *tile in table:
                    getattr(tiles, name)[size, block] = tiles.Tile(*tile)

    def ceiling(self, key: str) -> float | None:
        """Return a limit from the stage ``card``, ``bytes_per_second`` or ``flop_per_second``; None without it."""
        path = self.out / "card.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return next((row[key] for row in rows if key in row), None)

    def times(self, function: Callable, budget: float = 0.3) -> dict[str, float]:
        """Return seconds per call: ``eager``, for calls queued one after another as in training, which includes the
        CPU's work if that is slower; on CUDA also ``device``, for the same work replayed from a graph."""
        result = {"eager": self._per_call(function, budget)}
        if self.cuda:
            graph = torch.cuda.CUDAGraph()
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                function()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                function()
            result["device"] = self._per_call(graph.replay, budget)
        return result

    def _per_call(self, function: Callable, budget: float) -> float:
        function()
        once = measuring.seconds(function, self.device)
        calls = max(1, min(200, int(budget / 5 / max(once, 1e-6))))
        runs = [measuring.seconds(lambda: [function() for _ in range(calls)], self.device) / calls for _ in range(5)]
        return sorted(runs)[2]


def in_processes(calls: list[tuple]) -> Iterator[tuple]:
    """Run calls (function, argument) in several processes on one device; yield (call, result) as they finish.

    Triton's compiler takes most of the time, on one core per call. If a call raised an exception, that is its result.
    """
    workers = max(1, min(len(calls), (os.cpu_count() or 2) - 1, 14))
    os.environ["OMP_NUM_THREADS"] = "1"  # for the workers
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, argument): (function, argument) for function, argument in calls}
        for future in as_completed(futures):
            yield futures[future], future.exception() or future.result()
