"""A decorator for functions that torch.compile should leave alone."""

import functools
from collections.abc import Callable

import torch


def runs_eagerly(function: Callable) -> Callable:
    """Return ``function``, wrapped so that ``torch.compile`` breaks its graph there.

    As a decorator, ``torch.compiler.disable`` imports the compiler, and with it Triton, even in a process that compiles
    nothing. Here it is called only while something is being compiled.
    """

    @functools.wraps(function)
    def call(*args, **options):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **options)
        return function(*args, **options)

    return call
