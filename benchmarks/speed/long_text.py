"""Features of long texts on one machine: extract_features of 4k to 64k tokens in one piece, time and memory per token.

Random weights and tokens; a lambda_bert without absolute positions, through the hub interface, beside softmax attention
up to --softmax-tokens. Memory is the most that torch's allocator holds at one time beyond the model.
"""

import argparse
from pathlib import Path

import measuring
import torch
from fairseq.data import Dictionary

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.lambda_bert_config import SIZES, sized_config
from fairseq_lambda.tasks import MaskedLMSOPConfig, MaskedLMSOPTask


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
def measure(hub: LambdaBertHubInterface, length: int, options) -> dict[str, float]:
    ids = torch.randint(4, 8000, (length,), generator=torch.Generator().manual_seed(options.seed))

    def extract():
        features, lambdas = hub.extract_features(ids, return_lambdas=True)
        assert features.shape[1] == length and len(lambdas) == SIZES[options.size][0]

    times = sorted(measuring.seconds(extract, options.device) for _ in range(options.repeats))
    return {"seconds": times[len(times) // 2], "peak_bytes": measuring.peak_bytes(extract, options.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default, help="(%(default)s)")
    parser.add_argument("--size", choices=list(SIZES), default="mini", help="(%(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--softmax-tokens", type=int, default=16384, help="longest text for softmax (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=measuring.RESULTS / "long_text.jsonl")
    options = parser.parse_args()

    hubs = {"lambda": make_hub("all", options), "softmax": make_hub("none", options)}
    rows = []
    for length in options.lengths:
        for name, hub in hubs.items():
            if name == "lambda" or length <= options.softmax_tokens:
                rows.append({"model": name, "tokens": length, **measure(hub, length, options)})
    lines = [["tokens", "model", "s", "us per token", "peak MB", "KB per token"]]
    for r in rows:
        times = [f"{r['seconds']:.2f}", f"{r['seconds'] / r['tokens'] * 1e6:.0f}"]
        memory = [f"{r['peak_bytes'] / 2**20:.0f}", f"{r['peak_bytes'] / 2**10 / r['tokens']:.1f}"]
        lines.append([f"{r['tokens']:,}", r["model"], *times, *memory])
    where = measuring.setting(options.device, options.seed) | {"size": options.size}
    print(f"{measuring.markdown(lines)}\n{measuring.setting_line(where)}")
    measuring.write_lines(options.json, [{**row, "setting": where} for row in rows])


if __name__ == "__main__":
    main()
