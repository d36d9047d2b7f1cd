"""Long contexts: the band (lambda_mix_banded) against Fourier transforms (lambda_mix_fourier), forward + backward.

Every shape is run by both in turns, and the median of each is reported with the choice of the cost model
(fairseq_lambda/ops/fourier/cost.py), and with what that choice loses against the faster one. The band is left out
where one run of it is estimated to take longer than --band-seconds. At the end: how far off the estimates are, which
are the factors for the constants of the cost model.
"""

import argparse
import statistics
from pathlib import Path

import measuring
import torch

from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.fourier import cost as costs
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier

MODELS = {"base": (12, 16, 64, 1), "mini": (4, 16, 64, 1), "u=4": (12, 16, 64, 4)}  # heads, dim_k, dim_v, dim_u


def inputs(model: str, dtype: torch.dtype, length: int, context: int) -> list[torch.Tensor]:
    """Return queries, keys, values and position_embedding of one sequence, with gradients."""
    heads, dim_k, dim_v, dim_u = MODELS[model]
    shapes = [(1, length, heads, dim_k), (1, length, dim_k, dim_u), (1, length, dim_v, dim_u), (dim_k, dim_u, context)]
    tensors = [torch.randn(shape) for shape in shapes]
    tensors[1], tensors[3] = tensors[1].softmax(1), tensors[3] * tensors[3].numel() ** -0.5
    return [t.to(dtype).requires_grad_() for t in tensors]


def measure(model: str, dtype: str, length: int, context: int, options) -> dict:
    """Return one row: medians in ms of both, the choice, and what it loses."""
    tensors = inputs(model, measuring.DTYPES[dtype], length, context)
    heads, dim_k, dim_v, dim_u = MODELS[model]
    grad_y = torch.randn(1, length, heads, dim_v).to(measuring.DTYPES[dtype])

    def run(function):
        y, content_lambda = function(*tensors)
        torch.autograd.grad((y, content_lambda), tensors, (grad_y, content_lambda.detach()))

    band = costs.band_cost(length, context, heads, dim_k, dim_v, dim_u)
    cost, size = costs.cheapest_partition(length, context, dim_k, dim_v, dim_u)
    functions = {"fourier": lambda: run(lambda_mix_fourier)}
    if band < options.band_seconds * 1e9:
        functions["band"] = lambda: run(lambda_mix_banded)
    medians = measuring.interleaved(functions, "cpu", repeats=3, budget=options.seconds)
    medians = {name: medians[name] * 1e3 if name in medians else None for name in ("band", "fourier")}
    chosen = "fourier" if costs.prefers_fourier(tensors[0], tensors[2], tensors[3]) else "band"
    row = {"model": model, "dtype": dtype, "length": length, "context": context, "partition": size, "chosen": chosen}
    row |= {f"{name}_ms": value for name, value in medians.items()}
    row |= {"band_estimate_ms": band / 1e6, "fourier_estimate_ms": cost / 1e6}
    best = min(value for value in medians.values() if value is not None)
    row["loss"] = medians[chosen] / best - 1 if medians[chosen] is not None else None
    return row


def points(options) -> list[tuple[str, str, int, int]]:
    """Return model, dtype, length and context of each row."""
    rows = []
    for model in options.models:
        for dtype in options.dtypes:
            rows += [(model, dtype, n, 2 * n - 1) for n in options.lengths]
            rows += [(model, dtype, options.local_length, r) for r in options.contexts]
    return rows


def rates(rows: list[dict]) -> dict[str, float]:
    """Return measured over estimated time, the median of the rows: the factors for the constants of the cost model."""
    factors = {}
    for dtype in sorted({row["dtype"] for row in rows}):
        for name in ("band", "fourier"):
            ratios = [
                row[f"{name}_ms"] / row[f"{name}_estimate_ms"]
                for row in rows
                if row["dtype"] == dtype and row[f"{name}_ms"] is not None
            ]
            if ratios:
                factors[f"{name} {dtype}"] = statistics.median(ratios)
    return factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    lengths = [64, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384]
    contexts = [23, 63, 95, 127, 191, 255, 511, 1023, 4095]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths, help="of sequences with global context")
    parser.add_argument("--contexts", type=int, nargs="+", default=contexts, help="odd local contexts")
    parser.add_argument("--local-length", type=int, default=4096, help="of the sequences with local context")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["base", "mini"], help="widths 768 and 256")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--seconds", type=float, default=0.5, help="of measurement for each, three runs at least")
    parser.add_argument("--band-seconds", type=float, default=3.0, help="the most that one run of the band may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=measuring.RESULTS / "global_context.jsonl")
    options = parser.parse_args()
    even = [r for r in options.contexts if r % 2 == 0]
    if even:
        parser.error(f"--contexts {even[0]}: must be odd (centred on a token)")

    torch.manual_seed(options.seed)
    environment = measuring.setting("cpu", options.seed)
    print(measuring.setting_line(environment))
    print("| model | dtype | n | r | band ms | fourier ms | P | band / fourier | chosen | loses |", flush=True)
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for model, dtype, length, context in points(options):
        row = measure(model, dtype, length, context, options)
        band, loss = row["band_ms"], row["loss"]
        print(
            f"| {model} | {dtype} | {length} | {context} | {'not run' if band is None else f'{band:.1f}'} "
            f"| {row['fourier_ms']:.1f} | {row['partition']} "
            f"| {'' if band is None else format(band / row['fourier_ms'], '.2f')} | {row['chosen']} "
            f"| {'' if loss is None else format(loss, '.0%')} |",
            flush=True,
        )
        rows.append(row)
    factors = rates(rows)
    print("\nmeasured over estimated, median: " + ", ".join(f"{key} {value:.2f}" for key, value in factors.items()))
    within = [row["loss"] <= 0.2 for row in rows if row["loss"] is not None]
    print(f"the choice is within 20 % of the faster one in {sum(within)} of {len(within)} rows")
    measuring.write_lines(options.json, [{**row, "setting": environment} for row in rows])


if __name__ == "__main__":
    main()
