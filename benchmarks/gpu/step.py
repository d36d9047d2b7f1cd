"""A whole training step of base: lambda, hybrid, a Transformer with rotary positions, RoBERTa, BERT, ModernBERT.

A step has 32,768 tokens in bfloat16 autocast: forward, losses, backward, gradient norm, Adam. The first four models use
fairseq's Trainer.train_step; BERT and ModernBERT, if transformers is installed, a plain loop with fused AdamW. All have
12 layers of width 768, a vocabulary of 16,000 and no dropout. ``float16`` is fairseq's --amp.
"""

from stage import Stage  # isort: skip  sets the path

import argparse
import logging
import os
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import measuring
import torch
from trainers import VOCABULARY, random_batch, trainer_of

from fairseq_lambda.models.lambda_bert_config import SIZES

LENGTHS = [512, 2048, 8192, 128, 4096]  # the last two if there is time
MODELS = ("lambda", "baseline", "hybrid", "roberta")
KINDS = {  # part of a step -> strings in the names of its kernels; the first match counts
    "mixing": (
        "content_kernel",
        "forward_kernel",
        "backward_kernel",
        "query_kernel",
        "combine_kernel",
        "flash",
        "fmha",
    ),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "sm90_xmma", "wgrad"),
    "optimizer": ("multi_tensor", "adam", "Adam"),
    "normalisation": ("norm", "Norm"),
    "softmax and loss": ("oftmax", "nll"),
}


def fairseq_step(name: str, device: str, seed: int, folder: Path, precision: str):
    """Return a function that makes a training step with a batch, and the number of parameters."""
    options = argparse.Namespace(size="base" if device == "cuda" else "tiny", device=device, seed=seed)
    options.autocast = "bfloat16" if precision == "bfloat16" else "none"
    trainer = trainer_of(name, max(LENGTHS), options, folder, ["--amp"] if precision == "float16" else [])
    if name == "roberta" and precision == "bfloat16":  # around the criterion, because train_step leaves autocast
        forward = trainer._criterion.forward
        trainer._criterion.forward = torch.autocast(device, torch.bfloat16)(forward)

    def step(batch):
        trainer.train_step([batch])

    return step, sum(p.numel() for p in trainer.model.parameters())


def transformers_step(name: str, device: str, seed: int):
    """Return the same for one of transformers' models, or None if it cannot be built."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    layers, width, heads = SIZES["base" if device == "cuda" else "tiny"]
    shape = {"vocab_size": VOCABULARY + 5, "hidden_size": width, "num_hidden_layers": layers, "pad_token_id": 1}
    shape |= {"num_attention_heads": heads, "max_position_embeddings": 8192, "attn_implementation": "sdpa"}
    torch.manual_seed(seed)
    try:
        import transformers

        if name == "BERT, transformers":
            zero = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            config = transformers.BertConfig(**shape, **zero, intermediate_size=4 * width)
            model = transformers.BertForPreTraining(config)
        else:
            ends = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
            model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**shape, **ends))
    except Exception as error:  # missing, or broken by another package
        print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
        return None
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch):
        source = batch["net_input"]["src_tokens"].to(device)
        labels = batch["target"].to(device).masked_fill(batch["target"].to(device) == 1, -100)
        extra = {"next_sentence_label": batch["sentence_target"].to(device)} if "BERT," in name[:5] else {}
        with torch.autocast(device, torch.bfloat16):
            loss = model(input_ids=source, labels=labels, **extra).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # as for a trainer's log

    return step, sum(p.numel() for p in model.parameters())


def peak_bytes(step, device: str) -> int:
    """Return the peak as the shared function does, but keep fairseq's Trainer from resetting it at each step."""
    with mock.patch.object(torch.cuda, "reset_peak_memory_stats"):
        if device == "cuda":
            torch.cuda.memory.reset_peak_memory_stats()
        return measuring.peak_bytes(step, device)


def shares(stage: Stage, step) -> dict[str, float]:
    """Return the device's milliseconds in each kind of kernel during one step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        step()
        torch.cuda.synchronize()
    parts: dict[str, float] = {}
    for event in record.key_averages():
        if milliseconds := event.self_device_time_total / 1000:
            kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "elementwise, other")
            parts[kind] = parts.get(kind, 0) + milliseconds
    with open(stage.out / "step-kernels.txt", "a") as file:
        file.write(
            record.key_averages().table(sort_by="self_device_time_total", row_limit=40, max_name_column_width=90)
        )
    return {kind: round(milliseconds, 2) for kind, milliseconds in parts.items()}


def measure(stage: Stage, name: str, made, lengths: list[int], precision: str) -> None:
    step, parameters = made
    for length in lengths:
        if stage.left < 3:
            print(f"no time is left for {name} at {length} tokens")
            return
        batch = random_batch(length, max(1, (32768 if stage.cuda else 256) // length), stage.seed)
        once = lambda: step(batch)  # noqa: B023, E731
        once(), once()
        times = [measuring.seconds(once, stage.device) for _ in range(5)]
        row = {"model": name, "length": length, "precision": precision, "parameters": parameters}
        row |= {"seconds": statistics.median(times), "peak bytes": peak_bytes(once, stage.device)}
        if stage.cuda and length in (512, 2048):
            row["milliseconds by part"] = shares(stage, once)
        stage.write(**row)


def main() -> None:
    stage = Stage("step")
    stage.use_tiles()
    logging.disable(logging.INFO)
    lengths = (LENGTHS if stage.seconds > 120 else LENGTHS[:3]) if stage.cuda else [128]
    names = [name for name in MODELS if stage.cuda or name != "hybrid"]
    with tempfile.TemporaryDirectory(dir=stage.out) as folder:

        def measure_fairseq(name: str, precision: str, lengths: list[int]) -> None:
            made = fairseq_step(name, stage.device, stage.seed, Path(folder), precision)
            measure(stage, name, made, lengths, precision)

        for name in names[:2]:
            measure_fairseq(name, "bfloat16", lengths)
        for name in ("BERT, transformers", "ModernBERT, transformers"):
            if made := transformers_step(name, stage.device, stage.seed):
                measure(stage, name, made, lengths, "bfloat16")
        for name in names[2:]:
            measure_fairseq(name, "bfloat16", lengths)
        for name in names[:2] if stage.cuda else []:
            measure_fairseq(name, "float16", [512, 2048])
    stage.finish()


if __name__ == "__main__":
    main()
