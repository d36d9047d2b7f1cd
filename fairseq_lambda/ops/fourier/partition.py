"""How a sequence and a context are cut up for :mod:`fairseq_lambda.ops.fourier.mix`: whole numbers only."""

from dataclasses import dataclass

PARTITIONS_IN_BLOCK = 2  # c: transforms waste 1 in c + 1 of their outputs, and windows overlap c times


@dataclass(frozen=True)
class Partition:
    """``context`` offsets cut into partitions of ``size``, ``length`` positions into blocks and overlapping windows.

    With P = ``size`` and B = c P: partition p holds the offsets p P - r // 2 and on, block i the positions i B and on,
    window w the L = B + P positions from w P - r // 2 on. Partition p of E takes block i to window c i + p, and a
    circular correlation of length L is exact in its first B outputs.
    """

    length: int
    context: int
    size: int

    @property
    def block(self) -> int:
        """B, the positions of a block."""
        return PARTITIONS_IN_BLOCK * self.size

    @property
    def window(self) -> int:
        """L, the positions of a window and the length of the transforms."""
        return self.block + self.size

    @property
    def count(self) -> int:
        """The partitions of E; the last is padded with zeros."""
        return -(-self.context // self.size)

    @property
    def block_count(self) -> int:
        """The blocks; the last is shorter."""
        return -(-self.length // self.block)

    def positions(self, block: int) -> slice:
        """The positions of a block."""
        return slice(block * self.block, min((block + 1) * self.block, self.length))

    @property
    def windows(self) -> range:
        """The windows that some block needs and that are not all outside the sequence."""
        reach = self.context // 2
        needed = PARTITIONS_IN_BLOCK * (self.block_count - 1) + self.count
        first = max(0, (reach - self.window) // self.size + 1)
        return range(first, min(needed, -(-(self.length + reach) // self.size)))

    @property
    def padding(self) -> tuple[int, int]:
        """The zeros before and after the sequence that make all windows whole."""
        before = self.context // 2 - self.windows.start * self.size
        covered = (len(self.windows) - 1) * self.size + self.window
        return before, covered - before - self.length

    def seen(self, block: int) -> tuple[slice, slice]:
        """The partitions that meet the sequence from this block, and the windows they meet, counted from the first."""
        shift = PARTITIONS_IN_BLOCK * block - self.windows.start
        start, stop = max(0, -shift), min(self.count, len(self.windows) - shift)
        return slice(start, stop), slice(start + shift, stop + shift)
