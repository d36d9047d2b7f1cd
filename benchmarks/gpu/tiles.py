"""Times of the tile candidates for the Triton kernels, forward and backward; the fastest go to FOLDER/tiles.json.

Without a GPU, the current tables are compiled for an H100, and the rows have registers and spills instead.
"""

from stage import Stage, in_processes  # isort: skip  sets the path

import itertools
import json

import measuring
import torch
from compiled import SHAPE, compile_tables

from fairseq_lambda.ops.triton import tiles

TOKENS, LENGTH = 32768, 512
CONTEXTS = {32: 23, 64: 63, 16: 11}  # key of the tables -> a context that uses it


def candidates(size: int) -> list[tiles.Tile]:
    """Return the tiles to try for numbers of ``size`` bytes; eight warps in half precision were always slower."""
    found = []
    blocks, row_counts, warps = ((16, 32, 64), (64, 128), (2, 4)) if size == 2 else ((16, 32), (32, 64), (4, 8))
    for block, rows, warps_, stages in itertools.product(blocks, row_counts, warps, (1, 2)):
        if block <= rows <= 8 * block and (stages == 2 or warps_ == 4):
            found.append(tiles.Tile(block, rows // block, 64 if size == 2 else 32, warps_, stages))
    return found


def prepared(name: str, dtype: str, context: int, seed: int):
    """Return the pass ``name`` as a function of a tile."""
    from fairseq_lambda.ops.triton import mix

    torch.manual_seed(seed)
    heads, dim_k, dim_v = SHAPE
    dtype = measuring.DTYPES[dtype]
    q, k, v, e = (
        t.detach()
        for t in measuring.layer_inputs(TOKENS // LENGTH, LENGTH, heads, dim_k, dim_v, 1, context, dtype, "cuda")
    )
    content = mix.content_lambda(k, v)
    if name == "FORWARD":
        return lambda tile: mix.mix(q, v, e, content, tile)
    gradient = torch.randn(*q.shape[:3], dim_v, dtype=dtype, device="cuda")
    return lambda tile: mix.mix_backward(q, k, v, e, content, gradient, None, tile)


def compiles(case: tuple) -> str:
    """Compile one candidate into the cache; return why it cannot be used, or "" if it can."""
    name, dtype, context, tile, seed = case
    try:
        prepared(name, dtype, context, seed)(tile)
        torch.cuda.synchronize()
    except Exception as error:  # out of shared memory, or any compiler error: skip this candidate
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def main() -> None:
    stage = Stage("tiles")
    if not stage.cuda:
        for row in compile_tables({32: 23}):
            stage.write(**row)
            stage.check(row["spilled"] == 0, f"spills registers: {row}")
        stage.finish()
    best: dict[str, list] = {"FORWARD": [], "BACKWARD": []}
    kinds = [("bfloat16", width, context) for width, context in CONTEXTS.items()] + [("float32", 32, 23)]
    for dtype, width, context in kinds:
        if stage.left < 20:  # to compile the candidates of one kind
            print(f"no time is left for {dtype}, r={context}")
            break
        size = measuring.DTYPES[dtype].itemsize
        cases = [(name, dtype, context, tile, stage.seed) for name in best for tile in candidates(size)]
        reasons = {case: str(reason) for (_, case), reason in in_processes([(compiles, case) for case in cases])}
        for name, table in best.items():
            function, times = prepared(name, dtype, context, stage.seed), {}
            for case in (case for case in cases if case[0] == name):
                tile = case[3]
                row = {"pass": name, "dtype": dtype, "r": context, **vars(tile)}
                if reasons[case]:
                    stage.write(**row, reason=reasons[case])
                    continue
                times[tile] = stage.times(lambda f=function, t=tile: f(t), 0.05)["device"]
                stage.write(**row, ns_per_token=times[tile] * 1e9 / TOKENS)
            fastest = min(times, key=times.get)
            table.append((size, width, *vars(fastest).values()))
    (stage.out / "tiles.json").write_text(json.dumps(best) + "\n")
    for name, table in best.items():
        print(f"{name} = {{")
        for size, width, *tile in table:
            print(f"    ({size}, {width}): Tile{tuple(tile)},")
        print("}")
    stage.finish()


if __name__ == "__main__":
    main()
