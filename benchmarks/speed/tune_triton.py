"""Tile sizes of the Triton backend: what the compiler makes of each tile, and times on a GPU.

``python benchmarks/speed/tune_triton.py`` on a GPU times the candidates of fairseq_lambda/ops/triton/tiles.py, forward
and backward apart, and prints its two tables with the fastest. ``--compile-only`` needs no GPU: it compiles the tables
as they are for sm_90 and prints registers, spills and shared memory.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import torch

from fairseq_lambda.ops.triton import tiles

SHAPE = 12, 16, 64  # heads, dim_k, dim_v
CONTEXTS = {16: 11, 32: 23, 64: 63}  # block -> a context that it is for


def tables() -> list[tuple[torch.dtype, int, int]]:
    """Return dtype, block and context of the entries of the tables."""
    kinds = itertools.product(measuring.DTYPES.values(), CONTEXTS.items())
    return [(dtype, block, r) for dtype, (block, r) in kinds if (dtype.itemsize, block) in tiles.FORWARD]


class Recorder:
    """Stands in for a kernel: keeps what it is launched with, launches nothing."""

    def __init__(self, kernel):
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launches.append((args, constants))


def compile_for_hopper(kernel, args: tuple, constants: dict) -> dict[str, int]:
    """Return registers, bytes spilled and of shared memory of a launch, compiled for sm_90 as it would be."""
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
def compile_tables() -> list[dict]:
    """Return what the compiler makes of each kernel with each entry of the tables."""
    from fairseq_lambda.ops.triton import mix as kernels_mix

    kernels = {name: kernel for name, kernel in vars(kernels_mix).items() if name.endswith("_kernel")}
    rows = []
    for dtype, _, context in tables():
        recorders = {name: Recorder(kernel) for name, kernel in kernels.items()}
        vars(kernels_mix).update(recorders)
        for u in (1, 2):  # u = 2 has more than one slice, hence query_kernel
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


@torch.no_grad()
def tune(batch: int, length: int) -> list[dict]:
    """Return the times of the candidates that fit the GPU, and print the tables with the fastest."""
    import triton
    from triton.testing import do_bench

    from fairseq_lambda.ops.triton import mix as kernels_mix

    best, rows = {"FORWARD": {}, "BACKWARD": {}}, []
    for dtype, block, context in tables():
        if dtype is torch.float16:  # has the tiles of bfloat16
            continue
        q, k, v, e = measuring.layer_inputs(batch, length, *SHAPE, 1, context, dtype, "cuda")
        content = kernels_mix.content_lambda(k, v)
        grad = torch.randn(batch, length, SHAPE[0], SHAPE[2], device="cuda").to(dtype)

        def forward(tile, q=q, v=v, e=e, content=content):
            return kernels_mix.mix(q, v, e, content, tile)

        def backward(tile, q=q, k=k, v=v, e=e, content=content, grad=grad):
            return kernels_mix.mix_backward(q, k, v, e, content, grad, None, tile)

        channels = (64,) if dtype.itemsize == 2 else (32, 64)
        for name, function in (("FORWARD", forward), ("BACKWARD", backward)):
            times = {}
            for group, width, warps, stages in itertools.product((1, 2, 4, 8), channels, (4, 8), (1, 2, 3)):
                tile = tiles.Tile(block, group, width, warps, stages)
                try:
                    times[tile] = do_bench(lambda f=function, t=tile: f(t), return_mode="median")
                except triton.runtime.errors.OutOfResources:
                    continue
                row = {"pass": name, "dtype": str(dtype)[6:], "r": context, **vars(tile)}
                rows.append(row | {"ps per token": times[tile] * 1e9 / (batch * length)})
            best[name][dtype.itemsize, block] = min(times, key=times.get)
    for name, table in best.items():
        entries = [f"    {key}: Tile{tuple(vars(tile).values())},\n" for key, tile in table.items()]
        print(f"{name} = {{\n{''.join(entries)}}}")
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--compile-only", action="store_true", help="compile the tables for sm_90; needs no GPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    options = measuring.parse(parser, argv)
    if options.compile_only:
        os.environ.pop("TRITON_INTERPRET", None)
        rows = compile_tables()
    elif options.device == "cpu":
        sys.exit("error: no tile can be timed without a GPU; --compile-only shows registers and spills without one")
    else:
        torch.manual_seed(options.seed)
        rows = tune(options.batch, options.length)
    print(measuring.table(rows, {key: (key,) for key in rows[0]}))
    measuring.save(options, f"tune_triton-{'sm_90' if options.compile_only else 'times'}", rows)


if __name__ == "__main__":
    main()
