"""Softmax self-attention with the interface of :class:`LambdaLayer`, for hybrids and for the baseline."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_lambda.ops.documents import Documents


class SoftmaxAttention(nn.Module):
    """Returns multi-head self-attention of ``x`` (b, n, C) through torch's fused kernel, output projection included.

    Vaswani et al. (2017), section 3.2: ``softmax(Q K^T / sqrt(C / h)) V`` per head, then ``Wo``.

    Args:
        embed_dim: C, the model's width.
        heads: h; must divide C.
        dropout: of the attention weights. The fused CPU kernel supports only 0.
        rotary: rotate queries and keys by their positions, see :func:`rotate`, so that their product depends on the
            offset.

    Raises:
        ValueError: C is not divisible by h, or with ``rotary`` by 2 h.
    """

    def __init__(self, embed_dim: int, heads: int, dropout: float = 0.0, rotary: bool = False):
        super().__init__()
        check_attention(embed_dim, heads, rotary)
        self.heads, self.dropout, self.rotary = heads, dropout, rotary
        self.qkv_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        rotation: Tensor | None = None,
        documents: Documents | None = None,
    ) -> Tensor:
        """Return (b, n, C).

        Args:
            x: (b, n, C).
            padding_mask: (b, n) bool, True where padded. Nothing there reaches a real token, not even NaN.
            rotation: :meth:`rotation` for this length or a longer one, shared by the layers of a model; None: computed
                here.
            documents: the layout of packed rows; each document is mixed as if it were alone.
        """
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0)  # a weight of 0 does not remove NaN
        projected = self.qkv_proj(x).unflatten(-1, (3, self.heads, -1))  # (b, n, 3, h, d)
        if self.rotary and rotation is None:
            rotation = self.rotation(x)
        if documents is None:
            y = self._attend(projected, padding_mask, rotation)
        else:
            y = documents.each(lambda *tensors: self._attend(*tensors, rotation), projected)
        return self.out_proj(y)

    def _attend(self, projected: Tensor, padding_mask: Tensor | None, rotation: Tensor | None) -> Tensor:
        """(b, n, 3, h, d) -> (b, n, C)."""
        q, k, v = self._turned(projected, rotation)
        mask = None if padding_mask is None else _visible(padding_mask)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return y.transpose(1, 2).flatten(2)

    def _turned(self, projected: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(b, n, 3, h, d) -> queries, keys and values (b, h, n, d), rotated by their positions if rotary."""
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = rotate(projected[:, :, :2], rotation[: projected.size(1)]).permute(2, 0, 3, 1, 4)
        return q, k, v

    def projections(self, x: Tensor, rotation: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (b, h, n, d) of x (b, n, C), rotated by their positions if rotary."""
        if self.rotary and rotation is None:
            rotation = self.rotation(x)
        return self._turned(self.qkv_proj(x).unflatten(-1, (3, self.heads, -1)), rotation)

    def weights(self, x: Tensor, padding_mask: Tensor | None = None, rotation: Tensor | None = None) -> Tensor:
        """Return the attention weights (b, h, n, n) for the same arguments as ``forward``, before dropout.

        The fused kernel does not store them, so they are computed separately, in memory quadratic in n.
        """
        q, k, _ = self.projections(x, rotation)
        scores = (q @ k.transpose(-1, -2) * q.size(-1) ** -0.5).float()
        if padding_mask is not None:
            scores = scores.masked_fill(~_visible(padding_mask), float("-inf"))
        return scores.softmax(dim=-1).to(q.dtype)

    def rotation(self, x: Tensor) -> Tensor:
        """Return cosines and sines (n, 1, 1, d / 2, 2) for :func:`rotate`, for queries and keys of x (b, n, C).

        They are in float32 at least, because bfloat16 cannot represent the positions of a long text.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        half = x.size(-1) // self.heads // 2
        frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
        angles = torch.arange(x.size(1), device=x.device, dtype=dtype)[:, None] * frequency
        return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None, None]


def _visible(padding_mask: Tensor) -> Tensor:
    """Return which keys (b, 1, 1, n) are visible; a row of nothing but padding sees itself, to avoid 0 / 0."""
    return (~padding_mask | padding_mask.all(dim=1, keepdim=True))[:, None, None, :]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Return ``x`` (b, n, 2, h, d), d even, with rotary positions (Su et al., 2021, RoFormer, section 3.2.2).

    The pair of channels (2 i, 2 i + 1) at position m is rotated by the angle m * 10000 ** (-2 i / d), so that the
    product of a query at m and a key at n depends on m - n.
    """
    pairs = x.to(rotation.dtype).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # compilers and exporters hardly support complex numbers
        (even, odd), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:  # one pass over the memory in each direction
        turned = torch.view_as_complex(pairs.contiguous()) * torch.view_as_complex(rotation)
        turned = torch.view_as_real(turned)
    return turned.flatten(-2).to(x.dtype)


def check_attention(embed_dim: int, heads: int, rotary: bool) -> None:
    """Raise ValueError if :class:`SoftmaxAttention` does not take these arguments, naming them."""
    if heads < 1 or embed_dim % heads:
        raise ValueError(f"embed_dim={embed_dim} is not divisible by heads={heads}")
    if rotary and embed_dim // heads % 2:
        raise ValueError(
            f"attention_rotary=True rotates pairs of channels, but embed_dim={embed_dim} with heads={heads} "
            "gives each head an odd number: choose others"
        )
