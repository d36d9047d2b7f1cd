"""What runs in a worker process (see workers.py): takes items from standard input, writes results to standard output.

It is run as a file, and puts an empty package in the place of ours, whose ``__init__`` would import fairseq and torch,
hundreds of megabytes in each worker.
"""

import importlib
import os
import pickle
import signal
import sys
from pathlib import Path
from types import ModuleType


def serve() -> None:
    """Make the function that the first message names, and apply it to each item that follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: the parent decides
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing that is printed gets among the replies
    package = ModuleType("fairseq_lambda")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["fairseq_lambda"] = package
    from fairseq_lambda.corpora.errors import PrepareError

    function = None
    while True:
        try:
            item = pickle.load(requests)
        except (EOFError, pickle.UnpicklingError):
            return  # there is no more, or the parent was killed
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
    # the folder of this file, which Python puts first, has modules with names of others
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
    serve()
