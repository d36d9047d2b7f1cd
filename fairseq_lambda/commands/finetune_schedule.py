"""How many updates a fine-tuning takes, over which the learning rate decays."""

import math
from pathlib import Path

from omegaconf import DictConfig

from fairseq_lambda.commands.flags import whole_number
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT
from fairseq_lambda.tasks.fine_tuning import DEFAULT_LENGTH, FineTuningConfig
from fairseq_lambda.tasks.lambda_sentence_prediction import LambdaSentencePredictionTask
from fairseq_lambda.tasks.lambda_sequence_tagging import LambdaSequenceTaggingTask


def updates_of(hub, recipe: DictConfig, user: list[str], labels: Labels, data: Path, nproc: int, seed: int) -> int:
    """Return the number of updates of the training: all epochs, or ``--max-update`` if that is less.

    Batches are those of the first epoch. With ``--max-tokens``, later ones may have a few more or less.

    Raises:
        ValueError: a flag that is not a whole number of at least 1, or ``--max-tokens`` below the longest sample.
    """
    epochs = whole_number(user, "--max-epoch", recipe.optimization.max_epoch)
    batch = whole_number(user, "--batch-size", recipe.dataset.batch_size)
    multiple = whole_number(user, "--required-batch-size-multiple", recipe.dataset.required_batch_size_multiple)
    # of "2,1", twice in the first epoch and once in the others, the first
    often = whole_number([word.split(",")[0] for word in user], "--update-freq", 1)
    tokens = whole_number(user, "--max-tokens", None)
    samples = training_samples(hub, user, labels, data, seed)
    if tokens is not None and tokens < samples.sizes.max():
        raise ValueError(
            f"--max-tokens {tokens}: the longest sample has {samples.sizes.max()}: raise it, or lower --max-length"
        )
    batches = len(samples.batch_by_size(samples.ordered_indices(), tokens, batch, multiple))
    updates = epochs * math.ceil(math.ceil(batches / nproc) / often)
    return min(updates, whole_number(user, "--max-update", updates))


def training_samples(hub, user: list[str], labels: Labels, data: Path, seed: int):
    """Return the dataset that the training will read; in tagging, the parts of long texts are its samples."""
    limit = hub.model.max_positions()
    length = whole_number(user, "--max-length", DEFAULT_LENGTH if limit == NO_LIMIT else limit)
    cfg = FineTuningConfig(data=str(data), max_length=length)
    cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple, cfg.fp16 = seed, "train", 1, False
    task = LambdaSequenceTaggingTask if labels.objective == "tagging" else LambdaSentencePredictionTask
    task = task.setup_task(cfg)
    task.load_dataset("train")
    return task.dataset("train")
