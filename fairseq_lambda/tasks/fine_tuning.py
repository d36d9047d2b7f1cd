"""What the two fine-tuning tasks share: options, the data folder, the contents of a checkpoint."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from omegaconf import II, MISSING

from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT
from fairseq_lambda.tasks.symbols_task import SymbolsTask

REMEDY = "make the folder with lambda-bert finetune"
DEFAULT_LENGTH = 512  # if the model reads any length
SHORTEST = 8


@dataclass
class FineTuningConfig(FairseqDataclass):
    data: str = field(default=MISSING, metadata={"help": "folder made by lambda-bert finetune"})
    max_length: Optional[int] = field(  # noqa: UP045  fairseq's argparse bridge supports only this form
        default=None,
        metadata={
            "help": "longest sample in tokens, special symbols included; longer texts are shortened "
            f"(default: the longest input of the model, or {DEFAULT_LENGTH} if it reads any length)"
        },
    )
    freeze_encoder: bool = field(
        default=False, metadata={"help": "train the head only; the encoder does not change and has no dropout"}
    )
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "factor of the learning rate from each layer to the one below: the head has the full rate, the "
            "top layer this share of it, the embeddings the lowest rate; 1: the same rate everywhere"
        },
    )
    persistent_workers: bool = field(
        default=False, metadata={"help": "keep the data loader's workers alive after each pass"}
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    required_seq_len_multiple: int = II("dataset.required_seq_len_multiple")
    fp16: bool = II("common.fp16")


class FineTuningTask(SymbolsTask):
    """Trains a head, and the encoder under it, on labelled texts.

    Args:
        cfg: the options.
        dictionary: fairseq's; ``<mask>`` is added if it is missing.
        labels: what is predicted.

    Raises:
        ValueError: an option out of its range, naming flag, value and remedy.
    """

    OTHER_DICTIONARY = "Make the data folder with lambda-bert finetune from this checkpoint"
    HEAD = "sentence_classification_head"  # the name in fairseq's own task
    OBJECTIVES: tuple[str, ...] = ()
    HARMLESS_OPTIONS = frozenset(
        "_name data seed persistent_workers train_subset required_seq_len_multiple fp16 max_length".split()
    )
    sentence_objective = "none"  # the model needs no head for the order of sentences

    def __init__(self, cfg: FineTuningConfig, dictionary: Dictionary, labels: Labels):
        super().__init__(cfg, dictionary)
        if labels.objective not in self.OBJECTIVES:
            raise ValueError(
                f"{cfg.data} is for {labels.objective}: --task {cfg._name} is for {', '.join(self.OBJECTIVES)}"
            )
        if cfg.max_length is not None and cfg.max_length < SHORTEST:
            raise ValueError(f"--max-length {cfg.max_length}: must be at least {SHORTEST}")
        if not 0 < cfg.layer_decay <= 1:
            raise ValueError(f"--layer-decay {cfg.layer_decay}: must be above 0 and at most 1, such as 0.9")
        if cfg.layer_decay < 1 and cfg.fp16:
            raise ValueError(
                f"--layer-decay {cfg.layer_decay} does not work with --fp16: use --amp or --autocast bfloat16"
            )
        self.labels, self.max_length = labels, cfg.max_length

    @classmethod
    def setup_task(cls, cfg: FineTuningConfig, dictionary: Dictionary | None = None, labels=None, **kwargs):
        """Return the task over the symbols and labels of ``cfg.data``, or over those given.

        Raises:
            FileNotFoundError, ValueError: no such folder, or not one made by lambda-bert finetune.
        """
        if dictionary is not None:
            return cls(cfg, dictionary, labels)
        folder = Path(cfg.data)
        file = folder / "dict.txt"
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: {REMEDY}")
        labels, _ = Labels.load(folder)
        task = cls(cfg, Dictionary.load(str(file)), labels)
        task.read_sentencepiece(folder)
        return task

    @classmethod
    def from_state(cls, cfg, state: dict):
        """Return the task of a checkpoint, given its ``task_state``.

        Raises:
            ValueError: the state is not of this task.
        """
        if "labels" not in state:
            raise ValueError(f"the checkpoint's task_state has no labels: it was not saved with --task {cfg._name}")
        task = cls(cfg, cls.dictionary_from_state(state), Labels(**state["labels"]))
        task.max_length = state.get("max_length", cfg.max_length)
        return task

    def path(self, split: str, what: str) -> str:
        return os.path.join(self.cfg.data, f"{split}.{what}")

    def dataset_options(self, split: str) -> dict:
        return {
            "max_length": self.max_positions(),
            "seed": self.cfg.seed,
            "training": split == self.cfg.train_subset,
            "length_multiple": self.cfg.required_seq_len_multiple,
        }

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Return the model with its head; weights that are not trained get no gradient.

        Raises:
            ValueError: ``--max-length`` is above what the model reads.
        """
        model = super().build_model(cfg, from_checkpoint)
        limit = model.max_positions()
        if self.max_length is None:
            self.max_length = DEFAULT_LENGTH if limit == NO_LIMIT else limit
        elif self.max_length > limit:
            raise ValueError(f"--max-length {self.max_length}: the model reads at most {limit} tokens")
        self.build_head(model)
        frozen = model.encoder.parameters() if self.cfg.freeze_encoder else _masked_lm_head(model)
        for parameter in frozen:
            parameter.requires_grad_(False)
        self._rates = layer_rates(model, self.cfg.layer_decay) if self.cfg.layer_decay < 1 else None
        return model

    def build_head(self, model) -> None:
        model.register_classification_head(self.HEAD, num_classes=self.labels.outputs)

    def optimizer_step(self, optimizer, model, update_num: int) -> None:
        """Take an optimizer step; with ``--layer-decay``, each weight moves only its layer's share of the way.

        This works for any optimizer, and covers weight decay, as a lower learning rate would.
        """
        if self._rates is None:
            return super().optimizer_step(optimizer, model, update_num)
        moved = [(rate, parameter) for rate, parameter in self._rates if parameter.grad is not None]
        rates, parameters = [rate for rate, _ in moved], [parameter.data for _, parameter in moved]
        before = [parameter.clone() for parameter in parameters]
        super().optimizer_step(optimizer, model, update_num)
        for rate, old, new in zip(rates, before, parameters, strict=True):
            new.copy_(torch.lerp(old, new, rate))

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_rates": None}

    def state_dict(self) -> dict:
        """Return the state of :class:`SymbolsTask` with ``labels``, see :class:`Labels`, and ``max_length``."""
        return {**super().state_dict(), "labels": self.labels.state(), "max_length": self.max_length}

    def check_resumed(self, state: dict) -> None:
        """Raise ValueError if the run to resume had other labels: the outputs would change their meaning."""
        theirs = (state.get("labels") or {}).get("names")
        if theirs is not None and theirs != self.labels.names:
            raise ValueError(f"its labels are {', '.join(theirs)}, but {self.cfg.data} has others")

    def max_positions(self) -> int:
        """Return the largest number of tokens in a sample."""
        return self.max_length or DEFAULT_LENGTH


def _masked_lm_head(model) -> list:
    """Return the weights that only the masked-LM head has: fine-tuning gives them no gradient, which DDP refuses."""
    head = model.encoder.bert.lm_head
    return [head.bias, *head.dense.parameters(), *head.layer_norm.parameters()]


def layer_rates(model, decay: float) -> list[tuple[float, torch.nn.Parameter]]:
    """Return (share of the learning rate, parameter) of everything below the heads: decay ** (layers from the top).

    As in ELECTRA (Clark et al., 2020): decay for the top layer, decay ** layers for the lowest one, and
    decay ** (layers + 1) for the embeddings.
    """
    bert = model.encoder.bert
    layers = len(bert.encoder.layers)
    depths = {id(p): layers - i for i, layer in enumerate(bert.encoder.layers) for p in layer.parameters()}
    final = {id(p) for p in bert.encoder.parameters()} - depths.keys()
    return [
        (decay ** (1 if id(p) in final else depths.get(id(p), layers + 1)), p)
        for p in bert.parameters()
        if p.requires_grad
    ]
