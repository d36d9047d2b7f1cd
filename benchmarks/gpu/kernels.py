"""The Triton kernels against a float64 reference: output and every gradient, equal bits, unwritten memory.

Each case runs a hundred times, because errors on a GPU may be rare.
"""

from stage import Stage, in_processes  # isort: skip  sets the path

import itertools
import time
from types import SimpleNamespace

import measuring
import torch
from comparisons import draw, errors, poison, results

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.ops.reference import lambda_mix_reference

# length, dim_u, context, batch, heads, dim_k, dim_v; the first two are those of models
SIZES = [
    (512, 1, 23, 2, 12, 16, 64),
    (128, 1, 23, 3, 4, 16, 64),
    (1, 1, 1, 2, 3, 4, 5),
    (7, 2, 23, 2, 5, 3, 17),
    (130, 2, 63, 2, 3, 17, 70),
    (257, 4, 5, 2, 2, 8, 33),
    (300, 1, 255, 1, 2, 32, 128),
    (1001, 1, 11, 1, 16, 20, 64),
    (5000, 1, 23, 1, 2, 16, 64),
]
SHORT = 1, 3  # sizes for the interpreter, in float32 and bfloat16
PADDED = 45, 3, 16, 23  # length, heads, dim_k, context


def agrees(case: tuple) -> dict:
    """Return the errors of the kernels and of plain torch, both relative to float64."""
    from fairseq_lambda.ops.triton.mix import lambda_mix_triton

    size, dtype, device, seed = case
    start = time.monotonic()
    poison(SimpleNamespace(setattr=setattr))
    tensors = draw(*size, dtype=measuring.DTYPES[dtype], device=device, seed=seed)
    ours, plain = errors(lambda_mix_triton, tensors), errors(lambda_mix_reference, tensors)
    once = results(lambda_mix_triton, tensors)
    repeats = 100 if device == "cuda" else 1
    same = all(all(map(torch.equal, once, results(lambda_mix_triton, tensors))) for _ in range(repeats))
    # the kernels' float32 products have full precision; half precision may err twice as much as the plain equations
    allowed = {name: max(2e-6 if dtype == "float32" else 0, 2 * error) for name, error in plain.items()}
    return {
        "length, u, r, b, h, k, v": str(size),
        "dtype": dtype,
        "error": max(ours.values()),
        "plain": max(plain.values()),
        "right": all(ours[name] <= allowed[name] for name in ours),
        "equal bits": same,
        "took": round(time.monotonic() - start, 1),
    }


def padding_is_ignored(case: tuple) -> dict:
    """Return whether a layer with NaN in the padding returns what the reference returns without NaN."""
    dtype, device, seed = case
    torch.manual_seed(seed)
    length, heads, dim_k, context = PADDED
    layer = LambdaLayer(heads * 8, heads, dim_k=dim_k, local_context=context).to(device, measuring.DTYPES[dtype])
    x = torch.randn(2, length, heads * 8, device=device, dtype=measuring.DTYPES[dtype])
    mask = torch.zeros(2, length, dtype=torch.bool, device=device)
    mask[0, length // 2 :] = True
    outputs = []
    for backend, filling in (("reference", 0.0), ("triton", float("nan"))):
        layer.backend = backend
        outputs.append(layer(x.masked_fill(mask[..., None], filling), mask).masked_fill(mask[..., None], 0).float())
    error = ((outputs[0] - outputs[1]).norm() / outputs[0].norm()).item()
    bound = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 3e-2}[dtype]
    return {"padding": dtype, "error": error, "right": error < bound, "equal bits": True}


def main() -> None:
    stage = Stage("kernels")
    dtypes = ("bfloat16", "float32", "float16")
    sizes = SIZES
    if not stage.cuda:
        dtypes, sizes = dtypes[:2], [SIZES[i] for i in SHORT]
    calls = [(agrees, (size, dtype, stage.device, stage.seed)) for dtype, size in itertools.product(dtypes, sizes)]
    calls += [(padding_is_ignored, (dtype, stage.device, stage.seed)) for dtype in dtypes]
    for (_, case), row in in_processes(calls):
        if isinstance(row, Exception):
            stage.write(case=str(case), failed=str(row).splitlines()[0])
            stage.check(False, f"{case}: {row}")
            continue
        stage.write(**row)
        stage.check(row["right"], f"errs more than allowed: {row}")
        stage.check(row["equal bits"], f"runs differ: {row}")
    stage.finish()


if __name__ == "__main__":
    main()
