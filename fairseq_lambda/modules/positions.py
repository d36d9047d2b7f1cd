"""Absolute positions for the embeddings. Tokens are counted from 1; padding has position 0."""

import math

import torch
from torch import Tensor, nn


def count_positions(padding_mask: Tensor) -> Tensor:
    """Return the position (b, n) of each token, 0 where ``padding_mask`` (b, n) is True."""
    real = (~padding_mask).long()
    return real.cumsum(dim=1) * real


class LearnedPositions(nn.Embedding):
    """Returns learned position embeddings (b, n, C); the row of padding stays zero.

    The rows below ``padding_idx`` are not used: this is the layout of fairseq's table and of its checkpoints.

    Args:
        max_positions: longest sequence.
        embed_dim: C.
        padding_idx: row of padding.
    """

    def __init__(self, max_positions: int, embed_dim: int, padding_idx: int):
        super().__init__(max_positions + padding_idx + 1, embed_dim, padding_idx)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the embeddings of ``positions`` (b, n), see :func:`count_positions`."""
        return super().forward(positions + self.padding_idx)


class SinusoidalPositions(nn.Module):
    """Returns sinusoids (b, n, C) of the positions (Vaswani et al., 2017, section 3.5), zero for padding.

    Sines are in the first half of the channels, cosines in the second. They are scaled to the size of the token
    embeddings, which would otherwise be lost in the sum.

    Args:
        embed_dim: C.
        padding_idx: the first token has the phase of ``padding_idx + 1``, as in fairseq.
        std: standard deviation of the token embeddings at the start.
    """

    def __init__(self, embed_dim: int, padding_idx: int, std: float):
        super().__init__()
        self.embed_dim, self.padding_idx, self.scale = embed_dim, padding_idx, std * 2**0.5

    def forward(self, positions: Tensor) -> Tensor:
        """Return the sinusoids of ``positions`` (b, n), see :func:`count_positions`."""
        half = self.embed_dim // 2
        step = -math.log(10000) / max(half - 1, 1)
        frequency = torch.exp(torch.arange(half, device=positions.device, dtype=torch.float32) * step)
        angle = (positions + self.padding_idx)[..., None] * frequency
        sinusoids = torch.cat([angle.sin(), angle.cos()], dim=-1)
        if self.embed_dim % 2:
            sinusoids = nn.functional.pad(sinusoids, (0, 1))
        return self.scale * sinusoids.masked_fill(positions.eq(0)[..., None], 0)
