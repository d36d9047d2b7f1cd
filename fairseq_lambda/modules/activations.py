"""Activations by name. The names are fairseq's, because checkpoints store them."""

from functools import partial

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "linear": lambda x: x,
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
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
