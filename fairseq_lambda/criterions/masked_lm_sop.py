"""Masked-LM loss plus sentence loss, counted so that batches of any size and number add up."""

import contextlib
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from fairseq import modules, utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics

# a batch has about 500 masked tokens, so padding rows are 3 % of the masked-LM head's work
HEAD_MULTIPLE = 32


@dataclass
class MaskedLMSOPCriterionConfig(FairseqDataclass):
    sentence_loss_weight: float = field(
        default=1.0,
        metadata={"help": "weight of the mean sentence loss; that of the mean masked-LM loss is 1"},
    )
    autocast: ChoiceEnum(["none", "bfloat16"]) = field(
        default="none",
        metadata={
            "help": "mixed precision by torch.autocast on CPU and GPU, in training and validation; "
            "for float16 use fairseq's --fp16 or --amp"
        },
    )


@register_criterion("masked_lm_sop", dataclass=MaskedLMSOPCriterionConfig)
class MaskedLMSOPCriterion(FairseqCriterion):
    """BERT's loss (Devlin et al., 2019) with ALBERT's sentence order (Lan et al., 2020) or next sentence.

    A batch with M masked tokens gives::

        loss = sum_masked mlm + weight * c * sum_pairs sentence        sample_size = M

    fairseq divides the gradient by the sum of all sample sizes of an update. The constant c is the number of masked
    tokens of a full sample, mask_prob * tokens_per_sample, so a full pair counts as much as its masked tokens: loss / M
    is about the mean masked-LM loss plus ``weight`` times the mean sentence loss. If c were the ratio in the batch at
    hand, two halves of a batch (``--update-freq 2``, two workers) would not add up to the gradient of the whole.

    If lengths are padded to a multiple (``--required-seq-len-multiple``), so that batches come in few shapes, the rows
    of the masked-LM head are padded too, to a multiple of 32; the padding rows do not count.

    Raises ValueError for a weight that is negative or not finite.
    """

    def __init__(self, cfg: MaskedLMSOPCriterionConfig, task):
        super().__init__(task)
        if not 0 <= cfg.sentence_loss_weight < math.inf:
            raise ValueError(f"--sentence-loss-weight {cfg.sentence_loss_weight}: must be a number of at least 0")
        masked_per_sample = task.cfg.mask_prob * task.cfg.tokens_per_sample
        self.sentence_scale = cfg.sentence_loss_weight * masked_per_sample
        self.autocast = cfg.autocast
        self.head_multiple = 1 if task.cfg.required_seq_len_multiple == 1 else HEAD_MULTIPLE

    def forward(self, model, sample, reduce=True):
        """Return the loss (a sum), the sample size (masked tokens) and the sums to log.

        ``sample`` is a batch of the task: ``target`` (b, n), ``masked_positions`` (masked,) in the flattened (b * n),
        and, if there are pairs, ``sentence_target`` (b,) with -1 for a text without a label.
        """
        target, masked = sample["target"], sample["masked_positions"]
        masked_tokens = masked.numel()
        idle = -masked_tokens % self.head_multiple
        labels = F.pad(target.flatten()[masked], (0, idle), value=self.padding_idx)
        with self._autocast(target.device.type):
            logits, extra = model(**sample["net_input"], masked_tokens=F.pad(masked, (0, idle)))
        mlm_loss = modules.cross_entropy(logits.float(), labels, ignore_index=self.padding_idx, reduction="sum")
        log = {
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": masked_tokens,
            "mlm_loss": mlm_loss.detach(),
            "mlm_correct": (logits.argmax(-1).eq(labels) & labels.ne(self.padding_idx)).sum(),
        }
        loss = mlm_loss
        if "sentence_target" in sample:
            pairs, sentence_loss, correct = self._sentence(extra, sample["sentence_target"])
            loss = loss + self.sentence_scale * sentence_loss
            log.update(npairs=pairs, sop_loss=sentence_loss.detach(), sop_correct=correct)
        log["loss"] = loss.detach()
        return loss, masked_tokens, log

    def _autocast(self, device: str):
        if self.autocast == "none":
            return contextlib.nullcontext()
        return torch.autocast(device, torch.bfloat16)

    @staticmethod
    def _sentence(extra, labels):
        logits = extra["sentence_logits"]
        if logits is None:
            raise ValueError(
                "the batch has sentence labels but the model has no sentence head: "
                "use the same --sentence-objective for both"
            )
        loss = modules.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
        return labels.ge(0).sum(), loss, logits.argmax(-1).eq(labels).sum()

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """Log means over all workers: losses in bits as fairseq does, perplexity of the masked LM alone."""

        def total(key):
            return sum(log.get(key, 0) for log in logging_outputs)

        tokens, pairs = total("sample_size"), total("npairs")
        if tokens > 0:
            metrics.log_scalar("loss", total("loss") / tokens / math.log(2), tokens, round=3)
            metrics.log_scalar("mlm_loss", total("mlm_loss") / tokens / math.log(2), tokens, round=3)
            metrics.log_scalar("mlm_acc", 100.0 * total("mlm_correct") / tokens, tokens, round=2)
            metrics.log_derived("mlm_ppl", lambda m: utils.get_perplexity(m["mlm_loss"].avg))
        if pairs > 0:
            metrics.log_scalar("sop_loss", total("sop_loss") / pairs / math.log(2), pairs, round=3)
            metrics.log_scalar("sop_acc", 100.0 * total("sop_correct") / pairs, pairs, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
