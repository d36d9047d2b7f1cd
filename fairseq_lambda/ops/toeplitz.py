"""The lambda layer for long contexts: position lambdas by fast Fourier transforms, in plain torch, CPU and any GPU.

A position lambda is a correlation over positions, a Toeplitz product for each pair of a key and a value channel::

    lp[n,k,v] = sum_u,j E[k,u,j] V[n + j - r//2, v, u]

One transform of the length of the sequence would do it in O(n log n), and slowly: its tensors leave the caches, and the
lp of all positions fill (b, n, k, v). So it is cut up as convolution reverbs are (uniformly partitioned overlap-save):

- E is cut into partitions of P offsets, V into overlapping windows of L = (c + 1) P positions, one every P;
- all are transformed once, O((n + r) log L) for few channels;
- for each block of B = c P positions, the partitions times the windows they see are summed in the frequency domain,
  which is one matrix product a frequency, and one inverse transform gives the lp of the block, (B, k, v);
- the content lambda is the same at every position, so it rides in the bin of frequency zero, at no cost;
- the block's queries are applied, and its lp is dropped. The backward pass makes it again.

Time is O(n (log L + r / P)) for k * v channels, with P growing with the context; memory is O(n) of the size of V, O(r)
of the size of E, and one block.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_PARTITIONS = 3  # c: the transforms waste 1 / c of their length; the windows overlap c times


@dataclass(frozen=True)
class _Partition:
    """How ``length`` positions and ``context`` offsets are cut up; all in positions unless said otherwise."""

    length: int
    context: int
    size: int  # P, a partition of E and the step between windows

    @property
    def block(self) -> int:
        return BLOCK_PARTITIONS * self.size

    @property
    def window(self) -> int:  # L, also the length of the transforms: no wrap-around reaches the first B outputs
        return self.block + self.size

    @property
    def count(self) -> int:
        """Partitions of E."""
        return -(-self.context // self.size)

    @property
    def blocks(self) -> list[slice]:
        """The positions of each block."""
        return [slice(i, min(i + self.block, self.length)) for i in range(0, self.length, self.block)]

    @property
    def windows(self) -> range:
        """The windows that are not all outside the sequence; window w begins at position w P - r // 2."""
        reach = self.context // 2
        needed = BLOCK_PARTITIONS * (len(self.blocks) - 1) + self.count
        return range(max(0, (reach - self.window) // self.size + 1), min(needed, -(-(self.length + reach) // self.size)))

    def padding(self) -> tuple[int, int]:
        """Zeros before and after the sequence that make the windows whole."""
        first = self.windows.start * self.size - self.context // 2
        last = first + (len(self.windows) - 1) * self.size + self.window
        return -first, last - self.length

    def seen(self, block: int) -> tuple[slice, slice]:
        """Partitions that fall on the sequence for this block, and the windows they meet, counted from the first."""
        first = BLOCK_PARTITIONS * block  # window of partition 0
        start, stop = max(0, self.windows.start - first), min(self.count, self.windows.stop - first)
        shift = first - self.windows.start
        return slice(start, stop), slice(start + shift, stop + shift)


GPU_WORKSPACE = 2**26  # numbers of a group of lambdas


class _Mix:
    """The tensors of one call in the frequency domain, and the way there and back.

    ``cut`` is the partition, ``filters`` conj(E^) as (f, k, partition * u). Everything is in the exact dtype: float32 for
    half precision, which transforms do not offer.
    """

    def __init__(self, queries: Tensor, values: Tensor, position_embedding: Tensor, content_lambda: Tensor, size: int):
        self.cut = _Partition(queries.shape[1], position_embedding.shape[-1], size)
        self.dtype = torch.promote_types(queries.dtype, torch.float32)
        self.values, self.position_embedding, self.content_lambda = values, position_embedding, content_lambda
        missing = self.cut.count * size - position_embedding.shape[-1]
        taps = F.pad(self.exact(position_embedding), (0, missing)).unflatten(-1, (-1, size))  # (k, u, partitions, P)
        filters = torch.fft.rfft(taps, self.cut.window)
        self.filters = filters.conj().permute(3, 0, 2, 1).flatten(2).contiguous()

    def exact(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype)

    def groups(self) -> list[range]:
        """Batch items that go together: one on a CPU, where a block fills the caches; many on a GPU."""
        batch, dim_k, dim_v = len(self.values), *self.content_lambda.shape[1:]
        together = 1
        if self.values.device.type != "cpu":
            together = max(1, GPU_WORKSPACE // (self.cut.window * dim_k * dim_v))
        return [range(i, min(i + together, batch)) for i in range(0, batch, together)]

    def columns(self, index: int) -> tuple[slice, slice]:
        """What block ``index`` sees: columns of ``filters``, and of the values' spectra."""
        dim_u = self.values.shape[-1]
        return tuple(slice(part.start * dim_u, part.stop * dim_u) for part in self.cut.seen(index))

    def value_spectra(self, items: range) -> Tensor:
        """(f, window * u, items * v)."""
        values = self.exact(self.values[items.start : items.stop]).permute(3, 0, 2, 1)  # (u, items, v, n)
        windows = F.pad(values, self.cut.padding()).unfold(-1, self.cut.window, self.cut.size)
        spectra = torch.fft.rfft(windows)  # (u, items, v, window, f)
        return spectra.permute(4, 3, 0, 1, 2).flatten(3).flatten(1, 2).contiguous()

    def position_lambda(self, spectra: Tensor, items: range, index: int) -> Tensor:
        """Position plus content lambda at the positions of block ``index``: (positions, k, items, v)."""
        partitions, windows = self.columns(index)
        total = torch.bmm(self.filters[:, :, partitions], spectra[:, windows])  # (f, k, items * v)
        content = self.exact(self.content_lambda[items.start : items.stop]).transpose(0, 1).flatten(1)
        total[0] += self.cut.window * content
        dim_k, columns = total.shape[1:]
        lambdas = torch.fft.irfft(total.flatten(1).T.contiguous(), self.cut.window)
        lambdas = lambdas.T.contiguous().view(-1, dim_k, len(items), columns // len(items))
        positions = self.cut.blocks[index]
        return lambdas[: positions.stop - positions.start]

    def to_spectrum(self, lambdas: Tensor) -> Tensor:
        """(L, k, items, v) -> (f, k, items * v)."""
        spectrum = torch.fft.rfft(lambdas.flatten(1).T.contiguous())
        return spectrum.T.contiguous().view(-1, lambdas.shape[1], lambdas.shape[2] * lambdas.shape[3])

    def sum_windows(self, grad_spectra: Tensor, items: range) -> Tensor:
        """d values (items, n, v, u) from the spectra of d windows."""
        dim_v, dim_u = self.values.shape[2:]
        spectra = grad_spectra.unflatten(2, (len(items), dim_v)).unflatten(1, (-1, dim_u))
        parts = torch.fft.irfft(spectra.permute(3, 1, 4, 2, 0).contiguous(), self.cut.window)
        parts = parts.unflatten(-1, (-1, self.cut.size))  # (items, window, v, u, c + 1, P)
        count, overlap = parts.shape[1], parts.shape[4]
        total = parts.new_zeros(len(items), count + overlap - 1, *parts.shape[2:4], self.cut.size)
        for i in range(overlap):
            total[:, i : i + count] += parts[..., i, :]
        before, after = self.cut.padding()
        total = total.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (items, padded n, v, u)
        return total[:, before : total.shape[1] - after].to(self.values.dtype)

    def sum_filters(self, grad_filters: Tensor) -> Tensor:
        """d position_embedding (k, u, r) from d filters."""
        dim_u = self.values.shape[-1]
        spectra = grad_filters.unflatten(2, (-1, dim_u)).permute(1, 3, 2, 0).conj()  # (k, u, partition, f)
        taps = torch.fft.irfft(spectra, self.cut.window)[..., : self.cut.size].flatten(2)
        return taps[..., : self.cut.context].to(self.position_embedding.dtype)


class _ToeplitzMix(torch.autograd.Function):
    """y (b, n, h, v) of queries, values, position_embedding and content_lambda; saves nothing but these.

    The forward pass works on spectra that have frequency first, so that sums over channels are matrix products::

        Lp[f] = conj(Ê[f]) V̂[f]     (k, partition * u) x (partition * u, v)

    and the backward pass on the spectrum G of d lp = q^T d y: dV̂ += Ê^T G, dÊ += V̂ conj(G)^T, each transformed back
    once at the end, since transforms are linear.
    """

    @staticmethod
    def forward(ctx, queries, values, position_embedding, content_lambda, size):
        ctx.save_for_backward(queries, values, position_embedding, content_lambda)
        ctx.size = size
        y = queries.new_empty(*queries.shape[:3], values.shape[2])
        with torch.autocast(queries.device.type, enabled=False):
            mix = _Mix(queries, values, position_embedding, content_lambda, size)
            for items in mix.groups():
                spectra = mix.value_spectra(items)
                for index, positions in enumerate(mix.cut.blocks):
                    position_lambda = mix.position_lambda(spectra, items, index)
                    for lambdas, item in zip(position_lambda.unbind(2), items, strict=True):
                        y[item, positions] = torch.bmm(mix.exact(queries[item, positions]), lambdas)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        queries, values, position_embedding, content_lambda = ctx.saved_tensors
        grad_queries, grad_values = torch.empty_like(queries), torch.empty_like(values)
        grad_lambda = torch.empty_like(content_lambda)
        with torch.autocast(queries.device.type, enabled=False):
            mix = _Mix(queries, values, position_embedding, content_lambda, ctx.size)
            grad_filters = torch.zeros_like(mix.filters)
            for items in mix.groups():
                spectra = mix.value_spectra(items)
                grad_spectra = torch.zeros_like(spectra)
                zero_bin = 0
                for index, positions in enumerate(mix.cut.blocks):
                    position_lambda = mix.position_lambda(spectra, items, index)
                    grad_position = position_lambda.new_zeros(mix.cut.window, *position_lambda.shape[1:])
                    rows = positions.stop - positions.start
                    for j, item in enumerate(items):
                        q, g = mix.exact(queries[item, positions]), mix.exact(grad[item, positions])
                        grad_queries[item, positions] = torch.bmm(g, position_lambda[:, :, j].mT)
                        torch.bmm(q.mT, g, out=grad_position[:rows, :, j])
                    flow = mix.to_spectrum(grad_position)  # (f, k, items * v)
                    zero_bin = zero_bin + flow[0].real
                    partitions, windows = mix.columns(index)
                    grad_filters[:, :, partitions] += torch.bmm(flow, spectra[:, windows].mH)
                    grad_spectra[:, windows] += torch.bmm(mix.filters[:, :, partitions].mH, flow)
                grad_values[items.start : items.stop] = mix.sum_windows(grad_spectra, items)
                grad_lambda[items.start : items.stop] = zero_bin.unflatten(1, (len(items), -1)).transpose(0, 1)
        return grad_queries, grad_values, mix.sum_filters(grad_filters), grad_lambda, None


def lambda_mix_toeplitz(
    queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor, partition: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`."""
    content_lambda = torch.einsum("bmku,bmvu->bkv", keys, values)
    y = _ToeplitzMix.apply(queries, values, position_embedding, content_lambda, partition or 240)
    return y, content_lambda
