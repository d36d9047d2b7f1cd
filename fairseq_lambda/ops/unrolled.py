"""The lambda layer in plain torch operations, for any length: for exporters, tracers and torch.func.

The faster backends choose their blocks by the length, so a graph recorded from them would work for that length alone.
They also have backward passes of their own, which torch.func cannot transform and which have no derivatives: second
derivatives come from here.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.autocast import without_autocast
from fairseq_lambda.ops.reference import lambda_mix_reference

MAX_OFFSETS = 255  # the graph has a few operations per offset; longer contexts use the reference's n x n table


def is_recording() -> bool:
    """Return whether torch.export, torch.onnx or torch.jit.trace records a graph."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def is_transformed() -> bool:
    """Return whether a torch.func transform is active: vmap, grad, jvp or one built from them."""
    return torch._C._are_functorch_transforms_active()


def lambda_mix_unrolled(
    queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    A sum over offsets, one after the other: ``y[n] = lc^T q[n] + sum_j,u (q[n] . E[:, u, j]) V[n + j - r // 2, :, u]``.
    """
    offsets, length = position_embedding.shape[-1], queries.shape[1]
    if offsets > MAX_OFFSETS:
        return lambda_mix_reference(queries, keys, values, position_embedding)
    content_lambda = torch.einsum("bmku,bmvu->bkv", keys, values)
    scores = torch.einsum("bnhk,kuj->bnhuj", queries, position_embedding)
    padded = F.pad(values, (0, 0, 0, 0, offsets // 2, offsets // 2))  # (b, n + r - 1, v, u)
    y = torch.einsum("bnhk,bkv->bnhv", queries, content_lambda)
    for j in range(offsets):
        y = y + torch.einsum("bnhu,bnvu->bnhv", scores[..., j], padded[:, j : j + length])
    return y, content_lambda


def differentiable_gradients(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return differentiable gradients of ``tensors``, given the ``gradients`` of the results of ``function(*tensors)``.

    A tensor that needs no gradient gets None; None in ``gradients`` stands for a result that was not used. The backward
    pass may run inside an autocast region, which has no effect here.

    For backward passes under ``create_graph=True``, that is, with ``torch.is_grad_enabled()``. There, gradients
    computed in any other way would count as constants, and second derivatives would silently lack them.
    """
    inputs = [tensor.view_as(tensor) for tensor in tensors]  # one may have been computed from another
    asked = [x for x in inputs if x.requires_grad]
    with without_autocast(inputs[0].device):
        pairs = zip(function(*inputs), gradients, strict=True)
        used = [(y, given) for y, given in pairs if y.requires_grad and given is not None]  # y may be of others alone
        results, given = [y for y, _ in used], [given for _, given in used]
        found = iter(torch.autograd.grad(results, asked, given, create_graph=True, allow_unused=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)
