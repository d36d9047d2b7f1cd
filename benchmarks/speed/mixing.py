"""The mixing of tokens alone: lambda layers against fused softmax attention and against their convolution form.

Measures the time of forward, and of forward with backward, and memory, of

  banded, triton, reference    the backends of fairseq_lambda.ops.lambda_mix
  convolution                  the form of public implementations: position lambdas made by a convolution, (b, k, v, n)
  softmax                      torch's scaled_dot_product_attention, FlashAttention on a GPU

on queries, keys and values that are already there, at equal width and heads. All take turns in one process. A batch
has --tokens tokens, so that one more length is fewer and longer sequences; a sequence that is longer stands alone.

Peak memory is all that a forward and a backward pass allocate at one time. The output and the gradients of the inputs
are in it, which no implementation can do without; workspace is the peak less these.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import measuring
import torch
import torch.nn.functional as F

from fairseq_lambda.hardware import multiplies_bfloat16
from fairseq_lambda.ops import lambda_mix

LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
PEERS = ("convolution", "softmax")
MB = 2**20
RATIOS = {
    "forward": "forward",
    "forward_backward": "with backward",
    "peak_bytes": "peak memory",
    "workspace_bytes": "workspace",
}
TESTS = {  # of the backend, and it may print ratios only if they pass
    "banded": ["tests/ops/test_lambda_mix.py", "tests/modules/test_lambda_layer.py"],
    "reference": ["tests/ops/test_lambda_mix.py"],
    "triton": ["tests/ops/test_triton_kernels.py"],
}


def convolution_form(queries, keys, values, position_embedding):
    """Return y (b, h, v, n), channels first as this form likes it; keys (b, u, k, n), values (b, u, v, n).

    ``position_embedding`` is the weight of a convolution, (k, u, 1, r).
    """
    content_lambda = torch.einsum("bukm,buvm->bkv", keys, values)
    content = torch.einsum("bhkn,bkv->bhvn", queries, content_lambda)
    position_lambda = F.conv2d(values, position_embedding, padding=(0, position_embedding.shape[-1] // 2))
    return content + torch.einsum("bhkn,bkvn->bhvn", queries, position_lambda)


def make(name: str, batch: int, length: int, options) -> tuple[Callable, list[torch.Tensor], torch.Tensor]:
    """Return a function, its inputs and the gradient of its output."""
    h, k, u, r = options.heads, options.dim_k, options.dim_u, options.local_context
    v = options.embed_dim // h

    def draw(*shape, scale=1.0):
        dtype = measuring.DTYPES[options.dtype]
        return torch.randn(*shape, dtype=dtype, device=options.device).mul_(scale).requires_grad_()

    if name == "softmax":
        inputs, shape = [draw(batch, h, length, v) for _ in range(3)], (batch, h, length, v)
        return F.scaled_dot_product_attention, inputs, draw(*shape).detach()
    scale = (k * u * r) ** -0.5
    if name == "convolution":
        inputs = [draw(batch, h, k, length), draw(batch, u, k, length, scale=1 / length), draw(batch, u, v, length)]
        inputs.append(draw(k, u, 1, r, scale=scale))
        return convolution_form, inputs, draw(batch, h, v, length).detach()
    inputs = [draw(batch, length, h, k), draw(batch, length, k, u, scale=1 / length), draw(batch, length, v, u)]
    inputs.append(draw(k, u, r, scale=scale))
    return lambda *t: lambda_mix(*t, backend=name)[0], inputs, draw(batch, length, h, v).detach()


def forward(function, inputs) -> None:
    with torch.no_grad():
        function(*inputs)


def forward_backward(function, inputs, gradient) -> None:
    torch.autograd.grad(function(*inputs), inputs, gradient)


def measure(names: list[str], length: int, options) -> dict[str, dict[str, float]]:
    """Return for each name the seconds of both passes and the bytes at the peak."""
    torch.manual_seed(options.seed)
    batch = max(1, options.tokens // length)
    made = {name: make(name, batch, length, options) for name in names}
    ahead = {name: lambda m=m: forward(*m[:2]) for name, m in made.items()}
    both = {name: lambda m=m: forward_backward(*m) for name, m in made.items()}
    results = {name: {"batch": batch} for name in names}
    for key, functions in (("forward", ahead), ("forward_backward", both)):
        for name, value in measuring.interleaved(functions, options.device, options.repeats).items():
            results[name][key] = value
    for name, (_, inputs, gradient) in made.items():
        peak = measuring.peak_bytes(both[name], options.device)
        results[name]["peak_bytes"] = peak
        results[name]["workspace_bytes"] = peak - sum(t.numel() * t.element_size() for t in (*inputs, gradient))
    return results


def slope(points: dict[int, float]) -> float:
    """Return d log(time) / d log(length) of a sequence over the last three lengths: 1 is linear, 2 quadratic."""
    lengths = sorted(points)[-3:]
    return math.log(points[lengths[-1]] / points[lengths[0]]) / math.log(lengths[-1] / lengths[0])


def run(options) -> tuple[dict, dict]:
    names = [*options.backends, *PEERS]
    refused = {}
    for backend in options.backends:
        print(f"tests of {backend} ...", file=sys.stderr, flush=True)
        reason = measuring.tests_fail(*TESTS[backend])
        if reason:
            refused[backend] = reason
            print(f"{backend}: its tests fail, so it is left out:\n{reason}", file=sys.stderr)
    names = [name for name in names if name not in refused]
    table: dict[int, dict] = {}
    for length in options.lengths:
        before = table.get(length // 2, {})
        for name in list(names):  # the first two steps say how time grows; a last warm-up and the repeats must fit
            if name in before and before[name]["forward_backward"] * 4 > options.limit:
                names.remove(name)
                print(f"{name}: left out from {length} tokens on, --limit {options.limit} s", file=sys.stderr)
        print(f"{length} tokens: {', '.join(names)} ...", file=sys.stderr, flush=True)
        table[length] = measure(names, length, options)
    return table, refused


def report(table: dict, options) -> str:
    """Return a table of times and one of ratios."""
    names = [name for name in (*options.backends, *PEERS) if any(name in row for row in table.values())]
    columns = [f"{name}, {what}" for what in ("ms", "peak MB", "workspace MB") for name in names]
    times = [["tokens", "batch", *columns]]
    ours = next(name for name in names if name not in PEERS)
    others = [name for name in names if name != ours]
    ratios = [["tokens", *(f"{n} / {ours}, {what}" for n in others for what in RATIOS.values())]]
    for length, row in table.items():
        cells = [
            f"{row[n][key] / unit:.{digits}f}" if n in row else ""
            for key, unit, digits in (("forward_backward", 1e-3, 2), ("peak_bytes", MB, 1), ("workspace_bytes", MB, 1))
            for n in names
        ]
        times.append([f"{length:,}", str(next(iter(row.values()))["batch"]), *cells])
        cells = []
        for name in others:
            for key in RATIOS:
                cells.append(f"{row[name][key] / row[ours][key]:.1f}" if name in row and ours in row else "")
        ratios.append([f"{length:,}", *cells])
    lines = ["Forward with backward:", "", measuring.markdown(times), ""]
    lines += [f"Ratios, above 1 where {ours} is better:", "", measuring.markdown(ratios), ""]
    for name in names:
        points = {n: row[name]["forward_backward"] / row[name]["batch"] for n, row in table.items() if name in row}
        lines.append(f"slope of {name}: time of a sequence ~ length^{slope(points):.2f} at the long end")
    if ours in table.get(1024, {}) and ours in table.get(65536, {}):
        token = {n: table[n][ours]["forward_backward"] / (n * table[n][ours]["batch"]) for n in (1024, 65536)}
        lines.append(f"time per token of {ours} at 65,536 over that at 1,024: {token[65536] / token[1024]:.2f}")
    return "\n".join(lines)


def message(table: dict, options) -> str:
    """Return what the picture shows, in one line."""
    ours = next(name for name in options.backends if any(name in row for row in table.values()))
    both = [n for n, row in table.items() if ours in row and "softmax" in row]
    if not both:
        return "Mixing of tokens: time and workspace per token"
    longest = table[max(both)]
    ratio = longest["softmax"]["forward_backward"] / longest[ours]["forward_backward"]
    return f"Lambda layers mix {max(both):,} tokens {ratio:.0f} times as fast as softmax attention ({options.dtype})"


def plot(table: dict, options, path: Path) -> None:
    """Write a picture of time and memory per token against length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    labels = {"forward_backward": "microseconds per token", "workspace_bytes": "KB of workspace per token"}
    units = {"forward_backward": 1e-6, "workspace_bytes": 1024}
    for axis, key in zip(axes, labels, strict=True):
        for name in (*options.backends, *PEERS):
            points = {n: row[name] for n, row in table.items() if name in row}
            if not points:
                continue
            y = [p[key] / units[key] / (n * p["batch"]) for n, p in points.items()]
            label = "softmax attention, fused" if name == "softmax" else name
            label = label if name in PEERS else f"lambda layer, {name}"
            (line,) = axis.plot(list(points), y, "o-" if name not in PEERS else "o--", markersize=4, label=label)
            axis.annotate(label, (list(points)[-1], max(y[-3:])), xytext=(0, 9), textcoords="offset points",
                          ha="right", color=line.get_color(), fontsize=9)  # fmt: skip
        axis.margins(y=0.12)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(list(table), [f"{n:,}" if n < 10000 else f"{n // 1024}k" for n in table], fontsize=8)
        axis.set_xlabel("tokens in a sequence")
        axis.set_ylabel(f"{labels[key]}, forward and backward")
        axis.grid(True, which="major", alpha=0.3)
    figure.suptitle(message(table, options))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if cuda else "cpu", help="(%(default)s)")
    parser.add_argument("--dtype", choices=list(measuring.DTYPES), help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--backends", nargs="+", choices=list(TESTS), help="the first is ours in the ratios "
                        "(default: banded on a CPU, triton and banded on a GPU)")  # fmt: skip
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="doubling; default: 128 ... 65536")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens per batch (%(default)s)")
    parser.add_argument("--embed-dim", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dim-k", type=int, default=16)
    parser.add_argument("--dim-u", type=int, default=1)
    parser.add_argument("--local-context", type=int, default=23)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, at least (%(default)s)")
    parser.add_argument("--limit", type=float, default=30, help="s; longer runs are left out (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=measuring.RESULTS, help="folder (%(default)s)")
    options = parser.parse_args(argv)
    options.dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    options.backends = options.backends or (["triton", "banded"] if options.device == "cuda" else ["banded"])
    if options.device == "cuda" and not cuda:
        parser.error("--device cuda: torch finds no GPU here")
    if options.dtype == "bfloat16" and not multiplies_bfloat16(options.device):
        parser.error("--dtype bfloat16: this processor has no bfloat16 products, torch would only emulate them")
    return options


def main() -> None:
    options = parse()
    table, refused = run(options)
    if not any(name in row for row in table.values() for name in options.backends):
        sys.exit("error: no backend whose tests pass, so there is nothing to compare")
    where = measuring.setting(options.device, options.seed)
    keys = ("dtype", "embed_dim", "heads", "dim_k", "dim_u", "local_context", "tokens")
    shape = {key: getattr(options, key) for key in keys}
    print(f"{report(table, options)}\n{measuring.setting_line(where)}\n{measuring.setting_line(shape)}")
    stem = options.out / f"mixing-{options.device}-{options.dtype}"
    rows = [{"length": n, "model": name, **row[name]} for n, row in table.items() for name in row]
    measuring.write_lines(stem.with_suffix(".jsonl"), [{**row, "shape": shape, "setting": where} for row in rows])
    plot(table, options, stem.with_suffix(".png"))
    print(f"written to {stem}.jsonl and .png")
    sys.exit(bool(refused))


if __name__ == "__main__":
    main()
