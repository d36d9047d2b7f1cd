"""How a sequence and a context are cut up for :mod:`fairseq_lambda.ops.fourier.mix`: index arithmetic only."""

from dataclasses import dataclass

PARTITIONS_IN_BLOCK = 2  # c: transforms waste 1 in c + 1 of their outputs, and windows overlap c times


@dataclass(frozen=True)
class Partition:
    """``context`` offsets cut into partitions of ``size``, ``length`` positions into blocks and overlapping windows.

    With P = ``size`` and B = c P, partition p holds P offsets starting at p P - r // 2, block i holds B positions
    starting at i B, and window w holds L = B + P positions starting at w P - r // 2. Partition p of E links block i to
    window c i + p, and a circular correlation of length L is exact in its first B outputs.
    """

    length: int
    context: int
    size: int

    @property
    def block(self) -> int:
        """B, the number of positions in a block."""
        return PARTITIONS_IN_BLOCK * self.size

    @property
    def window(self) -> int:
        """L, the number of positions in a window and the length of the transforms."""
        return self.block + self.size

    @property
    def count(self) -> int:
        """The number of partitions of E; the last one is padded with zeros."""
        return -(-self.context // self.size)

    @property
    def block_count(self) -> int:
        """The number of blocks; the last one may be shorter."""
        return -(-self.length // self.block)

    def positions(self, block: int) -> slice:
        """The positions of a block."""
        return slice(block * self.block, min((block + 1) * self.block, self.length))

    @property
    def windows(self) -> range:
        """The windows that some block needs and that overlap the sequence."""
        reach = self.context // 2
        needed = PARTITIONS_IN_BLOCK * (self.block_count - 1) + self.count
        first = max(0, (reach - self.window) // self.size + 1)
        return range(first, min(needed, -(-(self.length + reach) // self.size)))

    @property
    def padding(self) -> tuple[int, int]:
        """How many zeros before and after the sequence make all windows complete."""
        before = self.context // 2 - self.windows.start * self.size
        covered = (len(self.windows) - 1) * self.size + self.window
        return before, covered - before - self.length

    def seen(self, block: int) -> tuple[slice, slice]:
        """The partitions that reach the sequence from this block, and their windows, counted from the first one."""
        shift = PARTITIONS_IN_BLOCK * block - self.windows.start
        start, stop = max(0, -shift), min(self.count, len(self.windows) - shift)
        return slice(start, stop), slice(start + shift, stop + shift)
