"""The lambda layer as a graph for any length: what exporters and tracers record in place of the faster backends.

Those choose their blocks by the length that they see, so a graph of them would serve that length alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.reference import lambda_mix_reference

MAX_OFFSETS = 255  # a graph has some operations for each; longer contexts take the reference's n x n table


def is_recording() -> bool:
    """Return whether torch.export, torch.onnx or torch.jit.trace records a graph."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


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
