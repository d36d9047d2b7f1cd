"""What the hardware supports."""

import functools
import time

import torch

# Emulated products are never faster than float32's; native ones are at least 1.5 times as fast. The rest is noise.
ENOUGH = 1.2


def bfloat16_is_faster(device: str | torch.device) -> bool:
    """Return whether ``device`` multiplies matrices faster in bfloat16 than in float32.

    A GPU reports it. A CPU is measured once per process, in a few tens of milliseconds, because its instruction set
    does not settle it: torch emulates bfloat16 where the instructions are missing, and Intel processors with
    AVX512_BF16 but without AMX (some virtual machines hide AMX) multiply half as fast in bfloat16 as in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return _measured()


@functools.cache
def _measured() -> bool:
    return product_seconds(torch.float32) >= ENOUGH * product_seconds(torch.bfloat16)


def product_seconds(dtype: torch.dtype, size: int = 512, turns: int = 7) -> float:
    """Return the seconds of a product of two ``size`` x ``size`` matrices on the CPU.

    This is the shortest of several runs, the one that other processes disturbed least.
    """
    matrix = torch.ones(size, size, dtype=dtype)
    with torch.inference_mode():
        matrix @ matrix  # the first one compiles a kernel
        return min(_seconds(matrix) for _ in range(turns))


def _seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - start
