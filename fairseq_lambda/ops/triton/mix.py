"""The lambda layer through the Triton kernels of :mod:`fairseq_lambda.ops.triton.kernels`."""

import torch
import triton
from torch import Tensor

from fairseq_lambda.ops.eager import runs_eagerly
from fairseq_lambda.ops.triton.kernels import (
    backward_kernel,
    combine_kernel,
    content_kernel,
    forward_kernel,
    query_kernel,
)
from fairseq_lambda.ops.triton.tiles import Tile, backward_tile, forward_tile, query_tile
from fairseq_lambda.ops.unrolled import differentiable_gradients, lambda_mix_unrolled

CONTENT_SPAN, CONTENT_BLOCK = 1024, 64  # positions per program of content_kernel, and per step
COMBINE_SPAN = 64  # context positions per program of combine_kernel


@runs_eagerly
def lambda_mix_triton(
    queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    Takes float32, bfloat16 and float16; products accumulate in float32. As in torch, products of float32 have its full
    precision unless ``torch.backends.cuda.matmul.allow_tf32`` is set. Time and memory are O(n r); the tensors saved for
    backward are the inputs and the content lambda. Two runs give the same bits. The inputs may have any strides. Under
    ``torch.compile`` the graph breaks here.
    """
    with torch.cuda.device_of(queries):  # kernels start on the current device, which need not be the tensors'
        return _LambdaMix.apply(queries, keys, values, position_embedding)


class _LambdaMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, values, embedding):
        content = content_lambda(keys, values)
        ctx.save_for_backward(queries, keys, values, embedding, content)
        embedding = embedding.contiguous()
        y = mix(queries, values, embedding, content, forward_tile(queries, embedding))
        ctx.set_materialize_grads(False)
        return y, content

    @staticmethod
    def backward(ctx, grad_y, grad_content):
        *tensors, content = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable_gradients(lambda_mix_unrolled, tensors, (grad_y, grad_content))
        queries, keys, values, embedding = tensors
        embedding = embedding.contiguous()
        if grad_y is None:  # only the content lambda was used
            grad_y = queries.new_zeros(*queries.shape[:3], values.shape[2])
        with torch.cuda.device_of(queries):
            tile = backward_tile(queries, embedding)
            return mix_backward(queries, keys, values, embedding, content, grad_y, grad_content, tile)


def _block(depth: int, largest: int = 128) -> int:
    """Return the tile that holds ``depth`` channels: a power of two, at least the 16 that tensor cores need."""
    return min(max(16, triton.next_power_of_2(depth)), largest)


def _precision() -> str:
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def content_lambda(keys: Tensor, values: Tensor) -> Tensor:
    """Return lc (b, k, v), summed over spans of positions in float32."""
    batch, length, dim_k, dim_u = keys.shape
    dim_v = values.shape[2]
    spans, block_v = -(-length // CONTENT_SPAN), _block(dim_v, 32)
    dtype = keys.dtype if spans == 1 else torch.float32
    partial = torch.empty(batch, spans, dim_k, dim_v, dtype=dtype, device=keys.device)
    content_kernel[(batch * spans * -(-dim_v // block_v),)](
        keys, values, partial, length, *keys.stride(), *values.stride(),
        DIM_K=dim_k, DIM_V=dim_v, DIM_U=dim_u, SPAN=CONTENT_SPAN, BLOCK=CONTENT_BLOCK,
        BLOCK_K=_block(dim_k), BLOCK_V=block_v, PRECISION=_precision(), num_warps=4, num_stages=3,
    )  # fmt: skip
    return partial.squeeze(1) if spans == 1 else partial.sum(1).to(keys.dtype)


def mix(queries: Tensor, values: Tensor, embedding: Tensor, content: Tensor, tile: Tile) -> Tensor:
    """Return y (b, n, h, v), given the content lambda."""
    batch, length, heads, dim_k = queries.shape
    dim_v, dim_u = values.shape[2:]
    y = torch.empty(batch, length, heads, dim_v, dtype=queries.dtype, device=queries.device)
    block_v = _block(dim_v, tile.channels)
    programs = batch * -(-length // tile.block) * -(-heads // tile.group) * -(-dim_v // block_v)
    forward_kernel[(programs,)](
        queries, values, embedding, content, y, length, *queries.stride(), *values.stride(),
        HEADS=heads, DIM_K=dim_k, DIM_V=dim_v, DIM_U=dim_u, CONTEXT=embedding.shape[2],
        BLOCK=tile.block, GROUP=tile.group, BLOCK_K=_block(dim_k), BLOCK_V=block_v, PRECISION=_precision(),
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return y


def mix_backward(
    queries: Tensor, keys: Tensor, values: Tensor, embedding: Tensor, content: Tensor,
    grad_y: Tensor, grad_content: Tensor | None, tile: Tile,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of queries, keys, values and position embedding, each contiguous."""
    batch, length, heads, dim_k = queries.shape
    dim_v, dim_u, context = *values.shape[2:], embedding.shape[2]
    device, dtype = queries.device, queries.dtype
    grad_y = grad_y.contiguous()
    block_v = _block(dim_v, tile.channels)
    blocks, channel_tiles, tiles = -(-length // tile.block), -(-dim_v // block_v), -(-context // tile.block)
    depths = {"DIM_K": dim_k, "DIM_V": dim_v, "DIM_U": dim_u, "CONTEXT": context}
    shape = {"BLOCK": tile.block, "BLOCK_K": _block(dim_k), "BLOCK_V": block_v, "PRECISION": _precision()}
    launch = {"num_warps": tile.warps, "num_stages": tile.stages}

    grad_queries = torch.empty(queries.shape, dtype=dtype, device=device)
    partial_values = torch.empty(batch, blocks, dim_u * tiles, 2 * tile.block, dim_v, device=device)
    partial_embedding = torch.empty(batch * blocks * channel_tiles, *embedding.shape, device=device)
    partial_content = torch.empty(batch, blocks, dim_k, dim_v, device=device)
    backward_kernel[(batch * blocks * channel_tiles * dim_u * tiles,)](
        queries, values, embedding, content, grad_y,
        grad_queries, partial_values, partial_embedding, partial_content,
        length, *queries.stride(), *values.stride(), HEADS=heads, GROUP=tile.group, **depths, **shape, **launch,
    )  # fmt: skip
    if channel_tiles * dim_u * tiles > 1:
        tile = query_tile(queries, embedding)
        query_kernel[(batch * -(-length // tile.block) * -(-heads // tile.group),)](
            values, embedding, content, grad_y, grad_queries,
            length, *values.stride(), HEADS=heads, GROUP=tile.group, **depths, **(shape | {"BLOCK": tile.block}),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip

    grad_keys = torch.empty(keys.shape, dtype=dtype, device=device)
    grad_values = torch.empty(values.shape, dtype=dtype, device=device)
    sum_content = partial_content.sum(1)
    combine_kernel[(batch * -(-length // COMBINE_SPAN) * dim_u,)](
        keys, values, partial_values, sum_content,
        sum_content if grad_content is None else grad_content.contiguous(), grad_keys, grad_values,
        length, *keys.stride(), *values.stride(), HAS_GRAD_CONTENT=grad_content is not None,
        SPAN=COMBINE_SPAN, **depths, **shape, num_warps=4 if dtype.itemsize == 2 else 8, num_stages=2,
    )  # fmt: skip
    return grad_queries, grad_keys, grad_values, partial_embedding.sum(0).to(dtype)
