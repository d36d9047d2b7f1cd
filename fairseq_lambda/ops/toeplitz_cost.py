"""Which product is cheaper for a shape, the band (chunked) or the Fourier transforms (toeplitz), and cut up how.

Both are estimated in nanoseconds, forward and backward pass of one sequence, from counts of what they do and from rates.
"""

from functools import lru_cache

import torch

from fairseq_lambda.ops.partition import Partition

SIZES = (60, 120, 240, 480, 960)  # fast lengths times 3; powers of two would make the transposes miss the caches

# Rates measured by `python benchmarks/global_context.py` on two cores of a CPU, which prints them anew.
TRANSFORM_NS = 9.1  # a number of a window's lambdas: transforms, transposes and the queries' products
PRODUCT_NS = 0.18  # the same, for each partition (times u) that is summed in the frequency domain
SPILL = 1.5  # how much slower these are when a block's lambdas leave the cache of the processor
CACHED_NUMBERS = 2**21
BAND_NS = {torch.float64: 0.28, torch.float32: 0.14}  # a multiply-add of the band, by dtype
BAND_NS_HALF = 0.05


@lru_cache(maxsize=4096)
def cheapest_partition(length: int, context: int, dim_k: int, dim_v: int, dim_u: int) -> tuple[float, int]:
    """Return the estimated cost of ``lambda_mix_toeplitz`` in ns, and the partition size that has it."""
    return min((_toeplitz_cost(Partition(length, context, size), dim_k, dim_v, dim_u), size) for size in SIZES)


def _toeplitz_cost(cut: Partition, dim_k: int, dim_v: int, dim_u: int) -> float:
    numbers = cut.window * dim_k * dim_v  # a block's
    sums = min(cut.count, len(cut.windows)) * dim_u
    spill = SPILL if numbers > CACHED_NUMBERS else 1
    return cut.block_count * numbers * spill * (TRANSFORM_NS + PRODUCT_NS * sums)


def band_cost(
    length: int, context: int, heads: int, dim_k: int, dim_v: int, dim_u: int, dtype: torch.dtype = torch.float32
) -> float:
    """Return the estimated cost of ``lambda_mix_chunked`` in ns: scores and band are products with k + v numbers."""
    return length * context * heads * dim_u * (dim_k + dim_v) * BAND_NS.get(dtype, BAND_NS_HALF)


def prefers_toeplitz(queries: torch.Tensor, values: torch.Tensor, position_embedding: torch.Tensor) -> bool:
    """Return whether ``lambda_mix_toeplitz`` is estimated to be faster than ``lambda_mix_chunked`` for these tensors."""
    dim_k, dim_u, context = position_embedding.shape
    length, heads, dim_v = queries.shape[1], queries.shape[2], values.shape[2]
    band = band_cost(length, context, heads, dim_k, dim_v, dim_u, queries.dtype)
    return cheapest_partition(length, context, dim_k, dim_v, dim_u)[0] < band
