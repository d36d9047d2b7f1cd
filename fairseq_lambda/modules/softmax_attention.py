"""Softmax self-attention with the interface of :class:`LambdaLayer`, for hybrids and for the equal-size twin."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SoftmaxAttention(nn.Module):
    """Returns multi-head self-attention of ``x`` (b, n, C) through torch's fused kernel, output projection included.

    Vaswani et al. (2017), section 3.2: ``softmax(Q K^T / sqrt(C / h)) V`` a head, then ``Wo``.

    Args:
        embed_dim: C, the model's width.
        heads: h; C must divide by it.
        dropout: of the attention weights. The fused CPU kernel serves 0 only.
        rotary: turn queries and keys by their positions, see :func:`rotate`, so that their product knows the offset.
        gate: multiply the heads' outputs by ``silu(x Wg)``, Wg (C, C), before ``Wo``.

    Raises:
        ValueError: C does not divide by h, or with ``rotary`` by 2 h.
    """

    def __init__(self, embed_dim: int, heads: int, dropout: float = 0.0, rotary: bool = False, gate: bool = False):
        super().__init__()
        if heads < 1 or embed_dim % heads:
            raise ValueError(f"--encoder-embed-dim {embed_dim} does not divide by --encoder-attention-heads {heads}")
        if rotary and embed_dim // heads % 2:
            raise ValueError(f"--attention-rotary: pairs of channels turn, a head has {embed_dim // heads} channels")
        self.heads, self.dropout, self.rotary = heads, dropout, rotary
        self.qkv_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self.gate_proj = nn.Linear(embed_dim, embed_dim, bias=False) if gate else None
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return (b, n, C). ``padding_mask`` (b, n) bool, True where padded."""
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (b, h, n, C / h)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        mask = None
        if padding_mask is not None:
            # A row of nothing but padding may see itself, else its softmax would be 0 / 0.
            mask = (~padding_mask | padding_mask.all(dim=1, keepdim=True))[:, None, None, :]
            v = v.masked_fill(padding_mask[:, None, :, None], 0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).flatten(2)
        if self.gate_proj is not None:
            y = y * F.silu(self.gate_proj(x))
        return self.out_proj(y)


def rotate(x: Tensor) -> Tensor:
    """Return ``x`` (..., n, d), d even, with rotary positions (Su et al., 2021, RoFormer, section 3.2.2).

    The pair of channels (i, i + d / 2) at position m turns by the angle m * 10000 ** (-2 i / d), so that the product of
    a query at m and a key at n depends on m - n. In float32 at least: bfloat16 cannot count the positions of a text.
    """
    length, half = x.size(-2), x.size(-1) // 2
    dtype = torch.promote_types(x.dtype, torch.float32)
    frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    angle = torch.arange(length, device=x.device, dtype=dtype)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    first, second = x.to(dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)
