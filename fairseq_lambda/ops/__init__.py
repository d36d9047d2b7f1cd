"""One function, :func:`lambda_mix`, with one signature over several backends."""

import logging
from functools import cache

from torch import Tensor

from fairseq_lambda.ops.chunked import lambda_mix_chunked
from fairseq_lambda.ops.reference import lambda_mix_reference

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "chunked", "triton")
_FUNCTIONS = {"reference": lambda_mix_reference, "chunked": lambda_mix_chunked}


@cache  # so that the choice is logged once a process
def resolve_backend(backend: str) -> str:
    """Return the backend that ``backend`` stands for: itself, or what ``auto`` picks.

    Raises:
        ValueError: an unknown name, or a backend that cannot serve, with the reason.
    """
    if backend == "auto":
        logger.info("--lambda-backend auto: using 'chunked'")
        return "chunked"
    if backend == "triton":
        raise ValueError(
            "--lambda-backend triton: the Triton kernels are not written yet; use 'auto' or 'chunked', "
            "which runs on CPU and on any GPU"
        )
    if backend not in _FUNCTIONS:
        raise ValueError(f"--lambda-backend {backend}: unknown backend, choose one of {', '.join(BACKENDS)}")
    return backend


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
        backend: "auto", "reference" or "chunked".

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
    return _FUNCTIONS[resolve_backend(backend)](queries, keys, values, position_embedding)
