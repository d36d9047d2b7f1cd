"""Softmax self-attention with the interface of :class:`LambdaLayer`, for hybrids and for the equal-size twin."""

import torch.nn.functional as F
from torch import Tensor, nn


class SoftmaxAttention(nn.Module):
    """Returns multi-head self-attention of ``x`` (b, n, C) through torch's fused kernel, output projection included.

    Vaswani et al. (2017), section 3.2: ``softmax(Q K^T / sqrt(C / h)) V`` a head, then ``Wo``.

    Args:
        embed_dim: C, the model's width.
        heads: h; C must divide by it.
        dropout: of the attention weights. The fused CPU kernel serves 0 only.

    Raises:
        ValueError: C does not divide by h.
    """

    def __init__(self, embed_dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if heads < 1 or embed_dim % heads:
            raise ValueError(f"--encoder-embed-dim {embed_dim} does not divide by --encoder-attention-heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.qkv_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return (b, n, C). ``padding_mask`` (b, n) bool, True where padded."""
        q, k, v = self.qkv_proj(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (b, h, n, C / h)
        mask = None
        if padding_mask is not None:
            # A row of nothing but padding may see itself, else its softmax would be 0 / 0.
            mask = (~padding_mask | padding_mask.all(dim=1, keepdim=True))[:, None, None, :]
            v = v.masked_fill(padding_mask[:, None, :, None], 0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).flatten(2))
