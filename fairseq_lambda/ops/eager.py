"""A decorator for functions that torch.compile is to leave alone."""

import functools
from collections.abc import Callable

import torch


def runs_eagerly(function: Callable) -> Callable:
    """Return ``function``, at which the graph of ``torch.compile`` breaks.

    ``torch.compiler.disable`` as a decorator imports the compiler, and with it Triton, which a process that compiles
    nothing need not have. Here it is called when something is being compiled.
    """

    @functools.wraps(function)
    def call(*args, **options):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **options)
        return function(*args, **options)

    return call
