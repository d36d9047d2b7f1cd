"""The training behind fine-tuning: fairseq-train with the recipe and the architecture of the model."""

import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.commands import train
from fairseq_lambda.commands.fairseq_train import end_with_parent
from fairseq_lambda.commands.finetune_schedule import updates_of
from fairseq_lambda.commands.flags import recipe_flags
from fairseq_lambda.commands.training_lines import TrainingLines
from fairseq_lambda.config import finetuning_schedule, learning_rate, read_finetuning_recipe
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.metrics import LOWER_IS_BETTER
from fairseq_lambda.hardware import bfloat16_is_faster
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig
from fairseq_lambda.tasks.lambda_sentence_prediction import LambdaSentencePredictionTask

# Options of the model that depend on the new training or on the machine, or that are set in another way.
NOT_TAKEN_OVER = {
    "dropout", "attention_dropout", "activation_dropout", "pooler_dropout", "encoder_layerdrop", "lambda_backend",
    "checkpoint_activations", "load_checkpoint_heads", "max_positions",
}  # fmt: skip


def fairseq_command(hub, args, user, labels: Labels, metric: str, data: Path, folder: Path, seed: int):
    """Return the command that trains."""
    recipe = read_finetuning_recipe()
    gpus = 0 if "--cpu" in user else torch.cuda.device_count()
    task = "lambda_sequence_tagging" if labels.objective == "tagging" else "lambda_sentence_prediction"
    autocast = args.autocast
    if autocast is None:
        fast = bfloat16_is_faster("cuda" if gpus else "cpu") and train.FLOAT16.isdisjoint(user)
        autocast = "bfloat16" if fast else "none"
    updates = updates_of(hub, recipe, user, labels, data, int(args.nproc), seed)
    model = model_options(hub)
    recipe.merge_with({
        "common": {"seed": seed},
        "task": {"_name": task, "pooling": pooling_of(hub, recipe, labels)},
        "criterion": {"_name": task, "autocast": autocast},
        "dataset": {"required_seq_len_multiple": 1 if autocast == "none" else 8},
        "optimization": {"lr": [learning_rate(hub.cfg.model.encoder_embed_dim)]},
        "checkpoint": {
            "save_dir": str(folder), "best_checkpoint_metric": metric,
            "maximize_best_checkpoint_metric": metric not in LOWER_IS_BETTER,
            "finetune_from_model": str(find_checkpoint(args.model)),
        },
        "model": model,
        **finetuning_schedule(updates),
    })  # fmt: skip
    device = [] if gpus or "--cpu" in user else ["--cpu"]
    return [*train.launcher(args.nproc, None), str(data), *recipe_flags(without_false(recipe), user), *device, *user]


def pooling_of(hub, recipe: DictConfig, labels: Labels) -> str | None:
    """Return what the head reads: a model that has such a head already goes on with its own; tags have no choice."""
    if labels.objective == "tagging":
        return None
    is_classifier = isinstance(hub.task, LambdaSentencePredictionTask)
    return str(hub.task.cfg.get("pooling", "cls")) if is_classifier else recipe.task.pooling


def model_options(hub) -> dict:
    """Return the options of the architecture, as they are in the checkpoint."""
    cfg, bert = hub.cfg.model, hub.model.encoder.bert
    options = {f.name: cfg[f.name] for f in fields(LambdaBertConfig) if f.name in cfg and f.name not in NOT_TAKEN_OVER}
    if hub.model.max_positions() == bert.options.max_positions:  # it has a table of positions
        options["max_positions"] = bert.options.max_positions
    name = str(cfg.get("_name") or "lambda_bert")
    return {"_name": name, **options}


def without_false(recipe: DictConfig) -> DictConfig:
    """Return the recipe without options that are off: on a command line they are left out."""
    sections = OmegaConf.to_container(recipe, resolve=True)
    return OmegaConf.create({
        section: {key: value for key, value in options.items() if value is not False and value is not None}
        for section, options in sections.items()
    })  # fmt: skip


def launch(command: list[str], metric: str, folder: Path, quiet: bool) -> None:
    """Run the training; its whole log goes to ``train.log``, a summary to standard output."""
    gpus = 0 if "--cpu" in command else torch.cuda.device_count()
    lines = TrainingLines(metric)
    with (
        open(folder / "train.log", "a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=train.environment(gpus),
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            preexec_fn=end_with_parent,
        ) as process,
    ):
        log.write(shlex.join(command) + "\n")
        for text in process.stdout:
            log.write(text)
            log.flush()
            if not quiet:
                lines.line(text)
    if process.returncode:
        sys.exit(process.returncode if process.returncode > 0 else 1)
