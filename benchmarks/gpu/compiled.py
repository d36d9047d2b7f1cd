"""The resources of the kernels with the tables of tiles, compiled by Triton for an H100; needs no GPU."""

import itertools
import re
import subprocess
import tempfile
from pathlib import Path

import measuring
import torch

from fairseq_lambda.ops.triton import tiles

SHAPE = 12, 16, 64  # heads, dim_k, dim_v
CONTEXTS = {16: 11, 32: 23, 64: 63}  # block -> a context that uses it


def tables(contexts: dict[int, int]) -> list[tuple[torch.dtype, int, int]]:
    """Return dtype, block and context for each entry of the tables."""
    kinds = itertools.product(measuring.DTYPES.values(), contexts.items())
    return [(dtype, block, r) for dtype, (block, r) in kinds if (dtype.itemsize, block) in tiles.FORWARD]


class Recorder:
    """Stands in for a kernel: records its launches and runs nothing."""

    def __init__(self, kernel):
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launches.append((args, constants))


def compile_for_hopper(kernel, args: tuple, constants: dict) -> dict[str, int]:
    """Return registers, spilled bytes and bytes of shared memory of a launch, compiled for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    signature, values, hints = {}, dict(constants), {}
    for i, name in enumerate(kernel.arg_names):
        value = args[i] if i < len(args) else None
        if name in constants or (type(value) is int and value == 1 and name != "length"):
            signature[name] = "constexpr"
            values.setdefault(name, value)
            continue
        signature[name] = names[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor) or (value % 16 == 0 and name != "length"):
            hints[(i,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(ASTSource(kernel, signature, values, hints), GPUTarget("cuda", 90, 32), options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return {"registers": int(registers), "spilled": int(stack), "shared": compiled.metadata.shared}


@torch.no_grad()
def compile_tables(contexts: dict[int, int] = CONTEXTS) -> list[dict]:
    """Return the resources of each kernel with each entry of the tables."""
    from fairseq_lambda.ops.triton import mix as kernels_mix

    kernels = {name: kernel for name, kernel in vars(kernels_mix).items() if name.endswith("_kernel")}
    rows = []
    for dtype, _, context in tables(contexts):
        recorders = {name: Recorder(kernel) for name, kernel in kernels.items()}
        vars(kernels_mix).update(recorders)
        for u in (1, 2):  # u = 2 has more than one slice and so uses query_kernel
            q, k, v, e = measuring.layer_inputs(1, 256, *SHAPE, u, context, dtype)
            content = kernels_mix.content_lambda(k, v)
            y = kernels_mix.mix(q, v, e, content, tiles.forward_tile(q, e))
            kernels_mix.mix_backward(q, k, v, e, content, y, content, tiles.backward_tile(q, e))
        vars(kernels_mix).update(kernels)
        for name, recorder in recorders.items():
            args, constants = recorder.launches[0]
            row = {"kernel": name, "dtype": str(dtype)[6:], "r": context, "u": constants["DIM_U"]}
            rows.append(row | compile_for_hopper(kernels[name], args, constants))
    return rows
