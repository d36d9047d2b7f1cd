"""The lambda layer as block-banded matrix products in plain torch: CPU and any GPU, time and workspace linear in n.

The positions of a batch are worked on a span at a time, so that all between the inputs and y stays in the cache:

1. scores s[n, h, u, j] = q[n, h] . E[:, u, j], one matrix product;
2. the scores of each block of queries skewed into a band over the positions that it sees (:mod:`.bands`);
3. y = q lc + sum_u band[u] V[u], one product per sequence, and one per block and depth.

No position lambda (b, n, k, v) is ever stored. Only the inputs are kept for the backward pass, which computes scores
and bands again: they are the largest tensors, and the least work.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_lambda.ops.banded.bands import Bands
from fairseq_lambda.ops.eager import runs_eagerly


@runs_eagerly  # there is nothing left to fuse, and a compiler would trace the loop over spans
def lambda_mix_banded(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    span: int | None = None,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    ``span``: positions worked on at a time; ``block``: queries per block. The result does not depend on them, but for
    rounding; the defaults are measured.
    """
    return _LambdaMix.apply(queries, keys, values, position_embedding, span, block)


class _LambdaMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, values, position_embedding, span, block):
        ctx.save_for_backward(queries, keys, values, position_embedding)
        ctx.span, ctx.block = span, block
        bands = Bands(*queries.shape[:3], position_embedding.shape[-1], queries, span, block)
        embedding, padded = bands.pad_embedding(position_embedding), bands.pad_values(values)
        content_lambda = torch.bmm(_by_position(keys).transpose(1, 2), _by_position(values))
        q = queries.flatten(0, 1).contiguous()  # (N, h, k)
        y = q.new_empty(q.shape[0], q.shape[1], values.shape[2])  # (N, h, v)

        for positions, sequences in bands.spans():
            lambdas = content_lambda[sequences]
            torch.bmm(_rows(q[positions], lambdas), lambdas, out=_rows(y[positions], lambdas))
            for blocks in bands.blocks(positions):
                out = y[blocks.positions].view(blocks.count, -1, y.shape[-1])  # (count, B * h, v)
                scores = torch.mm(q[blocks.positions].flatten(0, 1), embedding)  # (count * B * h, u * r)
                for depth, of_depth in enumerate(bands.by_depth(scores, blocks)):
                    out.baddbmm_(bands.skew(of_depth, blocks), bands.seen(padded[depth], blocks))
        return y.unflatten(0, queries.shape[:2]), content_lambda

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_content):
        arguments = (*ctx.saved_tensors, grad_y, grad_content)
        grads = _LambdaMix.gradients(ctx, *arguments)
        of_embedding = grads[-1]
        if grad_y.shape[0] > 1 and grad_y.device.type == "cpu" and not of_embedding.isfinite().all():
            # NaN or infinity in a text's queries or in the gradient of its output always shows here. In the bands it
            # reaches the text's neighbours, as 0 x NaN: so each text alone. A GPU is not waited for.
            of_texts = [_LambdaMix.gradients(ctx, *text) for text in _texts(*arguments)]
            *grads, of_embedding = zip(*of_texts, strict=True)
            grads = *map(torch.cat, grads), torch.stack(of_embedding).sum(0)
        return *grads, None, None

    @staticmethod
    def gradients(ctx, queries, keys, values, position_embedding, grad_y, grad_content):
        """Return the gradients of the first four tensors, given those of the results."""
        bands = Bands(*queries.shape[:3], position_embedding.shape[-1], queries, ctx.span, ctx.block)
        embedding, padded = bands.pad_embedding(position_embedding), bands.pad_values(values)
        content_lambda = torch.bmm(_by_position(keys).transpose(1, 2), _by_position(values))
        q, g = queries.flatten(0, 1).contiguous(), grad_y.flatten(0, 1).contiguous()  # (N, h, k), (N, h, v)
        wide = torch.promote_types(q.dtype, torch.float32)  # of sums over spans
        grad_content = grad_content.to(wide, copy=True)
        grad_embedding = torch.zeros_like(embedding, dtype=wide)
        grad_padded = torch.zeros_like(padded, dtype=wide)
        grad_q = torch.empty_like(q)

        for positions, sequences in bands.spans():
            lambdas = content_lambda[sequences]
            g_rows = _rows(g[positions], lambdas)
            grad_content[sequences] += torch.bmm(_rows(q[positions], lambdas).transpose(1, 2), g_rows)
            torch.bmm(g_rows, lambdas.transpose(1, 2), out=_rows(grad_q[positions], lambdas))
            for blocks in bands.blocks(positions):
                g_blocks = g[blocks.positions].view(blocks.count, -1, g.shape[-1])  # (count, B * h, v)
                q_blocks = q[blocks.positions].flatten(0, 1)
                scores = torch.mm(q_blocks, embedding)  # overwritten with their gradient, one depth after the other
                for depth, of_depth in enumerate(bands.by_depth(scores, blocks)):
                    band, seen = bands.skew(of_depth, blocks), bands.seen(padded[depth], blocks)
                    bands.add_seen(grad_padded[depth], torch.bmm(band.transpose(1, 2), g_blocks), blocks)
                    bands.unskew(torch.bmm(g_blocks, seen.transpose(1, 2)), blocks, out=of_depth)
                grad_q[blocks.positions].flatten(0, 1).addmm_(scores, embedding.t())
                grad_embedding += torch.mm(q_blocks.t(), scores)

        grad_content = grad_content.to(q.dtype)
        grad_keys = torch.bmm(_by_position(values), grad_content.transpose(1, 2))  # (b, m * u, k)
        grad_values = torch.bmm(_by_position(keys), grad_content)  # (b, m * u, v)
        depth = keys.shape[-1]
        grad_keys, grad_values = (g.unflatten(1, (-1, depth)).transpose(2, 3) for g in (grad_keys, grad_values))
        grad_values = grad_values + bands.unpad_values(grad_padded)
        grad_embedding = grad_embedding.unflatten(1, (-1, bands.context))[..., : position_embedding.shape[-1]]
        return grad_q.view_as(queries), grad_keys, grad_values.to(q.dtype), grad_embedding.to(q.dtype)


def _texts(queries, keys, values, position_embedding, grad_y, grad_content) -> Iterator[tuple[Tensor, ...]]:
    """Yield the arguments of each text of the batch."""
    for i in range(queries.shape[0]):
        own = slice(i, i + 1)
        yield queries[own], keys[own], values[own], position_embedding, grad_y[own], grad_content[own]


def _by_position(x: Tensor) -> Tensor:
    """(b, m, d, u) -> (b, m * u, d)."""
    return x.transpose(2, 3).flatten(1, 2)


def _rows(flat: Tensor, lambdas: Tensor) -> Tensor:
    """A span (positions, h, d) of whole sequences, or of a part of one, as (sequences, positions * h, d)."""
    return flat.view(lambdas.shape[0], -1, flat.shape[-1])
