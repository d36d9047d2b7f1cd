"""One function, :func:`lambda_mix`, with one signature over several backends."""

import logging
from functools import cache

from torch import Tensor

from fairseq_lambda.ops.chunked import lambda_mix_chunked
from fairseq_lambda.ops.reference import lambda_mix_reference
from fairseq_lambda.ops.toeplitz import lambda_mix_toeplitz
from fairseq_lambda.ops.toeplitz_cost import prefers_toeplitz
from fairseq_lambda.ops.triton_support import why_not, why_not_here

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "chunked", "triton")


def _lambda_mix_triton(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    from fairseq_lambda.ops.triton_mix import lambda_mix_triton  # nothing else imports Triton

    return lambda_mix_triton(*tensors)


_FUNCTIONS = {"reference": lambda_mix_reference, "chunked": lambda_mix_chunked, "triton": _lambda_mix_triton}


def resolve_backend(backend: str, queries: Tensor | None = None, position_embedding: Tensor | None = None) -> str:
    """Return the backend that ``backend`` stands for: itself, or what ``auto`` picks.

    Without tensors, as when a layer is built, ``auto`` stays ``auto``: its choice depends on their device, type and
    shape. It is ``triton`` on CUDA, ``chunked`` elsewhere and where the kernels cannot serve; each choice is logged
    once a process, with the reason.

    Raises:
        ValueError: an unknown name, or a backend that cannot serve, with the reason.
    """
    if backend not in BACKENDS:
        raise ValueError(f"--lambda-backend {backend}: unknown backend, choose one of {', '.join(BACKENDS)}")
    if backend == "triton":
        reason = why_not_here() if queries is None else why_not(queries, position_embedding)
        if reason:
            raise ValueError(f"--lambda-backend triton: {reason}; use 'auto' or 'chunked', which runs everywhere")
    if backend != "auto" or queries is None:
        return backend
    device = queries.device.type
    reason = why_not(queries, position_embedding) if device == "cuda" else None
    choice = "triton" if device == "cuda" and reason is None else "chunked"
    _log_choice(choice, device, reason)
    return choice


@cache  # so that each choice is logged once a process
def _log_choice(choice: str, device: str, reason: str | None) -> None:
    because = f", not 'triton': {reason}" if reason else ""
    logger.info(f"--lambda-backend auto: using {choice!r} on {device}{because}")


def lambda_mix(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Return the layer's output y (b, n, h, v) and its content lambda (b, k, v).

    LambdaNetworks (Bello, 2021), equations 1 and 2, multi-query form with intra-depth::

        content lambda   lc    = sum_m,u  K[m,k,u] V[m,v,u]
        position lambda  lp[n] = sum_m,u  E[k,u,m-n + r//2] V[m,v,u]      over |m-n| <= r // 2
        y[n,h,:]               = (lc + lp[n])^T q[n,h,:]

    Args:
        queries: (b, n, h, k).
        keys: (b, n, k, u), already normalised over the positions, zero where padded.
        values: (b, n, v, u), zero where padded.
        position_embedding: E, (k, u, r) with r odd; index j stands for the offset m - n = j - r // 2. It may reach
            further than the sequence; a context that covers every pair is r = 2 n - 1.
        backend: "auto", "reference", "triton", or "chunked", which works by Fourier transforms where the context is so
            long that they are estimated to be faster (:mod:`fairseq_lambda.ops.toeplitz`).

    Differentiable in every tensor. All four must have one dtype and device.

    Raises:
        ValueError: see :func:`resolve_backend`; an even r.
    """
    context, length = position_embedding.shape[-1], queries.shape[1]
    if context % 2 == 0:
        raise ValueError(f"position_embedding has {context} offsets; a centred context needs an odd number")
    excess = context // 2 - (length - 1)
    if excess > 0:  # offsets that no pair of this sequence has
        position_embedding = position_embedding[..., excess:-excess]
    backend = resolve_backend(backend, queries, position_embedding)
    if backend == "chunked" and prefers_toeplitz(queries, values, position_embedding):
        return lambda_mix_toeplitz(queries, keys, values, position_embedding)
    return _FUNCTIONS[backend](queries, keys, values, position_embedding)
