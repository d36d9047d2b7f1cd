"""Which backend is cheaper for a shape, "banded" or "fourier", and which partition size is best.

Both costs are estimated in nanoseconds, for the forward and backward pass of one sequence, as operation counts times
rates.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from fairseq_lambda.ops.fourier.partition import Partition

# Sizes with fast transforms: windows are three times as long and have only the factors 2, 3 and 5. Powers of two are no
# faster to transform, and their strides make the transposes miss the caches.
SIZES = (60, 80, 96, 120, 160, 192, 240, 320, 480, 640, 960)


class Rates(NamedTuple):
    """Nanoseconds per step of each kind."""

    call: float  # of lambda_mix_fourier
    block: float
    transform: float  # per number of a block's lambdas, (L, k, v): transforms, transposes, products with the queries
    product: float  # per such number, partition and u: the sum in the frequency domain
    spill: float  # numbers per block that double the cost of ``transform``, because they leave the caches
    band: float  # per multiply-add of the band: position x offset x head x u x (k + v)


RATES = {
    # Measured on two CPU cores by `python benchmarks/speed/global_context.py`, which prints how far off they are. Half
    # precision counts as float32, since it is faster on some processors and slower on others.
    "cpu": Rates(call=13e5, block=35e4, transform=8.0, product=0.17, spill=2.7e6, band=0.09),
    # Not measured, but estimated for an H100: bytes at 2.5 TB/s, and launches of 5 us.
    "cuda": Rates(call=5e5, block=3e5, transform=0.04, product=4e-4, spill=1e9, band=1e-4),
}


def rates_of(device_type: str) -> Rates:
    """Return the rates for a type of device; every accelerator counts as a GPU."""
    return RATES["cpu" if device_type == "cpu" else "cuda"]


@lru_cache(maxsize=4096)
def cheapest_partition(
    length: int, context: int, dim_k: int, dim_v: int, dim_u: int, device_type: str = "cpu"
) -> tuple[float, int]:
    """Return the lowest estimated cost of ``lambda_mix_fourier`` in ns, and its partition size."""
    cuts = [Partition(length, context, size) for size in SIZES]
    return min((_fourier_cost(cut, dim_k * dim_v, dim_u, rates_of(device_type)), cut.size) for cut in cuts)


def _fourier_cost(cut: Partition, channels: int, dim_u: int, rates: Rates) -> float:
    numbers = cut.window * channels
    sums = min(cut.count, len(cut.windows)) * dim_u
    number = rates.transform * (1 + numbers / rates.spill) + rates.product * sums
    return rates.call + cut.block_count * (rates.block + numbers * number)


def band_cost(
    length: int, context: int, heads: int, dim_k: int, dim_v: int, dim_u: int, device_type: str = "cpu"
) -> float:
    """Return the estimated cost of ``lambda_mix_banded`` in ns: k multiply-adds per score, v per entry of the band."""
    return length * context * heads * dim_u * (dim_k + dim_v) * rates_of(device_type).band


def prefers_fourier(queries: torch.Tensor, values: torch.Tensor, position_embedding: torch.Tensor) -> bool:
    """Return whether ``lambda_mix_fourier`` should be faster than ``lambda_mix_banded`` for these tensors."""
    dim_k, dim_u, context = position_embedding.shape
    length, heads, dim_v, device = queries.shape[1], queries.shape[2], values.shape[2], queries.device.type
    band = band_cost(length, context, heads, dim_k, dim_v, dim_u, device)
    return cheapest_partition(length, context, dim_k, dim_v, dim_u, device)[0] < band
