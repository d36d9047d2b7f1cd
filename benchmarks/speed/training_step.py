"""A whole training step: tokens per second and peak memory of lambda_bert, a Transformer and fairseq's roberta.

A step is fairseq's whole Trainer.train_step: masked batch, forward, both losses, backward, gradient norm and clipping,
Adam, logging. All models of a row take turns in one process, on the same random tokens, without padding or dropout.

  lambda       lambda_bert_SIZE
  hybrid       the same with one layer of softmax attention with rotary positions, in the middle
  lambda-wide  lambda with a wider feed-forward network: as many parameters as baseline
  baseline     --lambda-layers none --attention-rotary: softmax attention through torch's fused kernel
  roberta      fairseq's own model of the same shape, criterion masked_lm, no sentence loss

Then the parts of a step of lambda and of baseline are timed alone and compared with their floor: floating-point
operations over the rate of a large matrix product, measured in the same run.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import measuring
import pictures
import torch
from step_parts import parts
from trainers import MODELS, VOCABULARY, random_batch, trainer_of

from fairseq_lambda.hardware import bfloat16_is_faster
from fairseq_lambda.models.lambda_bert_config import SIZES
from fairseq_lambda.ops import resolve_backend

TESTS = ["tests/ops", "tests/modules", "tests/models/test_lambda_bert.py", "tests/criterions"]
COLUMNS = {
    "tokens": ("length",),
    "batch": ("batch",),
    "model": ("model",),
    "parameters": ("parameters",),
    "tokens/s": ("tokens_per_second",),
    "over baseline": ("over baseline", 1, 2),
    "over roberta": ("over roberta", 1, 2),
    "peak GB": ("peak_bytes", 2**30, 2),
}
PARTS = {
    "tokens": ("length",),
    "model": ("model",),
    "part": ("part",),
    "ms": ("seconds", 1e-3),
    "share, %": ("share", 0.01, 1),
    "floor, ms": ("floor", 1e-3),
    "time over floor": ("over", 1, 2),
}


def measure(length: int, options, folder: Path) -> list[dict]:
    """Return a row for each model: seconds per step, tokens per second, parameters and peak bytes."""
    batch = max(1, options.tokens // length)
    names = [name for name in options.models if name != "roberta" or length <= options.roberta_tokens]
    trainers = {name: trainer_of(name, length, options, folder) for name in names}
    sample = random_batch(length, batch, options.seed)

    def step(name):
        # fairseq's masked_lm supports --fp16 and --amp only, so bfloat16 for roberta is switched on here
        enabled = name == "roberta" and options.autocast == "bfloat16"
        with torch.autocast(options.device, torch.bfloat16, enabled=enabled):
            trainers[name].train_step([sample])

    functions = {name: lambda name=name: step(name) for name in names}
    rows = []
    for name, seconds in measuring.interleaved(functions, options.device, options.repeats, budget=3.0).items():
        row = {"length": length, "model": name, "batch": batch, "seconds": seconds}
        row |= {"tokens_per_second": batch * length / seconds}
        row |= {"parameters": sum(p.numel() for p in trainers[name].model.parameters())}
        rows.append(row | {"peak_bytes": measuring.peak_bytes(functions[name], options.device)})
    return rows


def plot(rows: list[dict], path: Path, size: str) -> None:
    lines = pictures.by_model(rows, lambda row: row["tokens_per_second"])
    title = f"lambda_bert_{size}: tokens per second in training"
    if both := [row for row in rows if row["model"] == "lambda" and "over baseline" in row]:
        ratio = f"{both[-1]['over baseline']:.1f}"
        title = f"At {both[-1]['length']:,} tokens lambda_bert_{size} trains\n{ratio} times as fast as a Transformer"
    ticks = sorted({row["length"] for row in rows})
    panel = pictures.Panel(
        "tokens in a sequence", "tokens per second, whole training step", lines, ticks, linear=(0, None)
    )
    pictures.draw(path, title, [panel])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = measuring.parser(__doc__, repeats=3)
    parser.add_argument("--autocast", choices=["none", "bfloat16"], nargs="+", help="one or both; "
                        "default: both if bfloat16 is the faster one, else none")  # fmt: skip
    parser.add_argument("--size", choices=SIZES, default="base", help="(%(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--tokens", type=int, help="per step; longer sequences are batches of one (2,048; GPU 32,768)")
    parser.add_argument("--roberta-tokens", type=int, default=2048, help="longest sequence for roberta, whose steps "
                        "take as long as baseline's (%(default)s)")  # fmt: skip
    options = measuring.parse(parser, argv)
    options.autocasts = options.autocast or ["none", "bfloat16"][: 1 + bfloat16_is_faster(options.device)]
    options.tokens = options.tokens or (32768 if options.device == "cuda" else 2048)
    return options


def run(options) -> None:
    """Measure in one precision; print and write the results."""
    dtype = torch.bfloat16 if options.autocast == "bfloat16" else torch.float32
    rate, rows = measuring.matmul_rate(dtype, options.device), []
    with tempfile.TemporaryDirectory() as folder:
        for length in options.lengths:
            measuring.say(f"{length} tokens, autocast {options.autocast}")
            new = measure(length, options, Path(folder))
            for row in new:
                if row["model"] in ("lambda", "baseline"):
                    trainer = trainer_of(row["model"], length, options, Path(folder))
                    row["parts"] = parts(trainer, length, options, rate)
            rows += new
    of_parts = [
        {"length": row["length"], "model": row["model"], "part": name, **part}
        for row in rows
        for name, part in row.get("parts", {}).items()
    ]
    compared = rows
    for peer in ("baseline", "roberta"):
        compared = measuring.related(compared, peer, "tokens_per_second", f"over {peer}")
    print(f"{measuring.table(compared, COLUMNS)}\n\n{measuring.table(of_parts, PARTS)}")
    tensors = measuring.layer_inputs(1, 64, 12, 16, 64, 1, 23, device=options.device)
    shape = {key: getattr(options, key) for key in ("size", "autocast", "tokens")} | {"vocabulary": VOCABULARY}
    shape |= {"matmul": f"{rate / 1e9:,.0f} GFLOP/s", "backend": resolve_backend("auto", *tensors[::2], tensors[3])}
    name = f"training_step-{options.device}-{options.autocast}"
    measuring.save(options, name, rows, shape=shape)
    plot(compared, options.out / f"{name}.png", options.size)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    logging.disable(logging.INFO)
    measuring.end_unless_tests_pass(*TESTS)
    for autocast in options.autocasts:
        options.autocast = autocast
        run(options)


if __name__ == "__main__":
    main()
