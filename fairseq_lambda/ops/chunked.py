"""The lambda layer as block-banded matrix products in plain torch: time and memory O(n r), CPU and any GPU.

Three steps, none of which stores a position lambda (b, n, k, v):

1. scores s[n, h, u, j] = q[n, h] . E[:, u, j], one matrix product;
2. for a block of B queries, the scores skewed into a band over the B + r - 1 context positions that the block can see,
   row (i, h) shifted right by i, with the queries themselves appended as k more columns;
3. one matrix product a block with the values that the block sees, the content lambda appended as k more rows.

In step 3 the band is multiplied by real zeros outside its r diagonals; B = ``block_size`` trades these wasted
products, B - 1 in B + r - 1, for larger products.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class _Band(torch.autograd.Function):
    """Skews scores (..., B, h, u, r) into a band and appends the queries (..., B, h, k) behind it.

    Returns (..., B, h, u * (B + r - 1) + k) with ``band[i, h, u, i + j] = scores[i, h, u, j]`` and zeros elsewhere.
    The shift by i is a matter of strides: one step down a diagonal is one row and one column. Autograd's own way to
    it, pad and reshape, makes three copies forward and three back; this makes one each.
    """

    @staticmethod
    def _diagonals(band: Tensor, shape: torch.Size, columns: int) -> Tensor:
        """A view (..., B, h, u, r) of the diagonals of a contiguous band whose rows have ``columns`` entries."""
        *lead, block, heads, _, context = shape
        width = block + context - 1
        strides = (*band.stride()[: len(lead)], heads * columns + 1, columns, width, 1)
        return band.as_strided(shape, strides, band.storage_offset())

    @staticmethod
    def forward(ctx, scores: Tensor, queries: Tensor) -> Tensor:
        *lead, block, heads, depth, context = scores.shape
        tail = queries.shape[-1]
        columns = depth * (block + context - 1) + tail
        band = scores.new_empty(*lead, block, heads, columns)
        band[..., :-tail].zero_()
        _Band._diagonals(band, scores.shape, columns).copy_(scores)
        band[..., -tail:].copy_(queries)
        ctx.scores_shape, ctx.tail = scores.shape, tail
        return band

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad = grad.contiguous()
        scores = _Band._diagonals(grad, ctx.scores_shape, grad.shape[-1])
        return scores, grad[..., -ctx.tail :]


def default_block_size(context: int) -> int:
    """Queries a block: the power of two that is next to the context, from 16 to 256 (fastest of 16 ... 64 on CPU)."""
    return min(max(16, 1 << (context - 1).bit_length()), 256)


def lambda_mix_chunked(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`."""
    batch, length, heads, dim_k = queries.shape
    dim_v, dim_u = values.shape[2:]
    context = position_embedding.shape[-1]
    reach = context // 2
    block = min(block_size or default_block_size(context), length)
    blocks = -(-length // block)
    tail = blocks * block - length  # queries that only fill the last block

    content_lambda = torch.matmul(
        keys.permute(0, 2, 3, 1).reshape(batch, dim_k, dim_u * length),
        values.permute(0, 3, 1, 2).reshape(batch, dim_u * length, dim_v),
    )  # (b, k, v)

    q = F.pad(queries, (0, 0, 0, 0, 0, tail)) if tail else queries
    q = q.reshape(batch, blocks, block, heads, dim_k)
    scores = torch.matmul(q, position_embedding.reshape(dim_k, dim_u * context))
    band = _Band.apply(scores.view(batch, blocks, block, heads, dim_u, context), q)

    seen = F.pad(values, (0, 0, 0, 0, reach, reach + tail))  # (b, r // 2 + n + tail + r // 2, v, u)
    seen = seen.unfold(1, block + context - 1, block)  # (b, blocks, v, u, B + r - 1)
    seen = seen.permute(0, 1, 3, 4, 2).reshape(batch, blocks, -1, dim_v)
    summary = content_lambda.unsqueeze(1).expand(batch, blocks, dim_k, dim_v)
    y = torch.matmul(band.flatten(2, 3), torch.cat([seen, summary], dim=2))  # (b, blocks, B * h, v)
    return y.view(batch, blocks * block, heads, dim_v)[:, :length], content_lambda
