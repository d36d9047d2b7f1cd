"""Features of long texts on one machine: 4k to 64k tokens in one piece, time and memory per token.

Random weights and tokens; a lambda_bert without absolute positions beside softmax attention up to --softmax-tokens.
Memory is the most that torch's allocator holds at one time beyond the model.
"""

import measuring
import torch

from fairseq_lambda.models.lambda_bert_config import SIZES
from fairseq_lambda.modules.lambda_bert import LambdaBert, LambdaBertOptions

COLUMNS = {
    "tokens": ("tokens",),
    "model": ("model",),
    "s": ("seconds", 1, 2),
    "us per token": ("seconds_per_token", 1e-6),
    "peak MB": ("peak_bytes", 2**20),
    "KB per token": ("bytes_per_token", 2**10, 1),
}


def model_of(lambda_layers: str, options) -> LambdaBert:
    layers, width, heads = SIZES[options.size]
    torch.manual_seed(options.seed)
    core = LambdaBertOptions(
        layers=layers,
        embed_dim=width,
        ffn_embed_dim=4 * width,
        heads=heads,
        lambda_layers=lambda_layers,
        absolute_positions="none",
    )
    return LambdaBert(core, lm_head=False).eval().to(options.device)


@torch.no_grad()
def measure(models: dict[str, LambdaBert], length: int, options) -> list[dict]:
    ids = torch.randint(4, 8000, (1, length), generator=torch.Generator().manual_seed(options.seed)).to(options.device)
    functions = {name: lambda model=model: model(ids, return_lambdas=True) for name, model in models.items()}
    rows = []
    for name, seconds in measuring.interleaved(functions, options.device, options.repeats, warm_up=0, budget=0).items():
        peak = measuring.peak_bytes(functions[name], options.device)
        row = {"model": name, "tokens": length, "seconds": seconds, "peak_bytes": peak}
        rows.append(row | {"seconds_per_token": seconds / length, "bytes_per_token": peak / length})
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=3)
    parser.add_argument("--size", choices=SIZES, default="mini", help="(%(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--softmax-tokens", type=int, default=16384, help="longest text for softmax (%(default)s)")
    options = measuring.parse(parser, argv)
    models = {"lambda": model_of("all", options), "softmax": model_of("none", options)}
    rows = []
    for length in options.lengths:
        measuring.say(f"{length} tokens")
        rows += measure(models if length <= options.softmax_tokens else {"lambda": models["lambda"]}, length, options)
    print(measuring.table(rows, COLUMNS))
    measuring.save(options, "long_text", rows, shape={"size": options.size})


if __name__ == "__main__":
    main()
