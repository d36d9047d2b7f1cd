"""The lambda layer for long contexts: position lambdas by fast Fourier transforms, in plain torch, CPU and any GPU.

Position lambdas are correlations over positions, one Toeplitz product per pair of a key and a value channel::

    lp[n,k,v] = sum_u,j E[k,u,j] V[n + j - r//2, v, u]

Transforms of the whole sequence take O(n log n) operations but are slow: they leave the caches, and the lp of all
positions take (b, n, k, v). So the work is cut up as in convolution reverbs (uniformly partitioned overlap-save, see
:mod:`fairseq_lambda.ops.fourier.partition`):

- E is cut into partitions of P offsets, and V into overlapping windows of L = 3 P positions, one every P. All are
  transformed once, which is cheap: E and V have k u and v u channels, lp has k v.
- For each block of 2 P positions, the products of the partitions with the windows they see are summed in the frequency
  domain, one matrix product per frequency, and one inverse transform gives the block's lp, (2 P, k, v).
- The content lambda is the same at every position, so adding it to the bin of frequency zero costs nothing.
- The block's queries are applied, and its lp is dropped. The backward pass recomputes it.

Time is O(n k v (log P + r u / P)), with P chosen by cost; memory is a few times V and E, plus one block. Nothing of
size n x n or (b, n, k, v) is stored. There is no wrap-around: the result is exact up to rounding. Half precision has
no transforms and is computed in float32; everything else is computed in the dtype of the inputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.autocast import without_autocast
from fairseq_lambda.ops.eager import runs_eagerly
from fairseq_lambda.ops.fourier.cost import cheapest_partition
from fairseq_lambda.ops.fourier.partition import Partition
from fairseq_lambda.ops.unrolled import differentiable_gradients, lambda_mix_unrolled

GPU_BLOCK = 2**26  # numbers in one block's lp; a GPU processes no more batch items at a time than fit


class _Spectra:
    """What the forward and the backward pass share: the transforms to the frequency domain and back.

    Spectra have the frequency f first, so that the sums over channels are matrix products, and are contiguous, because
    torch.bmm would otherwise loop over the frequencies. ``filters`` is the conjugate of E's spectrum, (f, k,
    partition * u): a correlation is a product with the conjugate.
    """

    def __init__(self, values: Tensor, position_embedding: Tensor, content_lambda: Tensor, size: int):
        self.cut = Partition(values.shape[1], position_embedding.shape[-1], size)
        self.dtype = torch.promote_types(values.dtype, torch.float32)
        self.values, self.position_embedding, self.content_lambda = values, position_embedding, content_lambda
        missing = self.cut.count * size - self.cut.context
        taps = F.pad(self.exact(position_embedding), (0, missing)).unflatten(-1, (-1, size))  # (k, u, partition, P)
        filters = torch.fft.rfft(taps, self.cut.window)
        self.filters = filters.permute(3, 0, 2, 1).flatten(2).contiguous().conj_physical_()

    def exact(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype)

    def groups(self) -> list[slice]:
        """Batch items processed together: one on a CPU, where a block fills the caches; else as many as fit."""
        batch, dim_k, dim_v = self.content_lambda.shape
        block = self.cut.window * dim_k * dim_v
        together = 1 if self.values.device.type == "cpu" else max(1, GPU_BLOCK // block)
        return [slice(i, min(i + together, batch)) for i in range(0, batch, together)]

    def columns(self, block: int) -> tuple[slice, slice]:
        """What the block sees: columns of ``filters``, and rows of the values' spectra."""
        dim_u = self.values.shape[-1]
        partitions, windows = self.cut.seen(block)
        return (
            slice(partitions.start * dim_u, partitions.stop * dim_u),
            slice(windows.start * dim_u, windows.stop * dim_u),
        )

    def of_values(self, items: slice) -> Tensor:
        """Spectra (f, window * u, items * v)."""
        values = self.exact(self.values[items]).permute(3, 0, 2, 1)  # (u, items, v, n)
        windows = F.pad(values, self.cut.padding).unfold(-1, self.cut.window, self.cut.size)
        spectra = torch.fft.rfft(windows)  # (u, items, v, window, f)
        return spectra.permute(4, 3, 0, 1, 2).flatten(3).flatten(1, 2).contiguous()

    def lambdas(self, spectra: Tensor, items: slice, block: int) -> Tensor:
        """Position lambda plus content lambda at the positions of the block: (positions, k, items, v)."""
        partitions, windows = self.columns(block)
        total = torch.bmm(self.filters[:, :, partitions], spectra[:, windows])  # (f, k, items * v)
        content = self.exact(self.content_lambda[items]).transpose(0, 1)  # (k, items, v)
        total[0] += self.cut.window * content.flatten(1)
        lambdas = torch.fft.irfft(total.flatten(1).T.contiguous(), self.cut.window)  # (k * items * v, L)
        positions = self.cut.positions(block)
        lambdas = lambdas.view(*content.shape, -1)[..., : positions.stop - positions.start]
        return lambdas.permute(3, 0, 1, 2).contiguous()

    def conjugate_of(self, grad_lambdas: Tensor) -> Tensor:
        """Conjugate spectrum (f, k, items * v) of the gradient (L, k, items, v) of a block's lambdas."""
        spectrum = torch.fft.rfft(grad_lambdas.flatten(1).T.contiguous())
        spectrum = spectrum.view(grad_lambdas.shape[1], -1, spectrum.shape[-1])  # (k, items * v, f)
        return spectrum.permute(2, 0, 1).contiguous().conj_physical_()

    def grad_values(self, conjugate: Tensor, items: slice) -> Tensor:
        """d values (items, n, v, u) from the conjugate spectra (f, window * u, items * v) of d windows."""
        dim_v, dim_u = self.values.shape[2:]
        spectra = conjugate.conj().unflatten(2, (-1, dim_v)).unflatten(1, (-1, dim_u))
        windows = torch.fft.irfft(spectra.permute(3, 1, 4, 2, 0), self.cut.window)
        windows = windows.unflatten(-1, (-1, self.cut.size))  # (items, window, v, u, L / P, P)
        batch, count, _, _, overlap, _ = windows.shape
        total = windows.new_zeros(batch, count + overlap - 1, dim_v, dim_u, self.cut.size)
        for i in range(overlap):
            total[:, i : i + count] += windows[..., i, :]
        before = self.cut.padding[0]
        total = total.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (items, padded n, v, u)
        return total[:, before : before + self.cut.length].to(self.values.dtype)

    def grad_position_embedding(self, spectra: Tensor) -> Tensor:
        """d position_embedding (k, u, r) from the spectra (f, partition * u, k) of d partitions."""
        spectra = spectra.unflatten(1, (-1, self.values.shape[-1])).permute(3, 2, 1, 0)
        taps = torch.fft.irfft(spectra, self.cut.window)[..., : self.cut.size].flatten(2)
        return taps[..., : self.cut.context].to(self.position_embedding.dtype)


