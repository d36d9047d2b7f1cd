"""Whether the Triton kernels compute the right numbers here: compared with plain torch before they are first used.

A compiler, a driver or a card that the kernels have never run on may get them wrong, and training would hide it.
Imports Triton only when it checks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.eager import runs_eagerly

BATCH, LENGTH = 2, 290  # several blocks of positions, the last one not full, and two spans of the content lambda
NAMES = ("y", "content_lambda", "grad queries", "grad keys", "grad values", "grad position_embedding")
# The largest error allowed, over the root mean square of the numbers; the interpreter's kernels have a fifth of it.
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.0125, torch.float32: 1e-4}
TF32_TOLERANCE = TOLERANCE[torch.float16]  # which has as many bits


class Kind(NamedTuple):
    """What kernels are compiled for."""

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


_good: set[Kind] = set()
_failures: list[str] = []


@runs_eagerly
def why_wrong(queries: Tensor, values: Tensor, position_embedding: Tensor) -> str | None:
    """Return why the kernels are not to be used for tensors like these, None if they compute what "banded" does.

    Checks each kind of tensors once per process, forward and backward, on random numbers, which takes milliseconds
    where kernels are compiled. After a failure it returns the same reason for all tensors. No random state is touched.
    """
    if _failures:
        return _failures[0]
    dim_k, dim_u, context = position_embedding.shape
    kind = Kind(
        queries.device,
        queries.dtype,
        queries.shape[2],
        dim_k,
        values.shape[2],
        dim_u,
        context,
        torch.backends.cuda.matmul.allow_tf32,
    )
    if kind in _good or (queries.is_cuda and torch.cuda.is_current_stream_capturing()):  # which cannot wait
        return None
    if reason := _check(kind):
        _failures.append(reason)
        return reason
    _good.add(kind)
    return None


@torch.inference_mode(False)
@torch.enable_grad()
def _check(kind: Kind) -> str | None:
    with torch.autocast(kind.device.type, enabled=False):
        tensors, gradients = random_case(kind)
        try:
            from fairseq_lambda.ops.triton.mix import lambda_mix_triton

            found = _results(lambda_mix_triton, tensors, gradients)
            exact = [[t.double() for t in some] for some in (tensors, gradients)]
            expected = _results(lambda_mix_banded, *exact)
            errors = _errors(found, expected)
        except Exception as error:  # compiler and driver raise many kinds
            first_line = (str(error).strip().splitlines() or [""])[0]
            return f"its kernels fail for {kind} ({type(error).__name__}: {first_line[:200]})"
    tolerance = TF32_TOLERANCE if kind.dtype == torch.float32 and kind.tf32 else TOLERANCE[kind.dtype]
    if all(error <= tolerance for error in errors):  # not NaN either
        return None
    numbers = ", ".join(f"{name} {error:.1e}" for name, error in zip(NAMES, errors, strict=True))
    return (
        f"its kernels differ from 'banded' for {kind} (largest error over the root mean square, {tolerance:.1e} "
        f"allowed: {numbers})"
    )


def random_case(kind: Kind) -> tuple[list[Tensor], list[Tensor]]:
    """Return queries, keys, values and position embedding, and gradients of y and of the content lambda."""
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (BATCH, LENGTH, kind.heads, kind.dim_k),
        (BATCH, LENGTH, kind.dim_k, kind.dim_u),
        (BATCH, LENGTH, kind.dim_v, kind.dim_u),
        (kind.dim_k, kind.dim_u, kind.context),
        (BATCH, LENGTH, kind.heads, kind.dim_v),
        (BATCH, kind.dim_k, kind.dim_v),
    ]
    drawn = [torch.randn(shape, generator=generator).to(kind.device, kind.dtype) for shape in shapes]
    return drawn[:4], drawn[4:]


def _results(function, tensors: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    tensors = [t.detach().requires_grad_() for t in tensors]
    outputs = function(*tensors)
    return [*outputs, *torch.autograd.grad(outputs, tensors, gradients)]


def _errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    pairs = zip(found, expected, strict=True)
    return torch.stack([(f.double() - e).abs().amax() / e.square().mean().sqrt() for f, e in pairs]).tolist()
