"""fairseq's own task ``sentence_prediction`` with a lambda_bert: what its checkpoints hold, and how they are loaded."""

from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from omegaconf import OmegaConf

from fairseq_lambda.finetuning.labels import ANY, Labels
from fairseq_lambda.symbols import MASK
from fairseq_lambda.tasks.lambda_sentence_prediction import (
    LambdaSentencePredictionConfig,
    LambdaSentencePredictionTask,
)

NAME = "sentence_prediction"
PIECES = "sentencepiece.model"


def describe(task) -> None:
    """Make the checkpoints of fairseq's task hold symbols, labels and pieces, as ours do; leave other tasks alone.

    The pieces come from a ``sentencepiece.model`` in the data folder or its ``input0``. Without one, they are those of
    the checkpoint that is fine-tuned, which fairseq passes to the task.
    """
    if not isinstance(task, SentencePredictionTask):
        return
    objective = "regression" if task.cfg.regression_target else "classification"
    names = [] if task.cfg.regression_target else label_names(task.label_dictionary, task.cfg.num_classes)
    data = Path(task.cfg.data)
    pair = (data / "input1").is_dir()
    labels = Labels(objective, names, 2 if pair else 1)
    task.state.merge_state_dict({"symbols": list(task.source_dictionary.symbols), "labels": labels.state()})
    for file in (data / PIECES, data / "input0" / PIECES):
        if file.is_file():
            task.state.merge_state_dict({"sentencepiece": torch.from_numpy(np.fromfile(file, dtype=np.uint8))})
            break


def label_names(dictionary: Dictionary, classes: int) -> list[str]:
    """Return the names of the classes in the order of the outputs.

    Raises:
        ValueError: their number is not ``--num-classes``, which fairseq does not check.
    """
    names = [s for s in dictionary.symbols[dictionary.nspecial :] if s != MASK and not s.startswith("madeupword")]
    if len(names) != classes:
        raise ValueError(
            f"--num-classes {classes}: the data has {len(names)} labels ({', '.join(names[:20])}): use that number"
        )
    return names


def as_ours(cfg, state: dict, dictionary: Dictionary | None, labels: list[str] | None) -> LambdaSentencePredictionTask:
    """Return our task for a checkpoint that was trained with fairseq's.

    Args:
        cfg: fairseq's options of the task.
        state: the checkpoint's ``task_state``.
        dictionary, labels: for a checkpoint that was saved without them.

    Raises:
        ValueError: no dictionary in the checkpoint and none given, or more or fewer labels than classes.
    """
    options = OmegaConf.structured(LambdaSentencePredictionConfig)
    options.data, options.seed, options.train_subset = ".", int(cfg.get("seed", 1)), "train"
    options.required_seq_len_multiple, options.fp16 = 1, False
    options = OmegaConf.create(OmegaConf.to_container(options) | {"_name": "lambda_sentence_prediction"})
    if "symbols" not in state and dictionary is None:
        raise ValueError(
            "the checkpoint has no dictionary (saved under --task sentence_prediction by an older version): give the "
            "dict.txt of its data as dictionary=, and its labels as labels=, in the order of label/dict.txt"
        )
    regression = bool(cfg.get("regression_target", False))
    classes = int(cfg.num_classes)
    if labels is not None and len(labels) != classes:
        raise ValueError(f"labels= has {len(labels)} names, but the checkpoint has {classes} classes")
    if labels is not None or "labels" not in state:
        names = [] if regression else labels or [str(index) for index in range(classes)]
        own = Labels("regression" if regression else "classification", names, ANY)
    else:
        own = Labels(**state["labels"])
    if dictionary is None:
        dictionary = Dictionary()
        for symbol in state["symbols"]:
            dictionary.add_symbol(symbol)
    task = LambdaSentencePredictionTask(options, dictionary, own)
    task.HEAD, task.max_length = cfg.classification_head_name, int(cfg.max_positions)
    return task
