"""What the hardware supports."""

import platform

import torch


def multiplies_bfloat16(device: str | torch.device) -> bool:
    """Return whether ``device`` has bfloat16 matrix products; elsewhere torch emulates them, tens of times slower."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86, oneDNN says yes where it can emulate them with AVX-512; on ARM it asks for the instruction.
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    return is_arm or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
