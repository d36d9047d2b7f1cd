"""The mixing of tokens alone: lambda layers against fused softmax attention and against their convolution form.

Measures the time of the forward pass, of forward and backward passes, and memory, of

  banded, triton, reference    the backends of fairseq_lambda.ops.lambda_mix
  convolution                  the form of public implementations: position lambdas by a convolution, (b, k, v, n)
  softmax                      torch's scaled_dot_product_attention, FlashAttention on a GPU

given queries, keys and values, at equal width and heads. All take turns in one process. A batch has --tokens tokens at
every length; a longer sequence is a batch by itself.

Peak memory is the most that a forward and a backward pass allocate at one time. It includes the output and the
gradients of the inputs, which every implementation needs; workspace is the peak without these.
"""

import argparse
import sys
from collections.abc import Callable

import measuring
import pictures
import torch
import torch.nn.functional as F

from fairseq_lambda.ops import lambda_mix

LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
PEERS = ("convolution", "softmax")
TESTS = {  # a backend is left out unless its tests pass
    "banded": ["tests/ops/test_lambda_mix.py", "tests/modules/test_lambda_layer.py"],
    "reference": ["tests/ops/test_lambda_mix.py"],
    "triton": ["tests/ops/test_triton_kernels.py"],
}
COLUMNS = {
    "tokens": ("length",),
    "batch": ("batch",),
    "model": ("model",),
    "forward, ms": ("forward", 1e-3, 2),
    "with backward, ms": ("forward_backward", 1e-3, 2),
    "over ours": ("over", 1, 1),
    "peak MB": ("peak_bytes", 2**20, 1),
    "workspace MB": ("workspace_bytes", 2**20, 1),
}


