"""The losses of fine-tuning, and scores of whole validation splits, by which checkpoints are selected."""

import contextlib
import math
from dataclasses import dataclass, field
from typing import Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from fairseq_lambda.criterions import gathering
from fairseq_lambda.data.labelled import NO_LABEL
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.metrics import NOT_PERCENT, names_of, scores

BALANCED = "balanced"


@dataclass
class FineTuningCriterionConfig(FairseqDataclass):
    class_weights: Optional[str] = field(  # noqa: UP045  fairseq's argparse bridge supports only this form
        default=None,
        metadata={
            "help": f"weights of the labels in the loss: {BALANCED} (each label counts as much as any other), or "
            "NAME=WEIGHT,... with 1 for the others"
        },
    )
    autocast: ChoiceEnum(["none", "bfloat16"]) = field(
        default="none",
        metadata={"help": "mixed precision by torch.autocast on CPU and GPU; for float16 use --fp16 or --amp"},
    )


class FineTuningCriterion(FairseqCriterion):
    """A loss summed over all labelled texts or words; the sample size is their number.

    In validation the predictions are gathered, so the scores of :func:`fairseq_lambda.finetuning.metrics.scores` are
    those of the whole split, not means over batches.

    Raises ValueError for class weights that do not fit the labels.
    """

    def __init__(self, cfg: FineTuningCriterionConfig, task):
        super().__init__(task)
        gathering.install()
        self.autocast, self.labels = cfg.autocast, task.labels
        weights = class_weights(cfg.class_weights, task.labels)
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, model, sample, reduce=True):
        """Return the loss (a sum), the sample size and what to log."""
        if self.task.cfg.freeze_encoder:
            model.encoder.eval()  # a frozen encoder has no dropout
        target = sample["target"]
        precise = self.autocast == "none"
        with contextlib.nullcontext() if precise else torch.autocast(target.device.type, torch.bfloat16):
            logits, _ = model(**sample["net_input"], features_only=True, classification_head_name=self.task.HEAD)
        logits, target = self.select(logits.float(), target)
        loss = self.loss(logits, target)
        log = {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": target.size(0),
        }
        if not model.training:
            log["predicted"] = decide(self.labels, logits.detach()).cpu()
            log["target"] = target.cpu()
            log["words"] = self.words(sample["target"]).cpu()
            log["labels"] = self.labels
        return loss, target.size(0), log

    def select(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and targets of everything that has a label."""
        return logits, target

    def words(self, target: Tensor) -> Tensor:
        """Return how many words each text of a batch has; empty if whole texts are labelled."""
        return target.new_zeros(0)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.float()  # --fp16 converts buffers to float16
        if self.labels.objective == "regression":
            return F.mse_loss(logits.squeeze(-1), target.float(), reduction="sum")
        if self.labels.objective == "multilabel":
            each = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=weights, reduction="none")
            return each.mean(dim=-1).sum()
        return F.cross_entropy(logits, target, weight=weights, reduction="sum")

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Log the mean loss in bits; in validation, also the scores of all predictions."""
        size = sum(log.get("sample_size", 0) for log in logging_outputs)
        if size > 0:
            loss = float(sum(log.get("loss", 0) for log in logging_outputs)) / size / math.log(2)
            metrics.log_scalar("loss", loss, size, round=3)
        logs = [log for log in logging_outputs if "predicted" in log]
        if not logs:
            return
        for name in ("predicted", "target", "words"):
            metrics.log_concat_tensor(f"_{name}", torch.cat([log[name] for log in logs]), dim=0)
        labels = logs[0]["labels"]

        def score(meters, name):
            gathered = [meters[f"_{key}"].tensor.numpy() for key in ("predicted", "target", "words")]
            value = scores(labels, *gathered)[name]
            return round(value, 4) if name in NOT_PERCENT else round(100 * value, 2)

        for name in names_of(labels):
            metrics.log_derived(name, lambda meters, name=name: score(meters, name))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return False  # they hold predictions


def decide(labels: Labels, logits: Tensor) -> Tensor:
    """Return predictions from logits (n, outputs).

    The likeliest label (n,); for several labels per text, 1 where the probability is at least 0.5 (n, labels); for
    regression, the numbers (n,).
    """
    if labels.objective == "regression":
        return logits.squeeze(-1)
    if labels.objective == "multilabel":
        return logits.ge(0).long()
    return logits.argmax(dim=-1)


def class_weights(option: str | None, labels: Labels) -> list[float] | None:
    """Return a weight per label; for several labels per text, it applies where a text has the label.

    "balanced" is n / (labels * count), as in scikit-learn, or for several labels per text (n - count) / count.

    Raises:
        ValueError: a name is not a label, or a weight is not a number above 0.
    """
    if option is None:
        return None
    if labels.objective == "regression":
        raise ValueError(f"--class-weights {option}: regression has no classes")
    if option == BALANCED:
        counts = [max(count, 1) for count in labels.counts]
        if labels.objective == "multilabel":
            return [max(labels.examples - count, 1) / count for count in counts]
        return [sum(labels.counts) / (len(counts) * count) for count in counts]
    weights = dict.fromkeys(labels.names, 1.0)
    for pair in option.split(","):
        name, _, value = pair.rpartition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = 0.0
        if name not in weights or not 0 < weight < math.inf:
            raise ValueError(
                f"--class-weights {option}: {pair!r} is not NAME=WEIGHT with a weight above 0 and a name of "
                f"{', '.join(labels.names)}"
            )
        weights[name] = weight
    return list(weights.values())


@register_criterion("lambda_sentence_prediction", dataclass=FineTuningCriterionConfig)
class LambdaSentencePredictionCriterion(FineTuningCriterion):
    """Cross-entropy over the labels of a text, or over each of several labels separately; or squared error."""


@register_criterion("lambda_sequence_tagging", dataclass=FineTuningCriterionConfig)
class LambdaSequenceTaggingCriterion(FineTuningCriterion):
    """Cross-entropy over the labels of words."""

    def select(self, logits, target):
        known = target.ne(NO_LABEL)
        return logits[known], target[known]

    def words(self, target):
        return target.ne(NO_LABEL).sum(dim=1)
