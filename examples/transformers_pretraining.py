"""Pretrains a lambda_bert from scratch with transformers' own Trainer, on the pairs and masks of this package.

    python examples/transformers_pretraining.py data-bin/wikitext-2 --output my-bert --sop

The data folder is made by scripts/preprocess_wikitext.sh; reading it needs fairseq. The settings are those of
scripts/train_lambda_bert.sh for the same size, so the results can be compared. The result is a folder for transformers,
with its tokenizer. The same command resumes from the newest checkpoint in --output.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from fairseq_lambda.commands.train import environment
from fairseq_lambda.config import SIZES, read_recipe, schedule
from fairseq_lambda.data.dataset import SentencePairDataset
from fairseq_lambda.data.seeding import ORDER, generator
from fairseq_lambda.hardware import bfloat16_is_faster
from fairseq_lambda.huggingface import LambdaBertConfig, LambdaBertForPreTraining
from fairseq_lambda.huggingface.tokenizer import fast_tokenizer, save_tokenizer
from fairseq_lambda.models.lambda_bert_config import SIZES as SHAPES
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPConfig, MaskedLMSOPTask
from lambda_bert_command import waiting

IGNORED = -100  # transformers' label of what is not predicted


class Batches(IterableDataset):
    """Yields a process's share of the batches, epoch after epoch, each epoch with its own pairs and masks.

    As in fairseq, the samples of a batch have about the same length.
    """

    def __init__(self, dataset: SentencePairDataset, size: int, rank: int = 0, ranks: int = 1):
        self.dataset, self.size, self.rank, self.ranks = dataset, size, rank, ranks

    def __iter__(self):
        return itertools.islice(self._all(), self.rank, None, self.ranks)

    def _all(self):
        for epoch in itertools.count(1) if self.dataset.training else [1]:
            self.dataset.set_epoch(epoch)
            order = self.dataset.ordered_indices()
            batches = [order[start : start + self.size] for start in range(0, len(order), self.size)]
            if self.dataset.training:
                generator(self.dataset.seed, ORDER, epoch, 1).shuffle(batches)
            for batch in batches:
                yield as_inputs(self.dataset.collater([self.dataset[i] for i in batch]), self.dataset.pad)


def as_inputs(batch: dict, padding: int) -> dict:
    """Return fairseq's batch as the model's arguments."""
    return {
        "input_ids": batch["net_input"]["src_tokens"],
        "labels": batch["target"].masked_fill(batch["target"].eq(padding), IGNORED),
        "next_sentence_label": batch["sentence_target"].masked_fill(batch["sentence_target"].lt(0), IGNORED),
    }


class PairTrainer(Trainer):
    """transformers' Trainer over :class:`Batches`."""

    def get_train_dataloader(self):
        batches = Batches(
            self.train_dataset, self.args.per_device_train_batch_size, self.args.process_index, self.args.world_size
        )
        return DataLoader(batches, batch_size=None, num_workers=1)


@torch.no_grad()
def scores(model, dataset: SentencePairDataset, size: int) -> dict[str, float]:
    """Return ``mlm_ppl`` and ``sentence_acc`` (percent) of a whole split, in float32."""
    model.eval()
    loss = masked = right = pairs = 0
    for inputs in Batches(dataset, size):
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        labels, order = inputs["labels"], inputs["next_sentence_label"]
        out = model.lambda_bert(inputs["input_ids"])
        chosen = labels.ne(IGNORED)  # the head over the masked tokens alone, as in training
        logits = model.lm_head(out.last_hidden_state[chosen])
        loss += float(F.cross_entropy(logits, labels[chosen], reduction="sum"))
        masked += logits.size(0)
        right += int(model.sentence_classifier(out.pooler_output).argmax(-1).eq(order).sum())
        pairs += int(order.ge(0).sum())
    return {"mlm_ppl": math.exp(loss / masked), "sentence_acc": 100 * right / max(pairs, 1)}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path, help="folder made by scripts/preprocess_wikitext.sh")
    add("--output", type=Path, required=True, help="folder for the result, and for checkpoints on the way")
    add("--size", choices=SIZES, default="mini", help="size of the model (default: %(default)s)")
    add("--sop", action="store_true", help="predict sentence order (default: next sentence)")
    add("--updates", type=int, help="number of updates (default: by size)")
    add("--local-context-size", type=int, default=23, help="positions that a position lambda covers (%(default)s)")
    add("--key-depth", type=int, default=16, help="query and key depth (default: %(default)s)")
    add("--intra-depth", type=int, default=1, help="intra-depth (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of weights, pairs and masks (default: %(default)s)")
    add("--cpu", action="store_true", help="run on the CPU (default: on GPUs if there are any)")
    args = parser.parse_args(argv)
    if not (args.data / "dict.txt").is_file():
        parser.error(f"{args.data} holds no dict.txt: make it with scripts/preprocess_wikitext.sh")
    return args


