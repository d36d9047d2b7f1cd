"""Long texts on one machine: training on samples of 512 to 32,768 tokens, and features of up to 65,536, per token.

Training is fairseq's whole Trainer.train_step for lambda_bert_SIZE with recomputed activations, on random tokens, with
the same number of tokens per update at every length:

  lambda    lambda layers alone
  hybrid    the layer in the middle is softmax self-attention with rotary positions, through torch's fused kernel
  baseline  all layers are softmax self-attention with rotary positions

Each is also measured with samples packed with documents of random lengths (--pack-documents), new ones in each update.

Features are computed for one text in one piece, in float32. Memory is the most that torch's allocator holds at one time
beyond the model and its optimizer. New rows replace old ones in the file of results and the others stay, so a long
table can be measured in parts.
"""

import json
import logging
import tempfile
from pathlib import Path

import measuring
import numpy as np
import torch
from trainers import lambda_layers, random_batch, trainer_of

from fairseq_lambda.models.lambda_bert_config import SIZES
from fairseq_lambda.modules.lambda_bert import LambdaBert
from fairseq_lambda.modules.lambda_bert_options import LambdaBertOptions

MODELS = ("lambda", "hybrid", "baseline")
TRAINING = {
    "tokens in a sample": ("length",),
    "model": ("model",),
    "samples": ("batch",),
    "s per update": ("seconds", 1, 2),
    "us per token": ("seconds_per_token", 1e-6),
    "packed, us per token": ("packed_seconds_per_token", 1e-6),
    "KB per token": ("bytes_per_token", 2**10, 1),
    "packed, KB per token": ("packed_bytes_per_token", 2**10, 1),
}
FEATURES = {
    "tokens": ("length",),
    "model": ("model",),
    "s": ("seconds", 1, 2),
    "us per token": ("seconds_per_token", 1e-6),
    "peak MB": ("peak_bytes", 2**20),
    "KB per token": ("bytes_per_token", 2**10, 1),
}


def documents(length: int, mean: int, generator: np.random.Generator) -> list[int]:
    """Return lengths of documents that fill a sample: log-normal, like those of articles."""
    lengths = []
    while (missing := length - sum(lengths)) > 0:
        drawn = int(mean * generator.lognormal(-0.5, 1.0))
        lengths.append(min(max(drawn, 8), missing))
    return lengths


