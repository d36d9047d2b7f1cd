"""Features of long texts on one machine: extract_features of 4k to 64k tokens in one piece, time and memory per token.

Random weights and tokens; a lambda_bert without absolute positions, through the hub interface, beside softmax attention
up to --softmax-tokens. Memory is the most that torch's allocator holds at one time beyond the model.
"""

import measuring
import torch
from fairseq.data import Dictionary

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.lambda_bert_config import SIZES, sized_config
from fairseq_lambda.tasks import MaskedLMSOPConfig, MaskedLMSOPTask

COLUMNS = {
    "tokens": ("tokens",),
    "model": ("model",),
    "s": ("seconds", 1, 2),
    "us per token": ("seconds_per_token", 1e-6),
    "peak MB": ("peak_bytes", 2**20),
    "KB per token": ("bytes_per_token", 2**10, 1),
}


def make_hub(lambda_layers: str, options) -> LambdaBertHubInterface:
    dictionary = Dictionary()
    for i in range(8000):
        dictionary.add_symbol(f"w{i}")
    task_cfg = MaskedLMSOPConfig(data="", sentence_objective="none", tokens_per_sample=128)
    task_cfg.seed, task_cfg.train_subset, task_cfg.required_seq_len_multiple = options.seed, "train", 1
    task = MaskedLMSOPTask(task_cfg, dictionary)
    cfg = sized_config(*SIZES[options.size])(lambda_layers=lambda_layers, absolute_positions="none")
    torch.manual_seed(options.seed)
    model = LambdaBertModel.build_model(cfg, task)
    return LambdaBertHubInterface(cfg, task, model, None).eval().to(options.device)


@torch.no_grad()
def measure(hubs: dict[str, LambdaBertHubInterface], length: int, options) -> list[dict]:
    ids = torch.randint(4, 8000, (length,), generator=torch.Generator().manual_seed(options.seed))
    functions = {name: lambda hub=hub: hub.extract_features(ids, return_lambdas=True) for name, hub in hubs.items()}
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
    hubs = {"lambda": make_hub("all", options), "softmax": make_hub("none", options)}
    rows = []
    for length in options.lengths:
        measuring.say(f"{length} tokens")
        rows += measure(hubs if length <= options.softmax_tokens else {"lambda": hubs["lambda"]}, length, options)
    print(measuring.table(rows, COLUMNS))
    measuring.save(options, "long_text", rows, shape={"size": options.size})


if __name__ == "__main__":
    main()