def convolution_form(queries, keys, values, position_embedding):
    """Return y (b, h, v, n), channels first, which suits this form; keys are (b, u, k, n), values (b, u, v, n).

    ``position_embedding`` is the weight of a convolution, (k, u, 1, r).
    """
    content_lambda = torch.einsum("bukm,buvm->bkv", keys, values)
    content = torch.einsum("bhkn,bkv->bhvn", queries, content_lambda)
    position_lambda = F.conv2d(values, position_embedding, padding=(0, position_embedding.shape[-1] // 2))
    return content + torch.einsum("bhkn,bkvn->bhvn", queries, position_lambda)


def make(name: str, batch: int, length: int, options) -> tuple[Callable, list[torch.Tensor]]:
    """Return a function and its inputs."""
    h, v, dtype = options.heads, options.embed_dim // options.heads, measuring.DTYPES[options.dtype]
    if name == "softmax":
        inputs = [torch.randn(batch, h, length, v, dtype=dtype, device=options.device) for _ in range(3)]
        return F.scaled_dot_product_attention, [t.requires_grad_() for t in inputs]
    inputs = measuring.layer_inputs(
        batch, length, h, options.dim_k, v, options.dim_u, options.local_context, dtype, options.device
    )
    if name == "convolution":
        queries, keys, values, embedding = (t.detach() for t in inputs)
        inputs = [queries.permute(0, 2, 3, 1), keys.permute(0, 3, 2, 1), values.permute(0, 3, 2, 1)]
        return convolution_form, [t.contiguous().requires_grad_() for t in (*inputs, embedding.unsqueeze(2))]
    return lambda *t: lambda_mix(*t, backend=name)[0], inputs


def measure(names: list[str], length: int, options) -> list[dict]:
    """Return a row for each name: the seconds of both passes and the peak bytes."""
    torch.manual_seed(options.seed)
    batch = max(1, options.tokens // length)
    ahead, both, ends = {}, {}, {}
    for name in names:
        function, inputs = make(name, batch, length, options)
        with torch.no_grad():
            gradient = torch.randn_like(function(*inputs))
        ends[name] = sum(t.nbytes for t in (*inputs, gradient))
        ahead[name] = torch.no_grad()(lambda f=function, i=inputs: f(*i))
        both[name] = lambda f=function, i=inputs, g=gradient: torch.autograd.grad(f(*i), i, g)
    forward = measuring.interleaved(ahead, options.device, options.repeats)
    forward_backward = measuring.interleaved(both, options.device, options.repeats)
    rows = []
    for name in names:
        row = {"length": length, "model": name, "batch": batch}
        row |= {"forward": forward[name], "forward_backward": forward_backward[name]}
        peak = measuring.peak_bytes(both[name], options.device)
        rows.append(row | {"peak_bytes": peak, "workspace_bytes": peak - ends[name]})
    return rows


def run(backends: list[str], options) -> list[dict]:
    rows, names = [], [*backends, *PEERS]
    for length in options.lengths:
        measuring.say(f"{length} tokens: {', '.join(names)}")
        new = measure(names, length, options)
        slow = [row["model"] for row in new if row["forward_backward"] * 4 > options.limit]  # 4x at twice the length
        for name in slow:
            measuring.say(f"{name}: left out beyond {length} tokens, --limit {options.limit} s")
        names = [name for name in names if name not in slow]
        rows += new
    return rows


def passing(backends: list[str]) -> list[str]:
    """Return the backends whose tests pass."""
    result = []
    for backend in backends:
        measuring.say(f"tests of {backend}")
        if reason := measuring.tests_fail(*TESTS[backend]):
            measuring.say(f"{backend}: its tests fail, so it is left out:\n{reason}")
        else:
            result.append(backend)
    return result


def plot(rows: list[dict], path, dtype: str) -> None:
    ticks, panels = sorted({row["length"] for row in rows}), []
    for key, unit, label in (("forward_backward", 1e-6, "microseconds"), ("workspace_bytes", 1024, "KB of workspace")):
        lines = pictures.by_model(rows, lambda row, k=key, u=unit: row[k] / u / row["length"] / row["batch"])
        panels.append(pictures.Panel("tokens in a sequence", f"{label} per token", lines, ticks))
    last = [row for row in rows if row["model"] == "softmax" and "over" in row][-1]
    title = f"Lambda layers mix {last['length']:,} tokens {last['over']:.0f} times as fast as softmax attention"
    pictures.draw(path, f"{title} ({dtype}, forward and backward)", panels)


def parse(argv=None) -> argparse.Namespace:
    parser = measuring.parser(__doc__)
    parser.add_argument("--dtype", choices=measuring.DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--backends", nargs="+", choices=TESTS, help="the first is ours in the ratios "
                        "(default: banded on a CPU, triton and banded on a GPU)")  # fmt: skip
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="doubling; default: 128 ... 65536")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens per batch (%(default)s)")
    parser.add_argument("--embed-dim", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dim-k", type=int, default=16)
    parser.add_argument("--dim-u", type=int, default=1)
    parser.add_argument("--local-context", type=int, default=23)
    parser.add_argument("--limit", type=float, default=30, help="s; longer runs are left out (%(default)s)")
    options = measuring.parse(parser, argv)
    cuda = options.device == "cuda"
    options.dtype = options.dtype or ("bfloat16" if cuda else "float32")
    options.backends = options.backends or (["triton", "banded"] if cuda else ["banded"])
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    backends = passing(options.backends)
    if not backends:
        sys.exit("error: no backend whose tests pass, so there is nothing to compare")
    rows = run(backends, options)
    compared = measuring.related(rows, backends[0], "forward_backward", "over")
    print(f"Ours is {backends[0]}.\n\n{measuring.table(compared, COLUMNS)}")
    keys = ("dtype", "embed_dim", "heads", "dim_k", "dim_u", "local_context", "tokens")
    name = f"mixing-{options.device}-{options.dtype}"
    measuring.save(options, name, rows, shape={key: getattr(options, key) for key in keys})
    plot(compared, options.out / f"{name}.png", options.dtype)
    if backends != options.backends:
        sys.exit(1)


if __name__ == "__main__":
    main()
