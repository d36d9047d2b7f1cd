"""Several projections of one input, in training on a CPU as one matrix product."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def project(x: Tensor, *layers: nn.Module | None) -> list[Tensor | None]:
    """Return the output of each layer on ``x`` (..., C), None for a layer that is None.

    On a CPU a narrow product is slow, and autocast turns x to bfloat16 and its gradient back for each of them. So in
    training linear layers without a bias are one product with their weights one below the other. Layers that do more
    than that, those of another class (adapters) or with hooks, are called, and so are all where a graph is recorded.
    """
    present = [layer for layer in layers if layer is not None]
    trains_on_cpu = x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad
    is_recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if len(present) < 2 or not trains_on_cpu or is_recorded or not all(map(_is_plain, present)):
        return [None if layer is None else layer(x) for layer in layers]
    joined = F.linear(x, torch.cat([layer.weight for layer in present]))
    outputs = iter(joined.split([layer.out_features for layer in present], dim=-1))
    return [None if layer is None else next(outputs) for layer in layers]


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.bias is None and not any(getattr(layer, hooks) for hooks in HOOKS)
