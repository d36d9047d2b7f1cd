"""Times of the banded backend over blocks and spans, for several contexts: where the defaults in ops/ come from."""

import argparse

import measuring
import torch

from fairseq_lambda.ops.banded.bands import Bands
from fairseq_lambda.ops.banded.mix import lambda_mix_banded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default, help="(%(default)s)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[7, 15, 23, 63, 127, 255])
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--spans", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dim-k", type=int, default=16)
    parser.add_argument("--dim-v", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    b, n, h, k, v = options.batch, options.length, options.heads, options.dim_k, options.dim_v
    torch.manual_seed(options.seed)
    for what, values in (("block", options.blocks), ("span", options.spans)):
        rows = [["context", *(f"{what} {value}, ms" for value in values), "default", "over the best"]]
        for r in options.contexts:
            shapes = ((b, n, h, k), (b, n, k, 1), (b, n, v, 1), (k, 1, r))
            inputs = [torch.randn(*s, device=options.device, requires_grad=True) for s in shapes]
            gradient = torch.randn(b, n, h, v, device=options.device)
            ours = getattr(Bands(b, n, h, r, gradient), what)
            candidates = sorted({*values, ours})

            def run(value, inputs=inputs, gradient=gradient, what=what):
                y = lambda_mix_banded(*inputs, **{what: value})[0]
                torch.autograd.grad(y, inputs, gradient)

            functions = {value: lambda value=value: run(value) for value in candidates}
            times = measuring.interleaved(functions, options.device, options.repeats, budget=0.5)
            cells = [f"{times[value] * 1e3:.2f}" for value in values]
            rows.append([str(r), *cells, str(ours), f"{times[ours] / min(times.values()):.2f}"])
        print(measuring.markdown(rows), end="\n\n")
    print(f"{b} x {n} tokens, h={h} k={k} u=1 v={v}, forward and backward")
    print(measuring.setting_line(measuring.setting(options.device, options.seed)))


if __name__ == "__main__":
    main()
