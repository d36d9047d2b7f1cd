"""Times of the banded backend by block and span size, for several contexts: the source of the defaults of Bands."""

import measuring
import torch

from fairseq_lambda.ops.banded.bands import Bands
from fairseq_lambda.ops.banded.mix import lambda_mix_banded


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[7, 15, 23, 63, 127, 255])
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--spans", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    options = measuring.parse(parser, argv)
    shape = options.batch, options.length, 12, 16, 64, 1
    torch.manual_seed(options.seed)
    rows = []
    for what, values in (("block", options.blocks), ("span", options.spans)):
        for r in options.contexts:
            inputs = measuring.layer_inputs(*shape, r, device=options.device)
            gradient = torch.randn(options.batch, options.length, 12, 64, device=options.device)
            ours = getattr(Bands(options.batch, options.length, 12, r, gradient), what)

            def run(value, inputs=inputs, gradient=gradient, what=what):
                y = lambda_mix_banded(*inputs, **{what: value})[0]
                torch.autograd.grad(y, inputs, gradient)

            functions = {value: lambda value=value: run(value) for value in sorted({*values, ours})}
            times = measuring.interleaved(functions, options.device, options.repeats, budget=0.5)
            row = {"context": r, "what": what, "default": ours, "over": times[ours] / min(times.values())}
            rows.append(row | {"seconds": times})
    columns = {"context": ("context",), "of": ("what",), "ms": ("ms",), "default": ("default",)}
    columns["default over the best"] = ("over", 1, 2)
    shown = [{**row, "ms": ", ".join(f"{n}: {s * 1e3:.2f}" for n, s in row["seconds"].items())} for row in rows]
    print(measuring.table(shown, columns))
    measuring.save(options, "tune_banded", rows, shape=dict(zip("bnhkvu", shape, strict=True)))


if __name__ == "__main__":
    main()
