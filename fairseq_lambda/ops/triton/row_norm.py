"""Triton kernels for layer norm and RMS norm of short rows: the queries' norm, over the key depth of each head.

torch's kernels use a block of threads per row, even for 16 numbers; here each program handles many rows. The forward
pass reads x once and writes y. The backward pass reads x and y's gradient, recomputes the statistics, and sums the
gradients of weight and bias in float32, one slot per program and in a fixed order: no atomics, always the same bits.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from fairseq_lambda.ops.eager import runs_eagerly
from fairseq_lambda.ops.row_norm import torch_norm
from fairseq_lambda.ops.triton.kernels import _round
from fairseq_lambda.ops.unrolled import differentiable_gradients

MAX_DEPTH = 128
TILE = 2048  # numbers per step of a program
STEPS = 16  # steps per program of the backward pass


@runs_eagerly
def row_norm_triton(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
    """Return ``x`` (..., d) normalised over its last dimension, in x's dtype: :mod:`fairseq_lambda.ops.row_norm`."""
    with torch.cuda.device_of(x):
        return _RowNorm.apply(x, weight, bias, eps, centred)


class _RowNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps, centred):
        ctx.save_for_backward(x, weight, bias)
        ctx.eps, ctx.centred = eps, centred
        x = x.contiguous()
        y = torch.empty_like(x)
        depth = x.shape[-1]
        rows, constants = x.numel() // depth, _constants(depth, bias is not None, centred)
        norm_kernel[(triton.cdiv(rows, constants["ROWS"]),)](
            x, weight, weight if bias is None else bias, y, rows, eps, **constants, num_warps=4
        )
        return y

    @staticmethod
    def backward(ctx, grad_y):
        tensors = [tensor for tensor in ctx.saved_tensors if tensor is not None]
        if torch.is_grad_enabled():
            gradients = differentiable_gradients(functools.partial(_by_torch, ctx), tensors, (grad_y,))
            return *gradients, *[None] * (5 - len(gradients))
        x, weight, bias = ctx.saved_tensors
        x = x.contiguous()
        depth = x.shape[-1]
        rows, constants = x.numel() // depth, _constants(depth, bias is not None, ctx.centred)
        grad_x, programs = torch.empty_like(x), triton.cdiv(rows, constants["ROWS"] * STEPS)
        partial = torch.empty(programs, 2, depth, device=x.device)
        with torch.cuda.device_of(x):
            norm_backward_kernel[(programs,)](
                x, weight, grad_y.contiguous(), grad_x, partial, rows, ctx.eps, STEPS=STEPS, **constants, num_warps=4
            )
        grad_weight, grad_bias = partial.sum(0).to(weight.dtype)
        return grad_x, grad_weight, None if bias is None else grad_bias, None, None


def _by_torch(ctx, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor]:
    """Return what ``_RowNorm`` returns, in operations that torch can differentiate any number of times."""
    return (torch_norm(x.to(weight.dtype), weight, bias, ctx.eps, ctx.centred).to(x.dtype),)


def _constants(depth: int, has_bias: bool, centred: bool) -> dict:
    block = triton.next_power_of_2(depth)
    return {"DEPTH": depth, "BLOCK": block, "ROWS": TILE // block, "HAS_BIAS": has_bias, "CENTRED": centred}


@triton.jit
def _statistics(x, inside, eps, DEPTH: tl.constexpr, CENTRED: tl.constexpr):
    """Return x, minus its mean if CENTRED, and the reciprocal of its norm's denominator, per row."""
    if CENTRED:
        x = tl.where(inside, x - tl.sum(x, 1)[:, None] / DEPTH, 0.0)
    return x, tl.rsqrt(tl.sum(x * x, 1) / DEPTH + eps)


@triton.jit(do_not_specialize=["rows", "eps"])
def norm_kernel(
    x, weight, bias, y, rows, eps,
    DEPTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, HAS_BIAS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """y = (x - mean) / sqrt(var + eps) weight + bias of ROWS rows; without CENTRED x / sqrt(mean(x^2) + eps) weight."""
    column = tl.arange(0, BLOCK)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None] & (column < DEPTH)[None, :]
    at = row.to(tl.int64)[:, None] * DEPTH + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value, scale = _statistics(value, inside, eps, DEPTH, CENTRED)
    value *= scale[:, None] * tl.load(weight + column, mask=column < DEPTH, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        value += tl.load(bias + column, mask=column < DEPTH, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, _round(value, y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "eps"])
def norm_backward_kernel(
    x, weight, grad_y, grad_x, partial, rows, eps,
    STEPS: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, HAS_BIAS: tl.constexpr,
    CENTRED: tl.constexpr,
):  # fmt: skip
    """The gradients of STEPS times ROWS rows. With z the normalised row and g = gy weight::

    gx             = (g - mean(g) - z mean(g z)) / sqrt(var + eps)        without CENTRED there is no mean(g)
    partial[p, 0]  = sum of gy z over the rows,  partial[p, 1] = sum of gy
    """
    column = tl.arange(0, BLOCK)
    factor = tl.load(weight + column, mask=column < DEPTH, other=0.0).to(tl.float32)[None, :]
    sum_weight = tl.zeros((BLOCK,), tl.float32)
    sum_bias = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        row = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < DEPTH)[None, :]
        at = row.to(tl.int64)[:, None] * DEPTH + column[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        gy = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32)
        value, scale = _statistics(value, inside, eps, DEPTH, CENTRED)
        value *= scale[:, None]
        g = gy * factor
        slope = tl.sum(g * value, 1)[:, None] / DEPTH
        gx = g - value * slope
        if CENTRED:
            gx -= tl.sum(g, 1)[:, None] / DEPTH
        tl.store(grad_x + at, _round(gx * scale[:, None], grad_x.dtype.element_ty), mask=inside)
        sum_weight += tl.sum(gy * value, 0)
        sum_bias += tl.sum(gy, 0)
    partial += tl.program_id(0) * (2 * DEPTH)
    tl.store(partial + column, sum_weight, mask=column < DEPTH)
    tl.store(partial + DEPTH + column, sum_bias, mask=column < DEPTH)
