"""Long contexts: the band (lambda_mix_banded) against Fourier transforms (lambda_mix_fourier), forward + backward.

Both run every shape in turns. The table has the median of each, the choice of the cost model
(fairseq_lambda/ops/fourier/cost.py), and the loss of that choice against the faster one. The band is left out if the
estimate for one run is longer than --band-seconds. The last lines say how far off the estimates are: these ratios are
the factors by which to correct the constants of the cost model.
"""

import itertools
import statistics

import measuring
import torch

from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.fourier import cost as costs
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier

MODELS = {"base": (12, 16, 64, 1), "mini": (4, 16, 64, 1), "u=4": (12, 16, 64, 4)}  # heads, dim_k, dim_v, dim_u
LENGTHS = [64, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384]
CONTEXTS = [23, 63, 95, 127, 191, 255, 511, 1023, 4095]
COLUMNS = {
    "model": ("model",),
    "dtype": ("dtype",),
    "n": ("length",),
    "r": ("context",),
    "band, ms": ("band_ms", 1, 1),
    "Fourier, ms": ("fourier_ms", 1, 1),
    "partition": ("partition",),
    "chosen": ("chosen",),
    "loses, %": ("loss", 0.01),
}


def measure(model: str, dtype: str, length: int, context: int, options) -> dict:
    """Return one row: the medians of both in ms, the choice, and its loss."""
    heads, *dims = MODELS[model]
    tensors = measuring.layer_inputs(1, length, heads, *dims, context, measuring.DTYPES[dtype], options.device)

    def run(function):
        y, content_lambda = function(*tensors)
        torch.autograd.grad((y, content_lambda), tensors, (torch.ones_like(y), torch.ones_like(content_lambda)))

    band = costs.band_cost(length, context, heads, *dims, options.device)
    fourier, size = costs.cheapest_partition(length, context, *dims, options.device)
    functions = {"fourier": lambda: run(lambda_mix_fourier)}
    if band < options.band_seconds * 1e9:
        functions["band"] = lambda: run(lambda_mix_banded)
    times = measuring.interleaved(functions, options.device, options.repeats, budget=0.5)
    times = {name: times[name] * 1e3 if name in times else None for name in ("band", "fourier")}
    chosen = "fourier" if costs.prefers_fourier(tensors[0], tensors[2], tensors[3]) else "band"
    row = {"model": model, "dtype": dtype, "length": length, "context": context, "partition": size, "chosen": chosen}
    row |= {f"{name}_ms": value for name, value in times.items()}
    row |= {"band_estimate_ms": band / 1e6, "fourier_estimate_ms": fourier / 1e6}
    best = min(value for value in times.values() if value is not None)
    row["loss"] = times[chosen] / best - 1 if times[chosen] is not None else None
    return row


def factors(rows: list[dict]) -> str:
    """Return the median ratio of measured to estimated time: the factors for the constants of the cost model."""
    found = {}
    for row, name in itertools.product(rows, ("band", "fourier")):
        if row[f"{name}_ms"] is not None:
            ratio = row[f"{name}_ms"] / row[f"{name}_estimate_ms"]
            found.setdefault(f"{name} {row['dtype']}", []).append(ratio)
    return ", ".join(f"{key} {statistics.median(ratios):.2f}" for key, ratios in found.items())


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="of sequences with global context")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="local contexts, odd")
    parser.add_argument("--local-length", type=int, default=4096, help="of sequences with local context")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["base", "mini"], help="widths 768 and 256")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--band-seconds", type=float, default=3.0, help="longest run of the band (%(default)s)")
    options = measuring.parse(parser, argv)
    if even := [r for r in options.contexts if r % 2 == 0]:
        parser.error(f"--contexts {even[0]}: must be odd (centred on a token)")
    torch.manual_seed(options.seed)
    shapes = [(n, 2 * n - 1) for n in options.lengths] + [(options.local_length, r) for r in options.contexts]
    rows = []
    for model, dtype, (length, context) in itertools.product(options.models, options.dtype, shapes):
        measuring.say(f"{model} {dtype}: {length} tokens, context {context}")
        rows.append(measure(model, dtype, length, context, options))
    print(f"{measuring.table(rows, COLUMNS)}\n\nmeasured over estimated, median: {factors(rows)}")
    within = [row["loss"] <= 0.2 for row in rows if row["loss"] is not None]
    print(f"the choice is within 20 % of the faster one in {sum(within)} of {len(within)} rows")
    measuring.save(options, "global_context", rows)


if __name__ == "__main__":
    main()
