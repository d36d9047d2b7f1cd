"""The lambda layer as block-banded matrix products in plain torch: CPU and any GPU.

For a given r, time and workspace are linear in n; both grow with r.

The positions of a batch are processed one span at a time, which keeps all intermediate results in the cache:

1. scores s[n, h, u, j] = q[n, h] . E[:, u, j], one matrix product;
2. the scores of each block of queries, skewed into a band over the positions that it sees (:mod:`.bands`);
3. y = q lc + sum_u band[u] V[u], one product per sequence, and one per block and depth.

No position lambda (b, n, k, v) is ever stored. Only the inputs are kept for the backward pass, which recomputes scores
and bands: they are the largest tensors and the cheapest to compute.
"""

import torch
from torch import Tensor

from fairseq_lambda.ops.autocast import without_autocast
from fairseq_lambda.ops.banded.bands import Bands
from fairseq_lambda.ops.documents import Documents
from fairseq_lambda.ops.eager import runs_eagerly
from fairseq_lambda.ops.unrolled import differentiable_gradients, lambda_mix_unrolled


@runs_eagerly  # there is nothing left to fuse, and a compiler would trace the loop over spans
def lambda_mix_banded(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    span: int | None = None,
    block: int | None = None,
    documents: Documents | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    With ``documents``, each document in the packed rows is mixed as if it were alone; the content lambdas are
    (documents, k, v).

    NaN or infinity in one sequence does not reach the others. On a GPU this holds for the results but not for the
    gradients, because checking them would mean waiting for the device.

    ``span``: positions processed at a time; ``block``: queries per block. Apart from rounding, the result does not
    depend on them. The defaults were chosen by measurement.

    Raises:
        RuntimeError: a second derivative was requested with ``documents``.
    """
    return _LambdaMix.apply(queries, keys, values, position_embedding, span, block, documents)


class _LambdaMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, values, position_embedding, span, block, documents):
        ctx.save_for_backward(queries, keys, values, position_embedding)
        ctx.layout = span, block, documents
        bands = Bands(*queries.shape[:3], position_embedding.shape[-1], queries, *ctx.layout)
        embedding, padded = bands.pad_embedding(position_embedding), bands.pad_values(values)
        content_lambda = _content_lambda(keys, values, documents)
        q = queries.flatten(0, 1).contiguous()  # (N, h, k)
        result = q.new_empty(*queries.shape[:3], values.shape[2])  # not a view, which could not be changed in place
        y = result.flatten(0, 1)  # (N, h, v)

        if documents is not None:
            y.zero_()  # padded positions are never written
        for positions, parts in bands.spans():
            _multiply(q[positions], content_lambda, y[positions], parts)
            for blocks in bands.blocks(positions):
                out = y[blocks.positions].view(blocks.count, -1, y.shape[-1])  # (count, B * h, v)
                scores = torch.mm(q[blocks.positions].flatten(0, 1), embedding)  # (count * B * h, u * r)
                for depth, of_depth in enumerate(bands.by_depth(scores, blocks)):
                    out.baddbmm_(bands.skew(of_depth, blocks), bands.seen(padded[depth], blocks))
        return result, content_lambda

    @staticmethod
    def backward(ctx, grad_y, grad_content):
        if torch.is_grad_enabled():
            if ctx.layout[2] is not None:
                raise RuntimeError(
                    "packed documents have no second derivative in backend=banded: use backend=reference"
                )
            gradients = differentiable_gradients(lambda_mix_unrolled, ctx.saved_tensors, (grad_y, grad_content))
            return *gradients, None, None, None
        tensors = (*ctx.saved_tensors, grad_y, grad_content)
        with without_autocast(grad_y.device):
            gradients = _LambdaMix.gradients(*tensors, *ctx.layout)
            if _has_neighbours(grad_y, ctx.layout[2]) and not gradients[3].isfinite().all():
                gradients = _each_alone(*tensors, *ctx.layout)
        return *gradients, None, None, None

    @staticmethod
    def gradients(queries, keys, values, position_embedding, grad_y, grad_content, *layout):
        """Return the gradients of the first four tensors, given those of the results."""
        bands = Bands(*queries.shape[:3], position_embedding.shape[-1], queries, *layout)
        documents = bands.documents
        embedding, padded = bands.pad_embedding(position_embedding), bands.pad_values(values)
        content_lambda = _content_lambda(keys, values, documents)
        q, g = queries.flatten(0, 1).contiguous(), grad_y.flatten(0, 1).contiguous()  # (N, h, k), (N, h, v)
        wide = torch.promote_types(q.dtype, torch.float32)  # for sums over spans
        grad_content = grad_content.to(wide, copy=True)
        grad_embedding = torch.zeros_like(embedding, dtype=wide)
        grad_padded = torch.zeros_like(padded, dtype=wide)
        grad_q = torch.empty_like(q) if documents is None else torch.zeros_like(q)

        for positions, parts in bands.spans():
            q_span, g_span = (x[positions].to(content_lambda.dtype) for x in (q, g))
            for part, sequences in parts:
                q_rows, g_rows = (_rows(x[part], content_lambda[sequences]) for x in (q_span, g_span))
                grad_content[sequences] += torch.bmm(q_rows.transpose(1, 2), g_rows)
            _multiply(g_span, content_lambda.transpose(1, 2), grad_q[positions], parts)
            for blocks in bands.blocks(positions):
                g_blocks = g[blocks.positions].view(blocks.count, -1, g.shape[-1])  # (count, B * h, v)
                q_blocks = q[blocks.positions].flatten(0, 1)
                scores = torch.mm(q_blocks, embedding)  # overwritten with their gradient, depth by depth
                for depth, of_depth in enumerate(bands.by_depth(scores, blocks)):
                    band, seen = bands.skew(of_depth, blocks), bands.seen(padded[depth], blocks)
                    bands.add_seen(grad_padded[depth], torch.bmm(band.transpose(1, 2), g_blocks), blocks)
                    bands.unskew(torch.bmm(g_blocks, seen.transpose(1, 2)), blocks, out=of_depth)
                grad_q[blocks.positions].flatten(0, 1).addmm_(scores, embedding.t())
                grad_embedding += torch.mm(q_blocks.t(), scores)

        grad_keys = _product(values, grad_content.transpose(1, 2), documents)
        grad_values = _product(keys, grad_content, documents) + bands.unpad_values(grad_padded)
        grad_embedding = grad_embedding.unflatten(1, (-1, bands.context))[..., : position_embedding.shape[-1]]
        return grad_q.view_as(queries), grad_keys, grad_values.to(q.dtype), grad_embedding.to(q.dtype)


def _has_neighbours(grad_y: Tensor, documents: Documents | None) -> bool:
    """Return whether to check that the gradient of E is finite; on a GPU the check would mean waiting for the device.

    NaN or infinity in a sequence's queries, or in the gradient of its output, always shows in the gradient of E. In the
    bands it spreads to the neighbouring sequences, as 0 x NaN.
    """
    return grad_y.device.type == "cpu" and (grad_y.shape[0] > 1 or documents is not None)


def _each_alone(
    queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor, grad_y: Tensor, grad_content: Tensor,
    span: int | None, block: int | None, documents: Documents | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what ``_LambdaMix.gradients`` returns, computed one sequence or document at a time."""
    batch, length = queries.shape[:2]
    bounds = [(i * length, (i + 1) * length) for i in range(batch)] if documents is None else documents.bounds
    lines = [x.flatten(0, 1) for x in (queries, keys, values, grad_y)]
    of_lines, of_embedding = [torch.zeros_like(line) for line in lines[:3]], torch.zeros_like(position_embedding)
    for i, (start, end) in enumerate(bounds):
        q, k, v, g = (line[None, start:end] for line in lines)
        own = _LambdaMix.gradients(q, k, v, position_embedding, g, grad_content[i : i + 1], span, block, None)
        for line, gradient in zip(of_lines, own, strict=False):
            line[start:end] = gradient[0]
        of_embedding += own[3]
    return *(line.unflatten(0, (batch, length)) for line in of_lines), of_embedding


def _by_position(x: Tensor) -> Tensor:
    """(b, m, d, u) -> (b, m * u, d)."""
    return x.transpose(2, 3).flatten(1, 2)


def _content_lambda(keys: Tensor, values: Tensor, documents: Documents | None) -> Tensor:
    """Return the sum of K V per sequence (b, k, v), or per document (documents, k, v) and then in float32 or better.

    Half-precision products use oneDNN, which compiles code for each new shape, and documents have many lengths. These
    products are small, and float32 needs no compilation.
    """
    k, v = _by_position(keys), _by_position(values)
    if documents is None:
        return torch.bmm(k.transpose(1, 2), v)
    k, v = (_lines(x, keys.shape[-1]) for x in (k, v))
    return torch.stack([k[start:end].flatten(0, 1).t() @ v[start:end].flatten(0, 1) for start, end in documents.bounds])


def _product(x: Tensor, lambdas: Tensor, documents: Documents | None) -> Tensor:
    """Return ``x`` (b, m, c, u) times its sequence's or document's matrix (c, d): (b, m, d, u), zero where padded."""
    rows, depth = _by_position(x), x.shape[-1]
    if documents is None:
        result = torch.bmm(rows, lambdas.to(x.dtype))
    else:
        rows = _lines(rows, depth)
        result = rows.new_zeros(*rows.shape[:2], lambdas.shape[2])
        for (start, end), matrix in zip(documents.bounds, lambdas, strict=True):
            torch.mm(rows[start:end].flatten(0, 1), matrix, out=result[start:end].flatten(0, 1))
        result = result.view(x.shape[0], -1, lambdas.shape[2]).to(x.dtype)
    return result.unflatten(1, (-1, depth)).transpose(2, 3)


def _lines(rows: Tensor, depth: int) -> Tensor:
    """(b, m * u, d) -> (b * m, u, d), in float32 or better."""
    return rows.reshape(-1, depth, rows.shape[-1]).to(torch.promote_types(rows.dtype, torch.float32))


def _multiply(x: Tensor, lambdas: Tensor, out: Tensor, parts: list[tuple[slice, slice]]) -> None:
    """Set ``out`` (positions, h, d) to ``x`` (positions, h, c) times its sequence's matrix (c, d), in its precision."""
    x, result = x.to(lambdas.dtype), out.to(lambdas.dtype)
    for part, sequences in parts:
        matrices = lambdas[sequences]
        torch.bmm(_rows(x[part], matrices), matrices, out=_rows(result[part], matrices))
    if result is not out:
        out.copy_(result)


def _rows(flat: Tensor, lambdas: Tensor) -> Tensor:
    """View a span (positions, h, d), whole sequences or a part of one, as (sequences, positions * h, d)."""
    return flat.view(lambdas.shape[0], -1, flat.shape[-1])
