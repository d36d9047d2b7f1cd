"""Activations by name. The names are fairseq's, because checkpoints store them."""

from functools import partial

import torch
import torch.nn.functional as F


# functions with names, because lambdas cannot be pickled
def _linear(x: torch.Tensor) -> torch.Tensor:
    return x


def _relu_squared(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x).square()


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "linear": _linear,
    "relu": F.relu,
    "relu_squared": _relu_squared,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str):
    """Return the function that ``name`` stands for.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r}: unknown, choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
