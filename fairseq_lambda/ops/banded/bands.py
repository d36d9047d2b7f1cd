"""The memory layout of the bands: blocks of queries, the positions they see and the diagonals, all of them views.

All sequences of a batch are read as one line of N = b * n positions. A block is B consecutive queries, and its band is
a matrix (B * h, W) with W >= B + r - 1. Row (i, h) holds the r scores of query i and head h, shifted right by i, so
column w stands for the w-th position that the block sees. A block may cross the end of a sequence: scores of positions
outside the query's own sequence are set to zero on the way into the band. Packed documents are sequences of different
lengths on such a line.
"""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_lambda.ops.documents import Documents

# The constants here and below were chosen with benchmarks/speed/tune_banded.py.
# In entries: matrix products are fastest when the rows of scores and bands are padded to multiples of these.
SCORES_ALIGNMENT = 8
BAND_ALIGNMENT = 32


def block_size(context: int) -> int:
    """Return B, queries per block: a power of two, at least 8 and more than an eighth of the context.

    Blocks are small because B - 1 entries of each band row are zeros, but not too small because every block reads all
    the positions it sees. Powers of two leave the fewest queries over at the end of a span.
    """
    return max(8, 1 << (context // 8).bit_length())


def span_size(width: int, device: str) -> int:
    """Return how many positions to process at a time if a band's rows have ``width`` entries.

    On a CPU, scores and bands should stay in the cache. Elsewhere each span costs a few kernel launches, so spans are
    large enough for a whole batch of long texts: 2^18 tokens at r=23 and 52,000 at r=255. Scores and bands then take no
    more memory than the activations of a few feed-forward networks.
    """
    positions, entries = (1024, 3 * 2**15) if device == "cpu" else (2**18, 2**24)
    return min(positions, entries // width)


def _fill(count: int, alignment: int) -> int:
    return -(-count // alignment) * alignment


@lru_cache(maxsize=4)  # all layers of a model, forward and backward, need the same one
def _own_sequence(
    length: int, context: int, reach: int, repeats: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return (repeats * n, r): 1 where n + j - r // 2 is a position of the query's own sequence, else 0."""
    seen = torch.arange(length, device=device)[:, None] + torch.arange(-reach, context - reach, device=device)
    return ((seen >= 0) & (seen < length)).to(dtype).repeat(repeats, 1)


class Blocks(NamedTuple):
    """``count`` blocks of ``size`` queries, starting at position ``start``."""

    start: int
    count: int
    size: int

    @property
    def positions(self) -> slice:
        return slice(self.start, self.start + self.count * self.size)


class Bands:
    """The layout for one call of a lambda layer, and the bands' memory.

    Args:
        batch, length, heads: b, n, h.
        offsets: r, odd.
        like: a tensor of the dtype and device to work in.
        span: positions processed at a time, at least a block.
        block: B.
        documents: the layout of packed rows; None: each row is one sequence.
    """

    def __init__(
        self,
        batch: int,
        length: int,
        heads: int,
        offsets: int,
        like: Tensor,
        span: int | None = None,
        block: int | None = None,
        documents: Documents | None = None,
    ):
        self.batch, self.length, self.heads = batch, length, heads
        self.reach = offsets // 2
        self.context = _fill(offsets, SCORES_ALIGNMENT)  # r, filled up
        self.block = block or block_size(self.context)
        self.visible = _fill(self.block + self.context - 1, BAND_ALIGNMENT)  # W, of a block
        self.span = max(span or span_size(self.visible, like.device.type), self.block)
        self.documents = documents
        self._inside, self._period = None, length  # _inside repeats after _period positions
        if documents is not None:
            offsets_seen = range(-self.reach, self.context - self.reach)
            self._inside, self._period = documents.own(offsets_seen, like.dtype), batch * length
        elif batch > 1:
            repeats = max(1, self.span // length)
            self._inside = _own_sequence(length, self.context, self.reach, repeats, like.dtype, like.device)
        self._zeroed: dict[tuple[int, ...], Tensor] = {}

    def spans(self) -> Iterator[tuple[slice, list[tuple[slice, slice]]]]:
        """Yield the positions of each span, and its parts: positions counted from the span's start, and sequences.

        With documents, there is a part for each document that the span overlaps. Otherwise there is one part, which is
        a piece of one sequence or several whole sequences.
        """
        if self.documents is not None:
            step = self.span // self.block * self.block
            for start in range(0, self._period, step):
                positions = slice(start, min(start + step, self._period))
                yield positions, list(_overlaps(self.documents.bounds, positions))
        else:
            for positions, sequences in self._whole():
                yield positions, [(slice(None), sequences)]

    def _whole(self) -> Iterator[tuple[slice, slice]]:
        if self.length > self.span:
            step = self.span // self.block * self.block
            for i in range(self.batch):
                end = (i + 1) * self.length
                for start in range(i * self.length, end, step):
                    yield slice(start, min(start + step, end)), slice(i, i + 1)
        else:
            step = self.span // self.length
            for i in range(0, self.batch, step):
                end = min(i + step, self.batch)
                yield slice(i * self.length, end * self.length), slice(i, end)

    def blocks(self, positions: slice) -> Iterator[Blocks]:
        """Yield a span's whole blocks, then the rest as one smaller block."""
        count, rest = divmod(positions.stop - positions.start, self.block)
        if count:
            yield Blocks(positions.start, count, self.block)
        if rest:
            yield Blocks(positions.stop - rest, 1, rest)

    def pad_embedding(self, position_embedding: Tensor) -> Tensor:
        """(k, u, r) -> (k, u * r), with r padded by offsets of weight zero."""
        return F.pad(position_embedding, (0, self.context - position_embedding.shape[-1])).flatten(1)

    def pad_values(self, values: Tensor) -> Tensor:
        """(b, n, v, u) -> (u, r // 2 + N + as much as a block can see, v), zeros at both ends.

        A sequence's channel with NaN or infinity is set to zero here, because 0 x NaN would spread it to the
        neighbouring sequences. Its own results are NaN or infinite all the same, through the content lambda.
        """
        if self.documents is not None:
            values = values.masked_fill(self.documents.broken(values), 0)
        elif self.batch > 1:
            values = values.masked_fill((0 * values).sum(1, keepdim=True).isnan(), 0)
        by_depth = values.flatten(0, 1).permute(2, 0, 1)
        return F.pad(by_depth, (0, 0, self.reach, self.visible - self.reach)).contiguous()

    def unpad_values(self, padded: Tensor) -> Tensor:
        """Padded values -> (b, n, v, u), without the ends."""
        inner = padded[:, self.reach : self.reach + self.batch * self.length]
        return inner.permute(1, 2, 0).unflatten(0, (self.batch, self.length))

    def seen(self, padded: Tensor, blocks: Blocks) -> Tensor:
        """What each block sees of ``padded`` (N and its ends, v): a view (count, W, v), blocks overlapping."""
        row = padded.stride(0)
        shape = (blocks.count, self._width(blocks), padded.shape[1])
        return padded.as_strided(shape, (blocks.size * row, row, 1), padded.storage_offset() + blocks.start * row)

    def add_seen(self, padded: Tensor, gradient: Tensor, blocks: Blocks) -> None:
        """The adjoint of :meth:`seen`: adds (count, W, v) to ``padded``, B rows of all blocks at a time."""
        view = self.seen(padded, blocks)
        step = blocks.size if blocks.count > 1 else gradient.shape[1]
        for first in range(0, gradient.shape[1], step):
            rows = slice(first, first + step)  # these do not overlap between blocks
            view[:, rows] += gradient[:, rows]

    def _width(self, blocks: Blocks) -> int:
        """W, entries of a band's row."""
        return _fill(blocks.size + self.context - 1, BAND_ALIGNMENT)

    def by_depth(self, scores: Tensor, blocks: Blocks) -> tuple[Tensor, ...]:
        """(count * B * h, u * r) -> u views (count, B, h, r)."""
        return scores.view(blocks.count, blocks.size, self.heads, -1, self.context).unbind(3)

    def skew(self, scores: Tensor, blocks: Blocks) -> Tensor:
        """Scores (count, B, h, r) -> band (count, B * h, W), in memory that the next call reuses.

        Only the diagonals are ever written, so the zeros beside them are written just once.
        """
        shape = (blocks.count, blocks.size * self.heads, self._width(blocks))
        if shape not in self._zeroed:
            self._zeroed[shape] = scores.new_zeros(shape)
        band = self._zeroed[shape]
        self._copy(scores, self._diagonals(band), blocks)
        return band

    def unskew(self, band: Tensor, blocks: Blocks, out: Tensor) -> None:
        """The adjoint of :meth:`skew`, written to ``out`` (count, B, h, r)."""
        self._copy(self._diagonals(band), out, blocks)

    def _diagonals(self, band: Tensor) -> Tensor:
        """A view (count, B, h, r) of a band: each query starts one column to the right of the previous one."""
        count, rows, width = band.shape
        shape = (count, rows // self.heads, self.heads, self.context)
        return band.as_strided(shape, (rows * width, self.heads * width + 1, width, 1))

    def _copy(self, scores: Tensor, out: Tensor, blocks: Blocks) -> None:
        if self._inside is None:
            out.copy_(scores)
        else:
            start = blocks.start % self._period
            inside = self._inside[start : start + blocks.count * blocks.size]
            torch.mul(scores, inside.view(blocks.count, blocks.size, 1, self.context), out=out)


def _overlaps(bounds: list[tuple[int, int]], span: slice) -> Iterator[tuple[slice, slice]]:
    """Yield for each document in the span its positions, counted from the span's start, and its number, as slices."""
    at = bisect_right(bounds, span.start, key=lambda bound: bound[1])
    while at < len(bounds) and bounds[at][0] < span.stop:
        start, end = bounds[at]
        yield slice(max(start - span.start, 0), min(end, span.stop) - span.start), slice(at, at + 1)
        at += 1
