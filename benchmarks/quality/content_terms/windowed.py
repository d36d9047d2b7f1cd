"""Softmax attention over nearby tokens, with one key and one value per token for all heads: linear in n.

y[n, h] = sum_m softmax_m(q[n, h] . k[m] / sqrt(d)) V[m]      over the real m with |m - n| <= window
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def windowed_softmax(
    queries: Tensor, keys: Tensor, values: Tensor, window: int, padding_mask: Tensor | None = None
) -> Tensor:
    """Return y (b, p, h, v).

    Args:
        queries: (b, p, h, d), p = n; or any p queries of each text, if it is not longer than window + 1.
        keys: (b, n, d).
        values: (b, n, v), zero where padded.
        window: positions that a token sees on each side.
        padding_mask: (b, n) bool, True where padded.
    """
    queries = queries * queries.shape[-1] ** -0.5
    with torch.autocast(queries.device.type, enabled=False):
        if keys.shape[1] <= window + 1:
            hidden = None if padding_mask is None else padding_mask[:, None]
            return _attend(queries, keys.transpose(1, 2), values, hidden)
        return _in_blocks(queries, keys, values, window, padding_mask)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    """(..., p, h, d), (..., d, m), (..., m, v), hidden (..., 1 or p * h, m) -> (..., p, h, v)."""
    scores = queries.flatten(-3, -2) @ keys
    if hidden is not None:  # not -inf: a query may see nothing but padding
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ values).unflatten(-2, queries.shape[-3:-1])


def _in_blocks(queries: Tensor, keys: Tensor, values: Tensor, window: int, padding_mask: Tensor | None) -> Tensor:
    """Blocks of B = window + 1 queries, each over its own positions and one block on either side."""
    batch, length, heads, _ = queries.shape
    block = window + 1
    rest = -length % block
    if padding_mask is None:
        padding_mask = keys.new_zeros(batch, length, dtype=torch.bool)
    seen = [F.pad(x, (0, 0, block, block + rest)).unfold(1, 3 * block, block) for x in (keys, values)]
    padded = F.pad(padding_mask, (block, block + rest), value=True).unfold(1, 3 * block, block)  # (b, blocks, 3 B)
    rows, columns = (torch.arange(size, device=keys.device) for size in (block, 3 * block))
    far = (columns - block - rows[:, None]).abs() > window
    hidden = padded[:, :, None] | far.repeat_interleave(heads, dim=0)  # (b, blocks, B * h, 3 B)
    blocks = F.pad(queries, (0, 0, 0, 0, 0, rest)).unflatten(1, (-1, block))  # (b, blocks, B, h, d)
    return _attend(blocks, seen[0], seen[1].transpose(-1, -2), hidden).flatten(1, 2)[:, :length]
