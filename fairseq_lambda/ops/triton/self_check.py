"""The check that the Triton kernels compute the right numbers: compared with plain torch before they are first used.

A compiler, driver or GPU that the kernels have never run on may give wrong results, and training would hide them. Each
kind of input is checked once per process, on random numbers; once the kernels are compiled this takes milliseconds.
Triton is imported only for a check.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.autocast import without_autocast
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.eager import runs_eagerly
from fairseq_lambda.ops.triton.support import kernels

logger = logging.getLogger(__name__)

BATCH, LENGTH = 2, 290  # several blocks of positions, the last one not full
NORM_NUMBERS = 70_000  # the backward kernel of the norm takes some 30,000 at a time
# The largest error allowed, relative to the root mean square; in Triton's interpreter errors reach a fifth of it.
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.0125, torch.float32: 1e-4}
TF32_TOLERANCE = TOLERANCE[torch.float16]  # both have 10 bits of mantissa


class Mixing(NamedTuple):
    """What the kernels of the lambda layer are compiled for."""

    device: torch.device
    dtype: torch.dtype
    heads: int
    dim_k: int
    dim_v: int
    dim_u: int
    context: int
    tf32: bool

    def __str__(self) -> str:
        shape = f"heads={self.heads} k={self.dim_k} v={self.dim_v} u={self.dim_u} r={self.context}"
        return f"{str(self.dtype).removeprefix('torch.')}, {shape}"


class Norm(NamedTuple):
    """What the kernels of the norm are compiled for."""

    device: torch.device
    dtype: torch.dtype
    weight_dtype: torch.dtype
    depth: int
    has_bias: bool
    centred: bool

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, {'layer' if self.centred else 'RMS'} norm of {self.depth}"


_good: set[Mixing | Norm] = set()
_failures: list[str] = []


def why_wrong(queries: Tensor, values: Tensor, position_embedding: Tensor) -> str | None:
    """Return why the kernels must not be used for tensors like these, or None if they compute what "banded" does.

    Checks the forward and the backward pass. After any failure, including one of the norm's kernels, the same reason is
    returned for all tensors.
    """
    dim_k, dim_u, context = position_embedding.shape
    shape = queries.shape[2], dim_k, values.shape[2], dim_u, context
    return _why_wrong(Mixing(queries.device, queries.dtype, *shape, torch.backends.cuda.matmul.allow_tf32))


def why_norm_wrong(x: Tensor, weight: Tensor, bias: Tensor | None, centred: bool) -> str | None:
    """Return the same for the kernels of :mod:`fairseq_lambda.ops.row_norm`, compared with torch's own."""
    return _why_wrong(Norm(x.device, x.dtype, weight.dtype, x.shape[-1], bias is not None, centred))


@cache  # each reason once
def warn(reason: str) -> None:
    """Warn that plain torch is used from now on."""
    logger.warning(f"using plain torch instead of Triton: {reason}")


@runs_eagerly
def _why_wrong(kind: Mixing | Norm) -> str | None:
    if _failures:
        return _failures[0]
    if kind in _good or (kind.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):  # cannot wait
        return None
    if reason := _check(kind):
        _failures.append(reason)
        return reason
    _good.add(kind)
    return None


@torch.inference_mode(False)
@torch.enable_grad()
def _check(kind: Mixing | Norm) -> str | None:
    """Return why the kernels fail, or None. Leaves the random state alone."""
    against, names, case = _CASES[type(kind)]
    with without_autocast(kind.device):
        tensors, gradients, expected = case(kind)
        try:
            ours = _kernels(kind)
            exact = _results(expected, *([t.double() for t in some] for some in (tensors, gradients)))
            errors = _errors(_results(ours, tensors, gradients), exact)
        except torch.OutOfMemoryError:  # says nothing about the kernels: the next call may find memory
            raise
        except Exception as error:  # the compiler and the driver raise many kinds
            first_line = (str(error).strip().splitlines() or [""])[0]
            return f"its kernels fail for {kind} ({type(error).__name__}: {first_line[:200]})"
    tolerance = TF32_TOLERANCE if getattr(kind, "tf32", False) else 0
    tolerance = max(tolerance, TOLERANCE[kind.dtype])
    if all(error <= tolerance for error in errors):  # False for NaN, too
        return None
    numbers = ", ".join(f"{name} {error:.1e}" for name, error in zip(names, errors, strict=False))
    return (
        f"its kernels differ from {against} for {kind} (largest error over the root mean square, {tolerance:.1e} "
        f"allowed: {numbers})"
    )


def _kernels(kind: Mixing | Norm) -> Callable:
    if isinstance(kind, Mixing):
        return kernels("mix").lambda_mix_triton
    row_norm_triton = kernels("row_norm").row_norm_triton
    return lambda x, weight, bias=None: row_norm_triton(x, weight, bias, 1e-5, kind.centred)


def mixing_case(kind: Mixing) -> tuple[list[Tensor], list[Tensor], Callable]:
    """Return queries, keys, values and position embedding; gradients of both results; what to compare with."""
    shapes = [
        (BATCH, LENGTH, kind.heads, kind.dim_k),
        (BATCH, LENGTH, kind.dim_k, kind.dim_u),
        (BATCH, LENGTH, kind.dim_v, kind.dim_u),
        (kind.dim_k, kind.dim_u, kind.context),
        (BATCH, LENGTH, kind.heads, kind.dim_v),
        (BATCH, kind.dim_k, kind.dim_v),
    ]
    drawn = _draw(shapes, kind)
    return drawn[:4], drawn[4:], lambda_mix_banded


def norm_case(kind: Norm) -> tuple[list[Tensor], list[Tensor], Callable]:
    """Return x, weight, and bias if there is one; the gradient of y; what to compare with."""

    def torchs(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if kind.centred:
            return F.layer_norm(x, (kind.depth,), weight, bias, 1e-5)
        return F.rms_norm(x, (kind.depth,), weight, 1e-5)

    rows = NORM_NUMBERS // kind.depth
    x, weight, bias, gradient = _draw([(rows, kind.depth), (kind.depth,), (kind.depth,), (rows, kind.depth)], kind)
    weight, bias = weight.to(kind.weight_dtype), bias.to(kind.weight_dtype)
    return [x, weight, bias][: 2 + kind.has_bias], [gradient], torchs


_CASES = {
    Mixing: (
        "'banded'",
        ("y", "content_lambda", "grad queries", "grad keys", "grad values", "grad position_embedding"),
        mixing_case,
    ),
    Norm: ("torch's", ("y", "grad x", "grad weight", "grad bias"), norm_case),
}


def _draw(shapes: list[tuple[int, ...]], kind: Mixing | Norm) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(kind.device, kind.dtype) for shape in shapes]


def _results(function: Callable, tensors: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    tensors = [t.detach().requires_grad_() for t in tensors]
    outputs = function(*tensors)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return [*outputs, *torch.autograd.grad(outputs, tensors, gradients)]


def _errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    pairs = zip(found, expected, strict=True)
    return torch.stack([(f.double() - e).abs().amax() / e.square().mean().sqrt() for f, e in pairs]).tolist()
