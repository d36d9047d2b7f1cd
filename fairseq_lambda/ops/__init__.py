"""One function, :func:`lambda_mix`, with one signature over several backends."""

import logging
from functools import cache

import torch
from torch import Tensor

from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.fourier.cost import prefers_fourier
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier
from fairseq_lambda.ops.reference import lambda_mix_reference
from fairseq_lambda.ops.triton.support import kernels, why_not, why_not_here
from fairseq_lambda.ops.unrolled import is_recording, lambda_mix_unrolled

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "banded", "fourier", "triton")
OLD_NAMES = {"chunked": "banded"}


def _lambda_mix_triton(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    return kernels("mix").lambda_mix_triton(*tensors)


_FUNCTIONS = {
    "reference": lambda_mix_reference,
    "banded": lambda_mix_banded,
    "fourier": lambda_mix_fourier,
    "triton": _lambda_mix_triton,
}


def check_backend(backend: str) -> str:
    """Return the present name of ``backend``: "chunked" is what "banded" was called.

    Raises:
        ValueError: an unknown name, or "triton" where no tensor can go through its kernels, with the reason.
    """
    backend = OLD_NAMES.get(backend, backend)
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend}: unknown, choose one of {', '.join(BACKENDS)}")
    if backend == "triton" and (reason := why_not_here()):
        raise _refused(reason)
    return backend


def resolve_backend(backend: str, queries: Tensor, values: Tensor, position_embedding: Tensor) -> str:
    """Return the backend that serves these tensors: ``backend`` itself, or what "auto" picks.

    "auto" is "triton" on CUDA where the kernels can serve. Elsewhere it is the cheaper of "banded" and "fourier", by
    the estimate of :mod:`fairseq_lambda.ops.fourier.cost`. Each choice is logged once per process, with the reason.

    Raises:
        ValueError: "triton", and its kernels cannot take these tensors, with the reason.
    """
    if backend not in ("auto", "triton"):
        return backend
    device = queries.device.type
    reason = why_not(queries, position_embedding) if device == "cuda" or backend == "triton" else None
    if backend == "triton":
        if reason:
            raise _refused(reason)
        return backend
    if device == "cuda" and reason is None:
        choice = "triton"
    else:
        choice = "fourier" if prefers_fourier(queries, values, position_embedding) else "banded"
    _log_choice(choice, device, reason)
    return choice


def _refused(reason: str) -> ValueError:
    return ValueError(f"backend=triton: {reason}; use backend=auto, or backend=banded, which runs everywhere")


@cache  # so that each choice is logged once per process
def _log_choice(choice: str, device: str, reason: str | None) -> None:
    because = f", not 'triton': {reason}" if reason else ""
    logger.info(f"lambda backend auto: using {choice!r} on {device}{because}")


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
        backend: "auto"; "reference", the equations as they stand; "banded", block-banded matrix products; "fourier",
            fast Fourier transforms, for long contexts; "triton", kernels for CUDA.

    Differentiable in every tensor. All four must have one dtype and device. Exporters and tracers record a graph that
    serves any length, whatever the backend: :mod:`fairseq_lambda.ops.unrolled`.

    Raises:
        ValueError: see :func:`check_backend` and :func:`resolve_backend`; an even r.
    """
    context, length = position_embedding.shape[-1], queries.shape[1]
    if context % 2 == 0:
        raise ValueError(f"position_embedding has {context} offsets; a centred context needs an odd number")
    backend = check_backend(backend)
    if is_recording():
        return lambda_mix_unrolled(queries, keys, values, position_embedding)
    excess = context // 2 - (length - 1)
    if excess > 0:  # offsets that no pair of this sequence has
        position_embedding = position_embedding[..., excess:-excess]
    backend = resolve_backend(backend, queries, values, position_embedding)
    with torch.autocast(queries.device.type, enabled=False):  # all four have one dtype, and so have the results
        return _FUNCTIONS[backend](queries, keys, values, position_embedding)
