"""Tile sizes of the Triton kernels: a fixed table, so that two runs, or two machines, sum in the same order."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """What one program works on.

    Args:
        block: positions, and offsets per step; the values tile has 2 block rows. A power of two, at least 16.
        group: heads; block * group rows of queries. A power of two.
        channels: the most value channels. A power of two, at least 16.
        warps, stages: Triton's num_warps and num_stages.
    """

    block: int
    group: int
    channels: int
    warps: int
    stages: int


# Keyed by bytes per number and the smallest power of two that holds the context, up to 64. Those of half precision are
# the fastest candidates of benchmarks/gpu/tiles.py on an H100; without a GPU, the same command compiles the tables and
# shows that no kernel spills registers. float32 products that do not use tensor cores need smaller tiles.
FORWARD = {
    (2, 16): Tile(16, 4, 64, 4, 2),
    (2, 32): Tile(32, 4, 64, 4, 2),
    (2, 64): Tile(32, 4, 64, 4, 2),
    (4, 16): Tile(16, 2, 64, 4, 2),
    (4, 32): Tile(32, 1, 64, 8, 2),
}
BACKWARD = {
    (2, 16): Tile(16, 4, 64, 4, 2),
    (2, 32): Tile(32, 4, 64, 4, 2),
    (2, 64): Tile(64, 1, 64, 4, 2),
    (4, 16): Tile(16, 2, 32, 4, 1),
    (4, 32): Tile(32, 1, 32, 8, 1),
}


def _pick(table: dict[tuple[int, int], Tile], queries: Tensor, embedding: Tensor) -> Tile:
    size = queries.element_size()
    width = max(16, 1 << (embedding.shape[2] - 1).bit_length())
    return table[size, min(width, 64 if size == 2 else 32)]


def query_tile(queries: Tensor, embedding: Tensor) -> Tile:
    """Return the tile of query_kernel, of 32 rows.

    From 64 rows on, Triton uses wgmma instead of mma. With wgmma this kernel read an illegal address, once in some
    hundred launches on an H100 (k = 8, u = 4, r = 5, v = 33; Triton 3.6). Neither memcheck nor racecheck explains it.
    """
    block = 16 if embedding.shape[2] <= 16 else 32
    return Tile(block, 32 // block, 64 if queries.element_size() == 2 else 32, 4, 2)


def forward_tile(queries: Tensor, embedding: Tensor) -> Tile:
    """Return the tile of the forward kernel for these tensors."""
    return _pick(FORWARD, queries, embedding)


def backward_tile(queries: Tensor, embedding: Tensor) -> Tile:
    """Return the tile of backward_kernel for these tensors."""
    return _pick(BACKWARD, queries, embedding)
