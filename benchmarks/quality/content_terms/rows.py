"""Some positions of each text, the same number in every text, so that products over texts stay batched."""

import torch
from torch import Tensor

MULTIPLE = 8  # of this number, so that shapes are few


class Rows:
    """Where the positions ``at`` (p,) of the flattened (b * n), in any order and repeated or not, lie in (b, P).

    If a text has fewer than P, the rest are filled up with its first position.
    """

    def __init__(self, at: Tensor, batch: int, length: int):
        wanted = torch.zeros(batch * length, dtype=torch.bool, device=at.device)
        wanted[at] = True
        wanted = wanted.view(batch, length)
        slot = wanted.cumsum(1) - 1
        count = -(-int(wanted.sum(1).max()) // MULTIPLE) * MULTIPLE
        text, position = wanted.nonzero().unbind(1)
        self.there = torch.arange(batch, device=at.device)[:, None].repeat(1, count) * length
        self.there[text, slot[text, position]] = text * length + position
        self.positions = self.there % length  # (b, P)
        self.back = at // length * count + slot.flatten()[at]

    def gather(self, x: Tensor) -> Tensor:
        """(b, n, ...) -> (b, P, ...)."""
        return x.flatten(0, 1).index_select(0, self.there.flatten()).unflatten(0, self.there.shape)

    def scatter(self, x: Tensor) -> Tensor:
        """(b, P, ...) -> (p, ...), in the order of ``at``."""
        return x.flatten(0, 1).index_select(0, self.back)
