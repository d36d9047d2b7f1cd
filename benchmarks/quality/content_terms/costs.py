"""Counts and times a mini layer with each content term beside the lambda layer and the rotary attention layer.

``python benchmarks/quality/content_terms/costs.py`` prints a table: parameters and multiply-adds of the mixing, and
milliseconds of one core for the forward and backward pass of the whole layer, feed-forward network included, for 32
texts of 128 tokens (all positions, and the top layer's: 15 % of them and ``<s>``) and for 2 of 2,048. ``--counts``
times nothing.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "speed"))
import measuring
import torch
from step_parts import masked_tokens, mixing_cost

from content_terms.kernels import prefers_pairs
from content_terms.layer import ContentLayer
from content_terms.terms import TERMS, KernelTerm, SoftmaxTerm, Term
from fairseq_lambda.commands.train import environment
from fairseq_lambda.hardware import bfloat16_is_faster
from fairseq_lambda.modules import EncoderLayer, LambdaBert, LambdaBertOptions

MINI = {"layers": 1, "embed_dim": 256, "ffn_embed_dim": 1024, "heads": 4, "vocab_size": 8}
SHAPES = {"32 x 128": (32, 128, False), "32 x 128, top": (32, 128, True), "2 x 2,048": (2, 2048, False)}


def layers() -> dict[str, EncoderLayer]:
    """Return the layers to compare."""
    o = LambdaBertOptions(**MINI)
    softmax = LambdaBertOptions(**MINI, lambda_layers="none", attention_rotary=True)
    plain = {"lambda": o, "attention layer": softmax}
    plain = {name: LambdaBert(options).encoder.layers[0] for name, options in plain.items()}
    return plain | {name: ContentLayer(o, make(o)) for name, make in TERMS.items()}


def multiply_adds(layer: EncoderLayer, length: int, asked: int) -> float:
    """Return the multiply-adds per token of the mixing, where ``asked`` of ``length`` positions ask for the term."""
    term = getattr(layer, "term", None)
    count = mixing_cost(layer, length)
    if term is None:
        return count
    if term.instead_of == "position":  # mixing_cost counts a context of 23 whether it is there or not
        mixing = layer.mixing
        count -= mixing.heads * min(mixing.local_context, length) * (mixing.dim_k + mixing.dim_v)
    return count + of_term(term, layer.mixing, length, asked)


def of_term(term: Term, mixing, length: int, asked: int) -> float:
    """Return the multiply-adds of the term alone."""
    h, v, share = mixing.heads, mixing.dim_v, asked / length
    channels = term.k_norm.normalized_shape[0] * term.groups
    count = term.k_proj.weight.numel() + share * (0 if term.q_proj is None else term.q_proj.weight.numel())
    if isinstance(term, SoftmaxTerm):
        block = term.window + 1
        share, seen = (share, length) if length <= block else (1, 3 * block)
        return count + share * h * seen * (channels + v)
    assert isinstance(term, KernelTerm)
    queries, keys = (term.kernel(torch.zeros(1, n, channels)) for n in (asked * h, length))
    depths = [factor.shape[-1] for factor in queries]
    if prefers_pairs(queries, keys, v):
        distinct = depths[:1] if queries[-1] is queries[0] else depths
        return count + share * h * length * (sum(distinct) + v)
    return count + (share * h + 1) * math.prod(depths) * v


def timed(repeats: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of one core by shape and layer: the least of all turns, as other processes only add to it."""
    found = {}
    for shape, (batch, length, top) in SHAPES.items():
        x = torch.randn(batch, length, MINI["embed_dim"], requires_grad=True)
        at = None
        if top:
            masked = torch.randperm(batch * length)[: masked_tokens(batch * length)]
            at = torch.cat([torch.arange(batch) * length, masked.sort().values])
        compared = layers()
        turns = [{name: step(layer, x, at) for name, layer in compared.items()} for _ in range(repeats + 1)]
        found[shape] = {name: 1000 * min(turn[name] for turn in turns[1:]) for name in turns[0]}
        measuring.say(f"{shape}: done")
    return found


def step(layer: EncoderLayer, x: torch.Tensor, at: torch.Tensor | None) -> float:
    """Return the seconds of all cores for forward and backward."""
    layer.zero_grad()
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster("cpu")):
        y, _ = layer(x, at=at)
    y.backward(torch.ones_like(y))
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="turns (%(default)s)")
    parser.add_argument("--counts", action="store_true", help="count only")
    options = parser.parse_args()
    if dict(os.environ) != environment(0):  # memory as in training, set before a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], environment(0))
    torch.manual_seed(1)
    times = {} if options.counts else timed(options.repeats)
    rows = []
    for name, layer in layers().items():
        parts = [layer.mixing, *([layer.term] if isinstance(layer, ContentLayer) else [])]
        row = {"layer": name, "parameters": sum(p.numel() for part in parts for p in part.parameters())}
        for shape, (_, length, top) in SHAPES.items():
            asked = masked_tokens(length) + 1 if top else length
            row[f"{shape}, multiply-adds"] = multiply_adds(layer, length, asked) / 1000
            row[f"{shape}, ms"] = times.get(shape, {}).get(name)
        rows.append(row)
    columns = {"layer": ("layer",), "parameters": ("parameters",)}
    columns |= {f"{shape}, thousand multiply-adds per token": (f"{shape}, multiply-adds",) for shape in SHAPES}
    columns |= {f"{shape}, ms": (f"{shape}, ms", 1, 1) for shape in times}
    print(measuring.table(rows, columns))
    print(measuring.setting_line(measuring.setting("cpu", 1)))


if __name__ == "__main__":
    main()
