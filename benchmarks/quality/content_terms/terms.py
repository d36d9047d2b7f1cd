"""The content terms: y[n, h] = sum_m w[n, h, m] V[m], V the layer's values, w from a query at n and a key at m.

One key per token serves all heads, k[m] = norm(x[m] W); ``of_neighbours`` norm(x[m - 1] W' + x[m] W + x[m + 1] W''), a
convolution of width 3, so that a copy is found by its context: at a mask, the context is all that a query has. Queries
are the layer's, or norm(x Wq[h]) where a term needs other channels.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from content_terms.kernels import Codes, Hedgehog, Taylor, kernel_mix
from content_terms.rows import Rows
from content_terms.windowed import windowed_softmax
from fairseq_lambda.modules import LambdaBertOptions
from fairseq_lambda.modules.norms import RowLayerNorm
from fairseq_lambda.modules.softmax_attention import rotate


class Term(nn.Module):
    """What makes queries and keys.

    Args:
        o: the model's options.
        depth: channels that are normalised together.
        groups: of them, per query and key.
        gain: the norms' gain at the start.
        of_neighbours: keys, see above.
        instead_of: "position" leaves the layer's position lambdas out.
    """

    def __init__(
        self,
        o: LambdaBertOptions,
        depth: int = 16,
        groups: int = 1,
        gain: float = 1.0,
        of_neighbours: bool = False,
        instead_of: str | None = None,
    ):
        super().__init__()
        self.heads, self.groups, self.of_neighbours, self.instead_of = o.heads, groups, of_neighbours, instead_of
        channels = depth * groups
        self.k_proj = nn.Linear(o.embed_dim, channels * (3 if of_neighbours else 1), bias=False)
        self.k_norm, self.q_proj = RowLayerNorm(depth), None
        if channels != o.dim_k:
            self.q_proj, self.q_norm = nn.Linear(o.embed_dim, o.heads * channels, bias=False), RowLayerNorm(depth)
        for module in self.children():  # inputs of unit variance give unit variance, as in the lambda layer
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=o.embed_dim**-0.5)
            else:
                nn.init.constant_(module.weight, gain)

    def queries_and_keys(
        self, x: Tensor, queries: Tensor, padding_mask: Tensor | None, rows: Rows | None
    ) -> tuple[Tensor, Tensor]:
        """Return queries (b, p, h, d) of the ``rows``, or of all n positions, and keys (b, n, d).

        x is (b, n, C), ``queries`` (b, n, h, k) are the layer's.
        """
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0)
        if self.q_proj is not None:
            queries = self.q_proj(rows.gather(x) if rows else x).unflatten(-1, (self.heads, -1))
            queries = self._normed(queries, self.q_norm)
        elif rows:
            queries = rows.gather(queries)
        keys = self.k_proj(x)
        if self.of_neighbours:
            before, here, after = keys.chunk(3, dim=-1)
            keys = F.pad(before, (0, 0, 1, -1)) + here + F.pad(after, (0, 0, -1, 1))
        return queries, self._normed(keys, self.k_norm)

    def _normed(self, x: Tensor, norm: RowLayerNorm) -> Tensor:
        return norm(x.unflatten(-1, (self.groups, -1))).flatten(-2).to(x.dtype)


class SoftmaxTerm(Term):
    """Softmax over nearby tokens; queries and keys have rotary positions.

    Args:
        window: positions on each side. 127, the farthest in 128 tokens: longer texts then have no offset that training
            did not have, and a text of 128 is read as with full attention.
    """

    def __init__(self, o: LambdaBertOptions, window: int = 127, **options):
        super().__init__(o, **options)
        self.window = window

    def forward(self, x: Tensor, queries: Tensor, values: Tensor, padding_mask: Tensor | None, rows: Rows | None):
        """Return (b, p, h, v), given V (b, n, v), zero where padded, and as :meth:`queries_and_keys`."""
        later = rows if x.shape[1] > self.window + 1 else None  # blocks are of all positions
        rows = None if later else rows
        queries, keys = self.queries_and_keys(x, queries, padding_mask, rows)
        rotation = _rotation(keys)
        keys = rotate(keys[:, :, None, None], rotation)[:, :, 0, 0]
        queries = rotate(queries[:, :, None], rotation[rows.positions] if rows else rotation)[:, :, 0]
        y = windowed_softmax(queries, keys, values, self.window, padding_mask)
        return later.gather(y) if later else y


class KernelTerm(Term):
    """Attention by one of the kernels of :mod:`content_terms.kernels`, over the whole text, without positions."""

    def __init__(self, o: LambdaBertOptions, kernel: Taylor | Hedgehog | Codes, **options):
        super().__init__(o, kernel.depth, kernel.groups, kernel.gain, **options)
        self.kernel = kernel

    def forward(self, x: Tensor, queries: Tensor, values: Tensor, padding_mask: Tensor | None, rows: Rows | None):
        """As :meth:`SoftmaxTerm.forward`."""
        queries, keys = self.queries_and_keys(x, queries, padding_mask, rows)
        queries, keys, count = self.kernel(queries.flatten(1, 2)), self.kernel(keys), x.shape[1]
        if padding_mask is not None:
            count = (~padding_mask).sum(1, keepdim=True).clamp(min=1)
            first = keys[0].masked_fill(padding_mask[..., None], 0)
            keys = [first if factor is keys[0] else factor for factor in keys]
        return kernel_mix(queries, keys, values, self.kernel.constant, count).unflatten(1, (-1, self.heads))


def _rotation(x: Tensor) -> Tensor:
    """Return cosines and sines (n, 1, 1, d / 2, 2) for :func:`rotate`, for x (b, n, d)."""
    dtype, depth = torch.promote_types(x.dtype, torch.float32), x.shape[-1]
    frequency = 10000.0 ** (-2 * torch.arange(depth // 2, device=x.device, dtype=dtype) / depth)
    angles = torch.arange(x.shape[1], device=x.device, dtype=dtype)[:, None] * frequency
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None, None]


TERMS: dict[str, Callable[[LambdaBertOptions], Term]] = {
    "softmax": SoftmaxTerm,
    "softmax-alone": partial(SoftmaxTerm, instead_of="position"),
    "softmax-neighbours": partial(SoftmaxTerm, of_neighbours=True),
    "taylor": partial(KernelTerm, kernel=Taylor()),
    "taylor-neighbours": partial(KernelTerm, kernel=Taylor(), of_neighbours=True),
    "hedgehog": partial(KernelTerm, kernel=Hedgehog(), of_neighbours=True),
    "codes": partial(KernelTerm, kernel=Codes(), of_neighbours=True),
}