def train(model: str, length: int, options, folder: Path) -> dict:
    """Return a row of the training table."""
    batch = max(1, options.tokens // length)
    trainer = trainer_of(model, length, options, folder, ["--checkpoint-activations", "--sentence-objective", "none"])
    generator = np.random.default_rng(options.seed)

    def sample(packed: bool) -> dict:
        drawn = random_batch(length, batch, options.seed)
        del drawn["sentence_target"]
        if packed:
            lengths = [documents(length, options.mean_document, generator) for _ in range(batch)]
            drawn["net_input"]["document_lengths"] = lengths
        return drawn

    functions, ready = {}, {}
    for name in ["rows"] + ["packed"] * (length >= 4 * options.mean_document):
        ready[name] = [sample(name == "packed") for _ in range(10 * options.repeats + 3)]
        functions[name] = lambda name=name: trainer.train_step([ready[name].pop()])
    seconds = measuring.interleaved(functions, options.device, options.repeats, options.warm_up, budget=2.0)
    row = {"what": "training", "model": model, "length": length, "batch": batch, "autocast": options.autocast}
    row |= {"mean_document": options.mean_document}
    for name, function in functions.items():
        prefix = "" if name == "rows" else "packed_"
        peak = measuring.peak_bytes(function, options.device)
        row |= {f"{prefix}seconds": seconds[name], f"{prefix}seconds_per_token": seconds[name] / batch / length}
        row |= {f"{prefix}peak_bytes": peak, f"{prefix}bytes_per_token": peak / batch / length}
    return row


@torch.no_grad()
def features(model: str, length: int, options) -> dict:
    """Return a row of the features table."""
    layers, width, heads = SIZES[options.size]
    torch.manual_seed(options.seed)
    core = LambdaBertOptions(
        layers=layers,
        embed_dim=width,
        ffn_embed_dim=4 * width,
        heads=heads,
        lambda_layers=lambda_layers(model, layers),
        attention_rotary=True,
    )
    bert = LambdaBert(core, lm_head=False).eval().to(options.device)
    ids = torch.randint(4, 8000, (1, length), generator=torch.Generator().manual_seed(options.seed)).to(options.device)
    functions = {model: lambda: bert(ids, return_lambdas=True)}
    seconds = measuring.interleaved(functions, options.device, options.repeats, warm_up=0, budget=0)[model]
    peak = measuring.peak_bytes(functions[model], options.device)
    row = {"what": "features", "model": model, "length": length, "seconds": seconds, "peak_bytes": peak}
    return row | {"seconds_per_token": seconds / length, "bytes_per_token": peak / length}


def merged(path: Path, rows: list[dict]) -> list[dict]:
    """Return these rows and those of the file that they do not replace, in the order of the tables."""
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = ("what", "length", "model", "size", "autocast")
    table = {tuple(row.get(key) for key in keys): row for row in [*old, *rows]}
    return sorted(
        table.values(), key=lambda row: (row["what"] != "training", row["length"], MODELS.index(row["model"]))
    )


def main(argv: list[str] | None = None) -> None:
    parser = measuring.parser(__doc__, repeats=3)
    parser.add_argument("--warm-up", type=int, default=1, help="updates before the timed ones (%(default)s)")
    parser.add_argument("--what", nargs="+", choices=["training", "features"], default=["training", "features"])
    parser.add_argument("--size", choices=SIZES, default="mini", help="(%(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 8192, 32768], help="of training (%(default)s)")
    parser.add_argument("--tokens", type=int, default=32768, help="per update (%(default)s)")
    parser.add_argument("--mean-document", type=int, default=500, help="tokens in a packed document (%(default)s)")
    parser.add_argument("--autocast", choices=["none", "bfloat16"], help="of training; default: bfloat16 if the "
                        "hardware is faster in it, else none")  # fmt: skip
    parser.add_argument("--texts", type=int, nargs="+", default=[4096, 16384, 65536], help="lengths, in tokens, of the "
                        "texts for features (%(default)s)")  # fmt: skip
    parser.add_argument("--softmax-tokens", type=int, default=16384, help="longest of these texts for models with "
                        "attention layers (%(default)s)")  # fmt: skip
    options = measuring.parse(parser, argv)
    options.autocast = options.autocast or measuring.faster_precision(options.device)
    logging.disable(logging.INFO)
    known = {"size": options.size, "setting": measuring.setting(options.device, options.seed)}
    path = options.out / f"long_text-{options.device}.jsonl"

    def add(row: dict) -> None:  # each row is written as soon as it is measured
        measuring.write_lines(path, merged(path, [row | known]))

    for length in options.lengths if "training" in options.what else []:
        for model in options.models:
            measuring.say(f"training, {length} tokens in a sample, {model}")
            with tempfile.TemporaryDirectory() as folder:
                add(train(model, length, options, Path(folder)))
    for length in options.texts if "features" in options.what else []:
        for model in options.models:
            if model == "lambda" or length <= options.softmax_tokens:
                measuring.say(f"features of {length} tokens, {model}")
                add(features(model, length, options))
    rows = [row for row in merged(path, []) if row["size"] == options.size]
    for what, columns in (("training", TRAINING), ("features", FEATURES)):
        if what in options.what:
            print(measuring.table([row for row in rows if row["what"] == what], columns), end="\n\n")
    print(measuring.setting_line(known["setting"]), f"written to {path}", sep="\n")


if __name__ == "__main__":
    main()