class _LambdaMix(torch.autograd.Function):
    """y (b, n, h, v) from queries, values, position_embedding and content_lambda, which are all that is saved.

    Per frequency, with ^ for a spectrum and * for the conjugate, u and partitions flattened::

        lp^ = E^* V^           forward, (k, partition u) x (partition u, v)
        G   = (q^T dy)^        the gradient of a block's lambdas; its zero bin is the gradient of the content lambda
        dV^* += E^*T G*        dE^ += V^ G*^T

    The last two are summed over the blocks, and dE over the batch, before one inverse transform each.
    """

    @staticmethod
    def forward(ctx, queries, values, position_embedding, content_lambda, size):
        ctx.save_for_backward(queries, values, position_embedding, content_lambda)
        ctx.size = size
        y = queries.new_empty(*queries.shape[:3], values.shape[2])
        with without_autocast(queries.device):
            spectra = _Spectra(values, position_embedding, content_lambda, size)
            for items in spectra.groups():
                of_values = spectra.of_values(items)
                for block in range(spectra.cut.block_count):
                    lambdas = spectra.lambdas(of_values, items, block)
                    positions = spectra.cut.positions(block)
                    for i, item in enumerate(range(items.start, items.stop)):
                        y[item, positions] = torch.bmm(spectra.exact(queries[item, positions]), lambdas[:, :, i])
        return y

    @staticmethod
    def backward(ctx, grad_y):
        if torch.is_grad_enabled():
            return *differentiable_gradients(_by_offsets, ctx.saved_tensors, (grad_y,)), None
        queries, values, position_embedding, content_lambda = ctx.saved_tensors
        grad_queries, grad_values = torch.empty_like(queries), torch.empty_like(values)
        with without_autocast(queries.device):
            spectra = _Spectra(values, position_embedding, content_lambda, ctx.size)
            grad_content = torch.zeros_like(content_lambda, dtype=spectra.dtype)
            grad_filters = torch.zeros_like(spectra.filters.mT, memory_format=torch.contiguous_format)
            for items in spectra.groups():
                grads = (grad_y, grad_queries, grad_content, grad_filters)
                grad_windows = _LambdaMix.backward_of_blocks(spectra, items, queries, *grads)
                grad_values[items] = spectra.grad_values(grad_windows, items)
            grad_embedding = spectra.grad_position_embedding(grad_filters)
        return grad_queries, grad_values, grad_embedding, grad_content.to(content_lambda.dtype), None

    @staticmethod
    def backward_of_blocks(spectra, items, queries, grad_y, grad_queries, grad_content, grad_filters) -> Tensor:
        """Write or add the other gradients in place; return the conjugate spectra of d windows."""
        of_values = spectra.of_values(items)
        grad_windows = torch.zeros_like(of_values)
        for block in range(spectra.cut.block_count):
            lambdas = spectra.lambdas(of_values, items, block)
            positions, rows = spectra.cut.positions(block), len(lambdas)
            grad_lambdas = lambdas.new_empty(spectra.cut.window, *lambdas.shape[1:])
            grad_lambdas[rows:] = 0
            for i, item in enumerate(range(items.start, items.stop)):
                q, g = spectra.exact(queries[item, positions]), spectra.exact(grad_y[item, positions])
                grad_queries[item, positions] = torch.bmm(g, lambdas[:, :, i].mT)
                grad_lambdas[:rows, :, i] = torch.bmm(q.mT, g)
            flow = spectra.conjugate_of(grad_lambdas)  # (f, k, items * v)
            grad_content[items] += flow[0].real.unflatten(1, (-1, lambdas.shape[-1])).transpose(0, 1)
            partitions, windows = spectra.columns(block)
            grad_windows[:, windows] += torch.bmm(spectra.filters[:, :, partitions].mT, flow)
            grad_filters[:, partitions] += torch.bmm(of_values[:, windows], flow.mT)
        return grad_windows


def _by_offsets(queries: Tensor, values: Tensor, position_embedding: Tensor, content_lambda: Tensor) -> tuple[Tensor]:
    """Return what ``_LambdaMix`` returns, in operations that torch can differentiate any number of times."""
    no_keys = values.new_zeros(*queries.shape[:2], queries.shape[3], values.shape[3])
    y, _ = lambda_mix_unrolled(queries, no_keys, values, position_embedding)
    return (y + torch.einsum("bnhk,bkv->bnhv", queries, content_lambda),)


@runs_eagerly  # a compiler would trace the loop over blocks, again for each length
def lambda_mix_fourier(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    partition: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    ``partition`` is P; the default is the cheapest according to :mod:`fairseq_lambda.ops.fourier.cost`.
    """
    content_lambda = torch.einsum("bmku,bmvu->bkv", keys, values)
    dim_k, dim_u, context = position_embedding.shape
    if partition is None:
        shape = (queries.shape[1], context, dim_k, values.shape[2], dim_u)
        partition = cheapest_partition(*shape, queries.device.type)[1]
    return _LambdaMix.apply(queries, values, position_embedding, content_lambda, partition), content_lambda
