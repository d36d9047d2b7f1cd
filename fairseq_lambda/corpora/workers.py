"""Worker processes for text: an ordered map that keeps few items in memory at a time.

They are not multiprocessing's, whose children import the program that started them, including torch and fairseq.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from fairseq_lambda.corpora.errors import PrepareError

_SCRIPT = Path(__file__).with_name("worker_process.py")


def available_cores() -> int:
    """Return how many cores this process may use; under a batch system these are not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Several processes that apply the same function; a context.

    Args:
        count: number of processes; 0: the function is applied in this process.
        factory: returns the function when called with ``arguments``. Each process imports it by name, without fairseq
            and torch.
        arguments: of the factory; they are pickled.
    """

    def __init__(self, count: int, factory: Callable, *arguments):
        self._idle: SimpleQueue[subprocess.Popen] = SimpleQueue()
        self._processes: list[subprocess.Popen] = []
        self._function = None if count else factory(*arguments)
        try:
            for _ in range(count):
                process = subprocess.Popen([sys.executable, _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._processes.append(process)
                _send((factory.__module__, factory.__qualname__, arguments), process)
                self._idle.put(process)
        except BaseException:
            self.__exit__()
            raise
        self._threads = ThreadPoolExecutor(max(count, 1))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        for process in self._processes:
            process.kill()
        if self._processes and hasattr(self, "_threads"):
            self._threads.shutdown()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def map(self, items: Iterable) -> Iterator:
        """Yield the function's result for each item, in order; at most two items per process are in memory.

        Raises:
            PrepareError: the function raised it, or a process has ended.
        """
        if self._function is not None:
            yield from map(self._function, items)
            return
        under_way: deque = deque()
        for item in items:
            under_way.append(self._threads.submit(self._apply, item))
            if len(under_way) >= 2 * len(self._processes):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _apply(self, item):
        process = self._idle.get()
        try:
            _send(item, process)
            result = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            process.kill()
            raise PrepareError(
                f"a worker process has ended (code {process.wait()}): if memory ran out, pass fewer --workers"
            ) from None
        finally:
            self._idle.put(process)
        if isinstance(result, PrepareError):
            raise result
        return result


def _send(item, process: subprocess.Popen) -> None:
    pickle.dump(item, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()
