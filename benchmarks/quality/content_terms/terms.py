"""The content terms: what they project, and what they make of it. Each returns (b, p, h, v) for the positions asked."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from content_terms.kernels import Codes, Hedgehog, Taylor, kernel_mix
from content_terms.rows import Rows
from content_terms.windowed import windowed_softmax
from fairseq_lambda.modules import LambdaBertOptions
from fairseq_lambda.modules.norms import RowLayerNorm
from fairseq_lambda.modules.softmax_attention import rotate


class Term(nn.Module):
    """What a content term is called with, all (b, n, ...): x (C), the layer's queries (h, k) and its values (v).

    ``rows``: the positions to work for; None: all. ``instead_of`` names the term of the lambda layer that it replaces.
    """

    instead_of: str | None = None

    def reset_parameters(self) -> None:
        """Draw the projections as those of the lambda layer: inputs of unit variance give unit variance."""
        for projection in filter(lambda module: isinstance(module, nn.Linear), self.children()):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)


class SoftmaxTerm(Term):
    """Softmax over the tokens near by: k = norm(x Wk), queries and values the layer's; q and k have rotary positions.

    Args:
        window: positions on each side. 127, the farthest in 128 tokens: longer texts then have no offset that training
            had not, and a text of 128 is read as by full attention.
        instead_of: "position" leaves the layer's position lambdas out.
    """

    def __init__(self, o: LambdaBertOptions, window: int = 127, instead_of: str | None = None):
        super().__init__()
        self.window, self.instead_of = window, instead_of
        self.k_proj = nn.Linear(o.embed_dim, o.dim_k, bias=False)
        self.k_norm = RowLayerNorm(o.dim_k)
        self.reset_parameters()

    def forward(self, x: Tensor, queries: Tensor, values: Tensor, padding_mask: Tensor | None, rows: Rows | None):
        keys = self.k_norm(self.k_proj(x)).to(x.dtype)
        both = torch.cat([queries, keys[:, :, None]], dim=2)  # (b, n, h + 1, k)
        both = rotate(both[:, :, None], _rotation(both)).squeeze(2)
        queries, keys = both[:, :, :-1], both[:, :, -1]
        if padding_mask is not None:
            keys = keys.masked_fill(padding_mask[..., None], 0)
        short = x.shape[1] <= self.window + 1
        queries = rows.gather(queries) if rows and short else queries
        y = windowed_softmax(queries, keys, values, self.window, padding_mask)
        return rows.gather(y) if rows and not short else y


class KernelTerm(Term):
    """Attention by one of the kernels of :mod:`content_terms.kernels`, values the layer's.

    Args:
        kernel: makes the factors of norm(q) and norm(k).
        own: queries and keys of each head from a projection of their own, through a convolution of width 3 along the
            text; else the layer's queries, and one key for all heads.

    Raises:
        ValueError: the layer's queries are not of the kernel's depth.
    """

    def __init__(self, o: LambdaBertOptions, kernel: Taylor | Hedgehog | Codes, own: bool):
        super().__init__()
        if not own and o.dim_k != kernel.depth * kernel.groups:
            raise ValueError(f"--lambda-key-depth {o.dim_k}: a kernel of the layer's queries needs {kernel.depth}")
        self.kernel, self.own, self.heads = kernel, own, o.heads
        self.channels = kernel.depth * kernel.groups
        if own:
            self.qk_proj = nn.Linear(o.embed_dim, 2 * o.heads * self.channels, bias=False)
            self.convolution = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]).repeat(2 * o.heads * self.channels, 1).t())
            self.q_norm = RowLayerNorm(kernel.depth)
        else:
            self.k_proj = nn.Linear(o.embed_dim, self.channels, bias=False)
        self.k_norm = RowLayerNorm(kernel.depth)
        for norm in (self.k_norm, *([self.q_norm] if own else [])):
            nn.init.constant_(norm.weight, kernel.gain)
        self.reset_parameters()

    def forward(self, x: Tensor, queries: Tensor, values: Tensor, padding_mask: Tensor | None, rows: Rows | None):
        padded = None if padding_mask is None else padding_mask[..., None]
        projected = self.qk_proj(x) if self.own else self.k_proj(x)
        if padded is not None:
            projected = projected.masked_fill(padded, 0)
        if self.own:
            queries, keys = (
                _convolved(projected, self.convolution.to(x.dtype)).unflatten(-1, (2, self.heads, -1)).unbind(2)
            )
        else:
            keys = projected[:, :, None]
        queries = rows.gather(queries) if rows else queries
        if self.own:  # (b, n, h, c) -> (b, h, n, c): a group per head
            queries, keys = self._normed(queries, self.q_norm).transpose(1, 2), keys.transpose(1, 2)
        else:  # one group, whose queries are those of all heads
            queries, keys = queries.flatten(1, 2)[:, None], keys.transpose(1, 2)
        queries, keys = self.kernel(queries), self.kernel(self._normed(keys, self.k_norm))
        count = x.shape[1]
        if padded is not None:
            count = (~padding_mask).sum(1).clamp(min=1)[:, None, None]
            keys = _masked(keys, padded[:, None])
        y = kernel_mix(queries, keys, values, self.kernel.constant, count)
        return y.transpose(1, 2) if self.own else y.squeeze(1).unflatten(1, (-1, self.heads))

    def _normed(self, x: Tensor, norm: RowLayerNorm) -> Tensor:
        return norm(x.unflatten(-1, (self.kernel.groups, -1))).flatten(-2).to(x.dtype)


def _masked(keys: list[Tensor], padded: Tensor) -> list[Tensor]:
    """Return the factors, the first zero where padded, still one tensor if they were."""
    first = keys[0].masked_fill(padded, 0)
    return [first if factor is keys[0] else factor for factor in keys]


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return sum_j weight[j] x[n + j - 1], (b, n, c), for weights (3, c)."""
    before, after = (torch.nn.functional.pad(x, (0, 0, *ends)) for ends in ((1, -1), (-1, 1)))
    return weight[0] * before + weight[1] * x + weight[2] * after


def _rotation(x: Tensor) -> Tensor:
    """Return cosines and sines (n, 1, 1, d / 2, 2) for :func:`rotate`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    half = torch.arange(x.shape[-1] // 2, device=x.device, dtype=dtype)
    angles = torch.arange(x.shape[1], device=x.device, dtype=dtype)[:, None] * 10000.0 ** (-2 * half / x.shape[-1])
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None, None]


TERMS: dict[str, Callable[[LambdaBertOptions], Term]] = {
    "softmax": SoftmaxTerm,
    "softmax-alone": partial(SoftmaxTerm, instead_of="position"),
    "taylor": partial(KernelTerm, kernel=Taylor(), own=True),
    "taylor-shared": partial(KernelTerm, kernel=Taylor(), own=False),
    "hedgehog": partial(KernelTerm, kernel=Hedgehog(), own=True),
    "codes": partial(KernelTerm, kernel=Codes(), own=True),
}
