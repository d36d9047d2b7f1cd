"""Tile sizes of the Triton backend: the floor of the layer, what the compiler makes of each tile, and times on a GPU.

``python benchmarks/speed/tune_triton.py`` on a GPU times the candidates of fairseq_lambda/ops/triton/tiles.py, forward
and backward apart, and prints its two tables with the fastest. ``--compile-only`` needs no GPU: it compiles the tables
as they are for sm_90 and prints registers, spills and shared memory. Both print the floor first.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring
import torch

BANDWIDTH, RATE = 3.0e12, 790e12  # bytes and FLOPs per second of an H100: what a copy and a bf16 product can reach
SEED = 1
CONTEXTS = {16: 11, 32: 23, 64: 63}  # block -> a context that it is for
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def floor(heads: int, k: int, v: int, u: int, r: int, size: int, forward, backward) -> None:
    """Print FLOPs and bytes per token, as the kernels make and move them, and the time that they take at least.

    Every tensor counts once per kernel that reads or writes it; FLOPs include those on padded tiles. One slice.
    """
    f, b = forward.block, backward.block
    depth = max(16, 1 << (k - 1).bit_length())
    projected = (heads * k + u * v + u * k) * size
    output = heads * v * size
    partial = 4 * (u * v * (b + r - 1) + k * u * r + k * v) / b  # float32, written and read
    moved = {
        "forward": projected + u * v * size + output,
        "backward": 2 * projected + output + u * v * size + 2 * partial,
    }
    flops = {
        "forward": 2 * u * depth * v + heads * 2 * (depth * v + u * (depth * f + 2 * f * v)),
        "backward": 4 * u * depth * v + heads * 2 * (2 * depth * v + u * (3 * depth * b + 4 * b * v)),
    }
    print(f"floor per token: heads {heads}, k {k}, v {v}, u {u}, r {r}, {size} bytes per number")
    for name in moved:
        times = moved[name] / BANDWIDTH * 1e9, flops[name] / RATE * 1e9
        print(
            f"  {name:9s} {moved[name]:6.0f} B {times[0]:5.2f} ns   {flops[name] / 1e3:5.0f} kFLOP {times[1]:5.2f} ns"
        )
    attention = 12 * heads * v * size  # q, k, v, o forward; the same, do, dq, dk, dv backward
    print(f"  fused softmax attention moves {attention} B, of which {8 * heads * v * size} are held at once")
    ours = 2 * (projected + output) + partial
    print(f"  the layer holds {ours:.0f} B")


def draw(dtype, device, batch, length, heads, k, v, u, r) -> list[torch.Tensor]:
    shapes = (batch, length, heads, k), (batch, length, k, u), (batch, length, v, u), (k, u, r)
    return [torch.randn(shape, device=device, dtype=torch.float32).to(dtype) for shape in shapes]


class Recorder:
    """Stands in for a kernel: keeps what it is launched with, launches nothing."""

    def __init__(self, kernel):
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launches.append((args, constants))


def compile_for_hopper(kernel, args: tuple, constants: dict) -> str:
    """Return registers, spills and shared memory of a launch, compiled for sm_90 as the launch itself would be."""
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
    return f"{registers:>4} registers {stack:>5} B spilled {compiled.metadata.shared:>7} B shared"


def compile_tables() -> None:
    from fairseq_lambda.ops.triton import mix as kernels_mix
    from fairseq_lambda.ops.triton import tiles

    names = [name for name in vars(kernels_mix) if name.endswith("_kernel")]
    kernels = {name: getattr(kernels_mix, name) for name in names}
    for dtype, (block, context) in itertools.product(DTYPES.values(), CONTEXTS.items()):
        if (dtype.itemsize, block) not in tiles.FORWARD:
            continue
        recorders = {name: Recorder(kernel) for name, kernel in kernels.items()}
        vars(kernels_mix).update(recorders)
        for u in (1, 2):  # u = 2 has more than one slice, hence query_kernel
            inputs = draw(dtype, "cpu", 1, 256, 12, 16, 64, u, context)
            content = kernels_mix.content_lambda(*inputs[1:3])
            q, k, v, e = inputs
            kernels_mix.mix(q, v, e, content, tiles.forward_tile(q, e))
            y = torch.zeros(1, 256, 12, 64, dtype=dtype)
            kernels_mix.mix_backward(q, k, v, e, content, y, content, tiles.backward_tile(q, e))
        vars(kernels_mix).update(kernels)
        for name, recorder in recorders.items():
            args, constants = recorder.launches[0]
            label = f"{str(dtype)[6:]} r={context} u={constants['DIM_U']}"
            print(f"{name:16s} {label:20s} {compile_for_hopper(kernels[name], args, constants)}", flush=True)


def tune(batch: int, length: int) -> None:
    """Time every candidate and print the tables with the fastest; one that does not fit the GPU is left out."""
    import triton
    from triton.testing import do_bench

    from fairseq_lambda.ops.triton import mix as kernels_mix
    from fairseq_lambda.ops.triton import tiles

    best = {"FORWARD": {}, "BACKWARD": {}}
    for dtype, (block, context) in itertools.product((torch.bfloat16, torch.float32), CONTEXTS.items()):
        if (dtype.itemsize, block) not in tiles.FORWARD:
            continue
        q, k, v, e = draw(dtype, "cuda", batch, length, 12, 16, 64, 1, context)
        content = kernels_mix.content_lambda(k, v)
        grad = torch.randn(batch, length, 12, 64, device="cuda").to(dtype)

        def forward(tile, q=q, v=v, e=e, content=content):
            return kernels_mix.mix(q, v, e, content, tile)

        def backward(tile, q=q, k=k, v=v, e=e, content=content, grad=grad):
            return kernels_mix.mix_backward(q, k, v, e, content, grad, None, tile)

        for name, function in (("FORWARD", forward), ("BACKWARD", backward)):
            times = {}
            for group, warps, stages in itertools.product((1, 2, 4, 8), (4, 8), (1, 2, 3)):
                for channels in (64,) if dtype.itemsize == 2 else (32, 64):
                    tile = tiles.Tile(block, group, channels, warps, stages)
                    try:
                        times[tile] = do_bench(lambda f=function, t=tile: f(t), return_mode="median")
                    except triton.runtime.errors.OutOfResources:
                        continue
            for tile in sorted(times, key=times.get)[:3]:
                print(f"{name} {dtype} r={context} {times[tile] * 1e6 / (batch * length):7.3f} ns per token  {tile}")
            best[name][dtype.itemsize, block] = min(times, key=times.get)
    for name, table in best.items():
        print(f"{name} = {{")
        for key, tile in table.items():
            print(f"    {key}: Tile({tile.block}, {tile.group}, {tile.channels}, {tile.warps}, {tile.stages}),")
        print("}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile-only", action="store_true", help="compile the tables for sm_90; needs no GPU")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    args = parser.parse_args()
    from fairseq_lambda.ops.triton.tiles import BACKWARD, FORWARD

    floor(12, 16, 64, 1, 23, 2, FORWARD[2, 32], BACKWARD[2, 32])
    if args.compile_only:
        os.environ.pop("TRITON_INTERPRET", None)
        compile_tables()
    elif not torch.cuda.is_available():
        sys.exit(
            "there is no CUDA device, so no tile can be timed; --compile-only shows registers and spills without one"
        )
    else:
        torch.manual_seed(SEED)
        print(f"{args.batch} x {args.length} tokens; {measuring.setting_line(measuring.setting('cuda', SEED))}")
        tune(args.batch, args.length)


if __name__ == "__main__":
    main()
