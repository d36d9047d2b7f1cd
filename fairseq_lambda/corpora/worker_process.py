"""The program of a worker process (see workers.py): items from standard input, results to standard output.

It runs as a file and replaces our package with an empty one, because our ``__init__`` would import fairseq and torch,
which take hundreds of megabytes in each worker.
"""

import importlib
import os
import pickle
import signal
import sys
from pathlib import Path
from types import ModuleType


def serve() -> None:
    """Create the function that the first message describes, and apply it to each item that follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole process group; the parent decides
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing printed gets mixed into the replies
    package = ModuleType("fairseq_lambda")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["fairseq_lambda"] = package
    from fairseq_lambda.corpora.errors import PrepareError

    function = None
    while True:
        try:
            item = pickle.load(requests)
        except (EOFError, pickle.UnpicklingError):
            return  # there are no more items, or the parent was killed
        if function is None:
            module, name, arguments = item
            function = getattr(importlib.import_module(module), name)(*arguments)
            continue
        try:
            reply = function(item)
        except PrepareError as error:
            reply = error
        try:
            pickle.dump(reply, replies, protocol=pickle.HIGHEST_PROTOCOL)
            replies.flush()
        except BrokenPipeError:
            os._exit(0)


if __name__ == "__main__":
    # Python puts this file's folder first, and its modules would hide others of the same names
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
    serve()