def main(argv: list[str] | None = None) -> dict:
    """Pretrain; return and print the scores, in a distributed run in the first process only."""
    args = parse(argv)
    begin = time.time()
    recipe = read_recipe(args.size)
    if args.updates:
        recipe.merge_with(schedule(args.updates))
    on_cpu = args.cpu or not torch.cuda.is_available()
    fast = bfloat16_is_faster("cpu" if on_cpu else "cuda")

    options = MaskedLMSOPConfig(
        data=str(args.data),
        sentence_objective="sop" if args.sop else "nsp",
        tokens_per_sample=recipe.task.tokens_per_sample,
    )
    # oneDNN makes a kernel for each shape of a bfloat16 product: keep to few lengths
    options.seed, options.train_subset, options.required_seq_len_multiple = args.seed, "train", 8 if fast else 1
    task = MaskedLMSOPTask.setup_task(options)
    for split in ("train", "valid"):
        task.load_dataset(split)

    layers, width, heads = SHAPES[args.size]
    torch.manual_seed(args.seed)
    dictionary = task.source_dictionary
    model = LambdaBertForPreTraining(
        LambdaBertConfig(
            vocab_size=len(dictionary),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            local_context_size=args.local_context_size,
            key_depth=args.key_depth,
            intra_depth=args.intra_depth,
            max_position_embeddings=options.tokens_per_sample,
            pad_token_id=dictionary.pad(),
            bos_token_id=dictionary.bos(),
            eos_token_id=dictionary.eos(),
            fairseq={"task": {"sentence_objective": options.sentence_objective}},  # for a conversion to fairseq
        )
    )
    betas = json.loads(recipe.optimizer.adam_betas.replace("(", "[").replace(")", "]"))
    training = TrainingArguments(
        output_dir=str(args.output),
        max_steps=recipe.optimization.max_update,
        per_device_train_batch_size=recipe.dataset.batch_size,
        learning_rate=recipe.optimization.lr[0],
        lr_scheduler_type="linear",
        warmup_steps=recipe.lr_scheduler.warmup_updates,
        adam_beta1=betas[0],
        adam_beta2=betas[1],
        adam_epsilon=recipe.optimizer.adam_eps,
        weight_decay=recipe.optimizer.weight_decay,
        max_grad_norm=recipe.optimization.clip_norm,
        optim="adamw_torch_fused",
        bf16=fast,
        logging_steps=50,
        save_steps=recipe.checkpoint.save_interval_updates,
        save_total_limit=1,
        seed=args.seed,
        use_cpu=on_cpu,
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
    )
    resumed = get_last_checkpoint(str(args.output)) if args.output.is_dir() else None
    trainer = PairTrainer(model=model, args=training, train_dataset=task.dataset("train"))
    trainer.train(resume_from_checkpoint=resumed)

    trainer.save_model()
    if not trainer.is_world_process_zero():
        return {}  # one process does the rest
    pieces = args.data / "sentencepiece.model"
    if pieces.is_file():
        save_tokenizer(fast_tokenizer(pieces.read_bytes(), dictionary.symbols), args.output)
    result = {
        **scores(model, task.dataset("valid"), recipe.dataset.batch_size),
        "updates": trainer.state.global_step,
        "seconds": round(time.time() - begin),
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # this and the allocator must be set before a process starts
        gpus = 0 if "--cpu" in sys.argv else torch.cuda.device_count()
        variables = {**waiting(), **environment(gpus)}
        os.execvpe(sys.executable, [sys.executable, *sys.argv], variables)
    main()
