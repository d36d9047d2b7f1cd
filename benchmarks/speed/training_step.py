"""A whole training step: tokens per second and peak memory of lambda_bert, softmax attention and fairseq's roberta.

A step is all of fairseq's Trainer.train_step: masked batch, forward, both losses, backward, gradient norm and clipping,
Adam, logging. All models of a row take turns in one process, on the same random tokens, without padding or dropout.

  lambda       lambda_bert_SIZE
  lambda-wide  the same with a wider feed-forward network: as many parameters as softmax
  softmax      --lambda-layers none, self-attention through torch's fused kernel
  roberta      fairseq's own model at the same shape, criterion masked_lm, no sentence loss

Then the parts of a step of lambda and of softmax, each timed alone, beside their floor: floating-point operations over
the rate of a large matrix product measured in the same run.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import measuring
import torch
from fairseq.trainer import Trainer
from step_parts import parts
from trainers import make_trainer

import fairseq_lambda
from fairseq_lambda.hardware import multiplies_bfloat16
from fairseq_lambda.models.lambda_bert_config import SIZES, LambdaBertConfig
from fairseq_lambda.ops import resolve_backend

MODELS = ("lambda", "lambda-wide", "softmax", "roberta")
TESTS = ["tests/ops", "tests/modules", "tests/models/test_lambda_bert.py", "tests/criterions"]


def flags(name: str, length: int, options, vocabulary: Path) -> list[str]:
    """Return the command line of fairseq-train for a model, the recipe's optimizer included."""
    layers, width, heads = SIZES[options.size]
    common = [str(vocabulary), "--user-dir", str(Path(fairseq_lambda.__file__).parent), "--task", "masked_lm_sop"]
    common += ["--tokens-per-sample", str(length), "--batch-size", "1", "--optimizer", "adam", "--clip-norm", "1.0"]
    common += ["--adam-betas", "(0.9, 0.98)", "--weight-decay", "0.01", "--lr", "1e-4", "--dropout", "0"]
    common += ["--max-update", "1000", "--seed", str(options.seed), "--log-format", "none"]
    common += ["--cpu"] if options.device == "cpu" else []
    if name == "roberta":
        common += ["--arch", "roberta_base", "--criterion", "masked_lm", "--sentence-objective", "none"]
        common += ["--encoder-layers", str(layers), "--encoder-embed-dim", str(width), "--max-positions", str(length)]
        common += ["--encoder-ffn-embed-dim", str(4 * width), "--encoder-attention-heads", str(heads)]
        return [*common, "--attention-dropout", "0"]
    common += ["--arch", f"lambda_bert_{options.size}", "--criterion", "masked_lm_sop", "--autocast", options.autocast]
    if name == "softmax":
        common += ["--lambda-layers", "none"]
    elif name == "lambda-wide":
        # Per layer softmax has 4 C^2 in its projections, the lambda layer (h k + k u + v u) C and its gate C^2.
        k, u = LambdaBertConfig.lambda_key_depth, LambdaBertConfig.lambda_intra_depth
        missing = 3 * width - heads * k - k * u - width // heads * u
        common += ["--encoder-ffn-embed-dim", str(4 * width + missing // 2 // 32 * 32)]
    return common


def trainer_of(name: str, length: int, options, vocabulary: Path) -> Trainer:
    trainer = make_trainer(flags(name, length, options, vocabulary), options.seed)
    if options.compile and name != "roberta":
        for layer in trainer.model.encoder.bert.encoder.layers:
            layer.compile(dynamic=True)
    return trainer


def random_batch(length: int, batch: int, options) -> dict:
    """Return a batch as the task's collater makes it: random pieces, 15 % of them masked, two segments."""
    generator = torch.Generator().manual_seed(options.seed)
    tokens = torch.randint(4, 4 + options.vocabulary, (batch, length), generator=generator)
    masked = torch.rand(batch, length, generator=generator) < 0.15
    target = torch.where(masked, tokens, 1)
    source = torch.where(masked, 4 + options.vocabulary, tokens)
    source[:, 0], source[:, length // 2 : length // 2 + 2], source[:, -1] = 0, 2, 2
    return {
        "id": torch.arange(batch),
        "nsentences": batch,
        "ntokens": batch * length,
        "net_input": {"src_tokens": source, "src_lengths": torch.full((batch,), length), "has_padding": False},
        "target": target,
        "masked_positions": target.flatten().ne(1).nonzero().squeeze(1),
        "sentence_target": torch.randint(0, 2, (batch,), generator=generator),
    }


def measure(length: int, options, vocabulary: Path) -> dict[str, dict[str, float]]:
    """Return for each model seconds per step, tokens per second, bytes at the peak and parameters."""
    batch = max(1, options.tokens // length)
    names = [name for name in options.models if name != "roberta" or length <= options.roberta_tokens]
    trainers = {name: trainer_of(name, length, options, vocabulary) for name in names}
    sample = random_batch(length, batch, options)

    def step(name):
        # fairseq's masked_lm runs under --fp16 and --amp only, so roberta's bfloat16 is entered here
        with torch.autocast(
            options.device, torch.bfloat16, enabled=name == "roberta" and options.autocast == "bfloat16"
        ):
            trainers[name].train_step([sample])

    functions = {name: lambda name=name: step(name) for name in names}
    repeats = options.repeats if length <= 2048 else max(2, options.repeats - 1)
    results = {}
    for name, seconds in measuring.interleaved(functions, options.device, repeats, budget=options.budget).items():
        parameters = sum(p.numel() for p in trainers[name].model.parameters())
        results[name] = {"batch": batch, "seconds": seconds, "tokens_per_second": batch * length / seconds}
        results[name] |= {"parameters": parameters, "peak_bytes": measuring.peak_bytes(functions[name], options.device)}
    return results


def report(table: dict[int, dict]) -> str:
    head = ["tokens", "batch", *(f"{name}, tokens/s" for name in MODELS), *(f"{name}, GB" for name in MODELS)]
    rows = [head]
    ratios = [["tokens", *(f"lambda / {n}" for n in MODELS[2:]), "lambda-wide / softmax", "peak of softmax / lambda"]]
    for length, row in table.items():
        cells = [f"{row[n]['tokens_per_second']:,.0f}" if n in row else "" for n in MODELS]
        cells += [f"{row[n]['peak_bytes'] / 2**30:.2f}" if n in row else "" for n in MODELS]
        rows.append([f"{length:,}", str(next(iter(row.values()))["batch"]), *cells])

        def ratio(ours, theirs, key, row=row):
            return f"{row[ours][key] / row[theirs][key]:.2f}" if ours in row and theirs in row else ""

        speed = "tokens_per_second"
        ratios.append([f"{length:,}", ratio("lambda", "softmax", speed), ratio("lambda", "roberta", speed)])
        ratios[-1] += [ratio("lambda-wide", "softmax", speed), ratio("softmax", "lambda", "peak_bytes")]
    return f"{measuring.markdown(rows)}\n\nSpeed-ups:\n\n{measuring.markdown(ratios)}"


def report_parts(table: dict[int, dict]) -> str:
    rows = [["tokens", "model", "part", "ms", "share", "floor, ms", "time over floor"]]
    for length, models in table.items():
        for model, of_model in models.items():
            total = sum(p["seconds"] for p in of_model.values())
            for part, p in of_model.items():
                floor = f"{p['floor'] * 1e3:.0f}" if p["floor"] else ""
                over = f"{p['seconds'] / p['floor']:.2f}" if p["floor"] else ""
                share = f"{p['seconds'] / total:.1%}"
                rows.append([f"{length:,}", model, part, f"{p['seconds'] * 1e3:.0f}", share, floor, over])
    return measuring.markdown(rows)


def message(table: dict[int, dict], options) -> str:
    """Return what the picture shows, in one line."""
    both = [n for n, row in table.items() if "lambda" in row and "softmax" in row]
    name = f"lambda_bert_{options.size}"
    if not both:
        return f"{name}: tokens per second in training"
    rates = [table[max(both)][model]["tokens_per_second"] for model in ("lambda", "softmax")]
    return f"At {max(both):,} tokens {name} trains {rates[0] / rates[1]:.1f} times as fast as with softmax attention"


def plot(table: dict[int, dict], options, path: Path) -> None:
    """Write a picture of tokens a second against length, one line per model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    ends = {}
    for name in MODELS:
        points = {n: row[name]["tokens_per_second"] for n, row in table.items() if name in row}
        if points:
            style = "o-" if name.startswith("lambda") else "o--"
            (line,) = axis.plot(list(points), list(points.values()), style, markersize=5)
            ends[name] = (list(points.values())[-1], line.get_color())
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(table), [f"{n:,}" for n in table])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("tokens in a sequence")
    axis.set_ylabel("tokens per second, whole training step")
    axis.grid(True, alpha=0.3)
    measuring.label_ends(axis, ends)
    axis.set_title(message(table, options), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if cuda else "cpu", help="(%(default)s)")
    parser.add_argument("--autocast", choices=["none", "bfloat16"], nargs="+", help="one or both; "
                        "default: both where the hardware has bfloat16 products, else none")  # fmt: skip
    parser.add_argument("--size", choices=list(SIZES), default="base", help="(%(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--tokens", type=int, help="per step; a longer sequence stands alone (2,048; GPU 32,768)")
    parser.add_argument("--vocabulary", type=int, default=16000, help="pieces (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps; one less above 2,048 tokens (%(default)s)")
    parser.add_argument("--budget", type=float, default=3.0, help="s per model and length, at least (%(default)s)")
    parser.add_argument("--roberta-tokens", type=int, default=2048, help="longest sequence for roberta, whose steps "
                        "take as long as softmax's (%(default)s)")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="torch.compile the layers, not fairseq's roberta's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=measuring.RESULTS, help="folder (%(default)s)")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not cuda:
        parser.error("--device cuda: torch finds no GPU here")
    fast = multiplies_bfloat16(options.device)
    options.autocasts = options.autocast or (["none", "bfloat16"] if fast else ["none"])
    if "bfloat16" in options.autocasts and not fast:
        parser.error("--autocast bfloat16: this processor has no bfloat16 products, torch would only emulate them")
    options.tokens = options.tokens or (32768 if options.device == "cuda" else 2048)
    return options


def main() -> None:
    options = parse()
    logging.disable(logging.INFO)
    print("tests ...", file=sys.stderr, flush=True)
    reason = measuring.tests_fail(*TESTS)
    if reason:
        sys.exit(f"error: the tests fail, so there is nothing to compare:\n{reason}")
    embedding = torch.empty(16, 1, 23, device=options.device)
    queries, values = (torch.empty(1, 64, *shape, device=options.device) for shape in ((1, 16), (16, 1)))
    backend = resolve_backend("auto", queries, values, embedding)
    where = measuring.setting(options.device, options.seed) | {"backend": backend}
    for autocast in options.autocasts:
        options.autocast = autocast
        table, profile = {}, {}
        dtype = measuring.DTYPES["float32" if autocast == "none" else autocast]
        rate = measuring.matmul_rate(dtype, options.device)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "dict.txt").write_text("".join(f"w{i} 1\n" for i in range(options.vocabulary)))
            for length in options.lengths:
                print(f"{length} tokens, autocast {options.autocast} ...", file=sys.stderr, flush=True)
                table[length] = measure(length, options, Path(folder))
                profile[length] = {
                    name: parts(trainer_of(name, length, options, Path(folder)), length, options, rate)
                    for name in ("lambda", "softmax")
                    if name in options.models
                }
        shape = {k: getattr(options, k) for k in ("size", "autocast", "tokens", "vocabulary", "compile")}
        shape["matmul"] = f"{rate / 1e9:,.0f} GFLOP/s"
        print(f"{report(table)}\n\n{report_parts(profile)}\n\n{measuring.setting_line(where)}")
        print(measuring.setting_line(shape), flush=True)
        stem = options.out / f"training_step-{options.device}-{options.autocast}{'-compiled' * options.compile}"
        rows = [
            {"length": n, "model": name, **values, "parts": profile[n].get(name)}
            for n, row in table.items()
            for name, values in row.items()
        ]
        measuring.write_lines(stem.with_suffix(".jsonl"), [{**row, "shape": shape, "setting": where} for row in rows])
        plot(table, options, stem.with_suffix(".png"))
        print(f"written to {stem}.jsonl and .png")


if __name__ == "__main__":
    main()
