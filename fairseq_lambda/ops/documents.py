"""Documents packed into rows: where each one is, and how tensors get from rows to documents and back.

Only operations that mix tokens need to know where documents begin and end. Everything else works on rows, which have
hardly any padding.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_lambda.ops.unrolled import is_transformed

# One more call of a mixing function costs about as much as this many positions. On a GPU a call is many launches.
CALL_POSITIONS = {"cpu": 256}
CALL_POSITIONS_ELSEWHERE = 4096


class Group(NamedTuple):
    """Documents that are mixed in one call, padded on the right to the longest."""

    count: int
    length: int
    padding_mask: Tensor | None  # (count, length) bool, True where padded; None: all are equally long


class Documents:
    """Where the documents of a packed batch (b, n) are. Its rows, joined end to end, form one line of b * n positions.

    Args:
        lengths: per row, the lengths of its documents in tokens, in order; the rest of the row is padding.
        width: n.
        device: the device of the packed tensors.

    Raises:
        ValueError: documents longer than their row, an empty document, or no document at all.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], width: int, device: torch.device | str = "cpu"):
        self.rows, self.width, self.device = len(lengths), width, torch.device(device)
        self.bounds: list[tuple[int, int]] = []  # per document: its first position on the line, and its end
        parts, at = [], 0  # all lengths, including those of padding
        for row in lengths:
            sizes = ", ".join(map(str, row))
            if min(row, default=1) < 1:
                raise ValueError(f"documents of {sizes} tokens: each needs at least one")
            if sum(row) > width:
                raise ValueError(f"documents of {sizes} tokens do not fit into a row of {width}")
            for length in row:
                self.bounds.append((at, at + length))
                at += length
            rest = width - sum(row)
            at += rest
            parts += [*row, rest] if rest else row
        if not self.bounds:
            raise ValueError("a packed batch needs a document")
        self.longest = max(end - start for start, end in self.bounds)
        self._parts = torch.tensor(parts)
        self._inside: dict[tuple, Tensor] = {}

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless x (b, n, ...) has the rows and the width of these documents, or under torch.func."""
        if is_transformed():
            raise ValueError("packed documents do not support torch.func: give each document its own row")
        if x.shape[:2] != (self.rows, self.width):
            raise ValueError(
                f"documents of {self.rows} rows, {self.width} positions wide, do not fit a batch of {x.shape[0]} rows "
                f"of {x.shape[1]}"
            )

    # The rest is computed when first used: no model needs all of it.

    @cached_property
    def positions(self) -> Tensor:
        """(b, n): positions within the document, from 1, and 0 where padded."""
        positions = torch.zeros(self.rows * self.width, dtype=torch.long)
        for start, end in self.bounds:
            positions[start:end] = torch.arange(1, end - start + 1)
        return _move(positions.view(self.rows, self.width), self.device)

    @cached_property
    def parts(self) -> Tensor:
        """(parts,): the lengths of documents and of the padding at the end of rows, in their order on the line."""
        return _move(self._parts, self.device)

    @cached_property
    def part_of(self) -> Tensor:
        """(b * n,): the part that each position is in."""
        return _move(torch.repeat_interleave(torch.arange(len(self._parts)), self._parts), self.device)

    def own(self, offsets: range, dtype: torch.dtype) -> Tensor:
        """Return (b * n, offsets): 1 where the position at that offset is in the same document, else 0.

        Cached, because all layers need the same one.
        """
        key = (offsets, dtype)
        if key not in self._inside:
            ends = self.parts.cumsum(0)
            end = ends[self.part_of].int()[:, None]
            start = (ends - self.parts)[self.part_of].int()[:, None]
            steps = torch.arange(offsets.start, offsets.stop, dtype=torch.int32, device=self.device)
            seen = torch.arange(len(end), dtype=torch.int32, device=self.device)[:, None] + steps
            self._inside[key] = ((seen >= start) & (seen < end)).to(dtype)
        return self._inside[key]

    def softmax(self, logits: Tensor) -> Tensor:
        """Return the softmax of ``logits`` (b, n, c) over the positions of each document, zero where padded."""
        self.check(logits)
        return _Softmax.apply(logits.flatten(0, 1), self).view_as(logits)

    def broken(self, x: Tensor) -> Tensor:
        """Return (b, n, ...): whether that channel of x (b, n, ...) has NaN or infinity in the position's document."""
        sums = x.new_zeros(len(self.parts), *x.shape[2:]).index_add_(0, self.part_of, 0 * x.flatten(0, 1))
        return sums.isnan()[self.part_of].view_as(x)

    @cached_property
    def groups(self) -> list[Group]:
        """Documents grouped by similar length, for few calls and little padding."""
        return self._grouped[0]

    @cached_property
    def _grouped(self) -> tuple[list[Group], "_Map", "_Map"]:
        start, end = torch.tensor(self.bounds).unbind(1)
        size = end - start
        groups, slot, row_of_slot = [], 0, []  # slots: the groups' positions, one group after the other
        slot_of_row = torch.full((self.rows * self.width,), -1)
        call = CALL_POSITIONS.get(self.device.type, CALL_POSITIONS_ELSEWHERE)
        for members in _similar(size, call):
            at = torch.arange(int(size[members].max())).expand(len(members), -1)
            padded = at >= size[members, None]
            rows = start[members, None] + at
            slot_of_row[rows[~padded]] = slot + torch.arange(padded.numel()).view(padded.shape)[~padded]
            row_of_slot.append(rows.masked_fill(padded, -1).flatten())
            slot += padded.numel()
            groups.append(Group(*padded.shape, _move(padded, self.device) if padded.any() else None))
        return groups, _Map.of(torch.cat(row_of_slot), self.device), _Map.of(slot_of_row, self.device)

    def each(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Apply ``function`` to each document and return the results as rows (b, n, ...), zero where padded.

        It is called once per group. It takes the tensors (b, n, ...) as (documents, length, ...), zero where padded,
        and the group's padding mask, and returns (documents, length, ...).
        """
        for tensor in tensors:
            self.check(tensor)
        groups, there, back = self._grouped
        results = []
        for group, *parts in zip(groups, *map(self._unpack, tensors), strict=True):
            results.append(function(*parts, group.padding_mask).flatten(0, 1))
        packed = _Rearranged.apply(torch.cat(results), back, there)
        return packed.unflatten(0, (self.rows, self.width))

    def _unpack(self, x: Tensor) -> list[Tensor]:
        """(b, n, ...) -> (documents, length, ...) per group."""
        groups, there, back = self._grouped
        parts = _Rearranged.apply(x.flatten(0, 1), there, back)
        parts = parts.split([group.count * group.length for group in groups])
        return [part.unflatten(0, group[:2]) for part, group in zip(parts, groups, strict=True)]


def _similar(size: Tensor, call: int) -> list[list[int]]:
    """Return groups of documents, longest first, each group padded by at most ``call`` positions in all."""
    groups, longest, padding = [], 0, 0
    for i in size.argsort(descending=True, stable=True).tolist():
        missing = longest - int(size[i])
        if not groups or padding + missing > call:
            groups.append([])
            longest, padding, missing = int(size[i]), 0, 0
        groups[-1].append(i)
        padding += missing
    return groups


class _Map(NamedTuple):
    """The source of each row of the result; the rows in ``empty`` have none and are zero."""

    source: Tensor
    empty: Tensor | None

    @classmethod
    def of(cls, source: Tensor, device: torch.device) -> "_Map":
        empty = source.lt(0).nonzero().squeeze(1)
        return cls(_move(source.clamp(min=0), device), _move(empty, device) if len(empty) else None)


class _Rearranged(torch.autograd.Function):
    """Returns the rows ``there`` of ``x`` (rows, ...). With the inverse map, ``back``, the gradient needs no sums."""

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.maps = there, back
        result = x.index_select(0, there.source)
        return result if there.empty is None else result.index_fill_(0, there.empty, 0)

    @staticmethod
    def backward(ctx, gradient):
        there, back = ctx.maps
        return _Rearranged.apply(gradient, back, there), None, None


class _Softmax(torch.autograd.Function):
    """Returns the softmax of ``logits`` (b * n, c) over the positions of each part, zero where padded."""

    @staticmethod
    def forward(ctx, logits, documents):
        ctx.documents, part_of = documents, documents.part_of
        result = (logits - _reduced(logits, "max", documents)[part_of]).exp_()
        result /= _reduced(result, "sum", documents)[part_of]
        result.masked_fill_(documents.positions.view(-1, 1).eq(0), 0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, gradient):
        (result,) = ctx.saved_tensors
        mean = _reduced(gradient * result, "sum", ctx.documents)
        return (gradient - mean[ctx.documents.part_of]) * result, None


def _reduced(x: Tensor, how: str, documents: Documents) -> Tensor:
    """(b * n, c) -> (parts, c)."""
    return torch.segment_reduce(x, how, lengths=documents.parts, unsafe=True)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # so that the copy does not block
    return tensor.to(device, non_blocking=True)
