"""A training step compared with its alternatives in transformers: BERT and ModernBERT of the same width and depth.

All models of a row take turns in one process, on the same random tokens, without padding or dropout, with torch's fused
attention, in the precision of --autocast.

  fairseq       lambda_bert_SIZE in fairseq's Trainer.train_step, including logging
  transformers  LambdaBertForPreTraining: loss, backward, clipping, torch's fused AdamW
  bert          BertForPreTraining in the same loop; its masked-LM head has to run on all tokens
  modernbert    ModernBertForMaskedLM in the same loop; with sparse_prediction, its head runs on the masked tokens alone
  modernbert-dense  the same without sparse_prediction, its default: the head runs on all tokens

On a CPU, run it with tcmalloc (LD_PRELOAD), as scripts/train_lambda_bert.sh does.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import measuring
import torch
import transformers
from trainers import VOCABULARY, random_batch, trainer_of

from fairseq_lambda.huggingface import LambdaBertConfig, LambdaBertForPreTraining
from fairseq_lambda.models.lambda_bert_config import SIZES

TESTS = ["tests/huggingface/test_port_models.py"]
MODELS = ("fairseq", "transformers", "bert", "modernbert", "modernbert-dense")
SYMBOLS = VOCABULARY + 5  # fairseq's four, and <mask>
COLUMNS = {
    "tokens": ("length",),
    "batch": ("batch",),
    "model": ("model",),
    "parameters": ("parameters",),
    "ms": ("seconds", 1e-3, 1),
    "tokens/s": ("tokens_per_second",),
    "time over transformers": ("time over transformers", 1, 2),
}


def model_of(name: str, size: str, length: int) -> transformers.PreTrainedModel:
    """Return one of transformers' models, in training mode, without dropout."""
    layers, width, heads = SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": SYMBOLS}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if name == "transformers":
        return LambdaBertForPreTraining(LambdaBertConfig(**shape, **ids, intermediate_size=4 * width)).train()
    if name == "bert":
        config = transformers.BertConfig(
            **shape, intermediate_size=4 * width, max_position_embeddings=length, pad_token_id=1,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
        )  # fmt: skip
        return transformers.BertForPreTraining(config).train()
    config = transformers.ModernBertConfig(
        **shape, **ids, intermediate_size=width * 3 // 2, max_position_embeddings=length,
        cls_token_id=0, sep_token_id=2,
        attn_implementation="sdpa", sparse_prediction=name == "modernbert", reference_compile=False,
    )  # fmt: skip
    return transformers.ModernBertForMaskedLM(config).train()


def step_of(name: str, length: int, batch: int, options):
    """Return a function that makes one step, and the model's number of parameters."""
    torch.manual_seed(options.seed)
    model = model_of(name, options.size, length).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    sample = random_batch(length, batch, options.seed)
    tokens, target = sample["net_input"]["src_tokens"], sample["target"]
    inputs = {"input_ids": tokens, "labels": target.masked_fill(target.eq(1), -100)}
    if name in ("transformers", "bert"):
        second = torch.arange(length).gt(length // 2).long().expand(batch, -1)
        inputs |= {"token_type_ids": second, "next_sentence_label": sample["sentence_target"]}
    inputs = {key: value.to(options.device) for key, value in inputs.items()}

    def step():
        with torch.autocast(options.device, torch.bfloat16, enabled=options.autocast == "bfloat16"):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, sum(p.numel() for p in model.parameters())


def measure(length: int, options, folder: Path) -> list[dict]:
    """Return a row for each model: seconds per step, tokens per second, parameters."""
    batch = max(1, options.tokens // length)
    functions, parameters = {}, {}
    for name in options.models:
        if name == "fairseq":
            trainer, sample = trainer_of("lambda", length, options, folder), random_batch(length, batch, options.seed)
            functions[name] = lambda trainer=trainer, sample=sample: trainer.train_step([sample])
            parameters[name] = sum(p.numel() for p in trainer.model.parameters())
        else:
            functions[name], parameters[name] = step_of(name, length, batch, options)
    times = measuring.interleaved(functions, options.device, options.repeats, warm_up=2, budget=options.budget)
    return [
        {
            "length": length,
            "model": name,
            "batch": batch,
            "seconds": seconds,
            "tokens_per_second": batch * length / seconds,
            "parameters": parameters[name],
        }
        for name, seconds in times.items()
    ]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = measuring.parser(__doc__, repeats=10)
    add = parser.add_argument
    add("--autocast", choices=["none", "bfloat16"], help="default: bfloat16 if the hardware is faster in it")
    add("--size", choices=SIZES, default="mini", help="(%(default)s)")
    add("--models", nargs="+", choices=MODELS, default=MODELS)
    add("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    add("--tokens", type=int, default=4096, help="per step (%(default)s)")
    add("--budget", type=float, default=8.0, help="seconds per model and length, at most ten times --repeats")
    options = measuring.parse(parser, argv)
    options.autocast = options.autocast or measuring.faster_precision(options.device)
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    logging.disable(logging.INFO)
    measuring.end_unless_tests_pass(*TESTS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in options.lengths:
            measuring.say(f"{length} tokens")
            rows += measure(length, options, Path(folder))
    if "transformers" in options.models:
        rows = measuring.related(rows, "transformers", "seconds", "time over transformers")
    print(measuring.table(rows, COLUMNS))
    shape = {key: getattr(options, key) for key in ("size", "autocast", "tokens")}
    shape |= {"vocabulary": SYMBOLS, "transformers": transformers.__version__}
    measuring.save(options, f"peers-{options.size}-{options.device}-{options.autocast}", rows, shape=shape)


if __name__ == "__main__":
    main()
