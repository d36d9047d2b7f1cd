""":func:`row_norm`: layer norm or RMS norm over a short last dimension, by the fastest kernel available."""

import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.triton.self_check import warn, why_norm_wrong
from fairseq_lambda.ops.triton.support import kernels, norms_rows
from fairseq_lambda.ops.unrolled import is_transformed


def row_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
    """Return ``x`` (..., d) normalised over its last dimension, statistics in float32 at least::

        (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        centred: layer norm (Ba et al., 2016)
        x / sqrt(mean(x^2) + eps) * weight                        otherwise: RMS norm (Zhang & Sennrich, 2019)

    On CUDA, rows of up to 128 numbers use the Triton kernels if these pass
    :mod:`fairseq_lambda.ops.triton.self_check`; the result then has x's dtype. Otherwise torch's own functions are
    used, which may return float32 under autocast.
    """
    if norms_rows(x) and not is_transformed() and _is_right(x, weight, bias, centred):
        return kernels("row_norm").row_norm_triton(x, weight, bias, eps, centred)
    return torch_norm(x, weight, bias, eps, centred)


def torch_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
    """Return what :func:`row_norm` returns, computed by torch's own functions."""
    if centred:
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def _is_right(x: Tensor, weight: Tensor, bias: Tensor | None, centred: bool) -> bool:
    reason = why_norm_wrong(x, weight, bias, centred)
    if reason:
        warn(reason)
    return reason is None
