"""The task ``masked_lm_sop``: masked LM with sentence order or next sentence, on fairseq-preprocess output."""

import logging
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING

from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.data.masking import Masking
from fairseq_lambda.data.pair_dataset import MaskedPairDataset
from fairseq_lambda.data.sentence_pairs import FIXED, OBJECTIVES

logger = logging.getLogger(__name__)


@dataclass
class MaskedLMSOPConfig(FairseqDataclass):
    data: str = field(
        default=MISSING,
        metadata={
            "help": "folder of fairseq-preprocess output, or several with colons between, "
            "taken in turn from epoch to epoch"
        },
    )
    sentence_objective: ChoiceEnum(OBJECTIVES) = field(
        default="sop",
        metadata={
            "help": "sop: are the two texts in order or swapped; nsp: does the second follow or is it "
            "from another document; none: single texts and the masked LM alone, as RoBERTa"
        },
    )
    tokens_per_sample: int = field(
        default=512, metadata={"help": "longest sample in tokens, special symbols included"}
    )
    mask_prob: float = field(default=0.15, metadata={"help": "share of the tokens to be predicted"})
    leave_unmasked_prob: float = field(
        default=0.1, metadata={"help": "share of these that stay as they are"}
    )
    random_token_prob: float = field(
        default=0.1, metadata={"help": "share of these that become a random token"}
    )
    mask_whole_words: bool = field(
        default=False, metadata={"help": "mask whole words (SentencePiece word starts)"}
    )
    short_sample_prob: float = field(
        default=0.0, metadata={"help": "share of training samples cut to a random shorter length"}
    )
    seed: int = II("common.seed")


@register_task("masked_lm_sop", dataclass=MaskedLMSOPConfig)
class MaskedLMSOPTask(FairseqTask):
    """Pairs of texts from consecutive sentences, new ones and new masks every training epoch.

    Raises ValueError for options out of range, with the flag, the value and the remedy.
    """

    def __init__(self, cfg: MaskedLMSOPConfig, dictionary: Dictionary):
        super().__init__(cfg)
        _check(cfg)
        self.dictionary = dictionary
        self.mask_idx = dictionary.add_symbol("<mask>")  # the only place where it enters
        self.sentence_objective = str(cfg.sentence_objective)

    @classmethod
    def setup_task(cls, cfg, dictionary: Dictionary | None = None, **kwargs):
        """Return the task over ``DATA/dict.txt``, or over a ``dictionary`` at hand (hub)."""
        return cls(cfg, cls.load_data_dictionary(cfg) if dictionary is None else dictionary)

    @classmethod
    def load_data_dictionary(cls, cfg) -> Dictionary:
        path = os.path.join(utils.split_paths(cfg.data)[0], "dict.txt")
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{path} is missing: the data folder is made by scripts/preprocess_wikitext.sh"
            )
        dictionary = cls.load_dictionary(path)
        logger.info("dictionary: %d types", len(dictionary))
        return dictionary

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load a split and log what it holds; training splits vary with ``epoch``, the others never.

        Raises:
            FileNotFoundError, ValueError: see :class:`Corpus`; "nsp" on a single document.
        """
        paths = utils.split_paths(self.cfg.data)
        prefix = os.path.join(paths[(epoch - 1) % len(paths)], split)
        corpus = Corpus(prefix, self.dictionary)
        if corpus.counts.documents == 1:
            if self.sentence_objective == "nsp":
                raise ValueError(
                    f"--sentence-objective nsp: {prefix} is a single document, and its negatives come from "
                    "another; part documents by blank lines, or use sop"
                )
            logger.warning("%s is a single document: are its documents parted by blank lines?", prefix)
        masking = Masking(
            self.dictionary,
            self.mask_idx,
            self.cfg.mask_prob,
            self.cfg.leave_unmasked_prob,
            self.cfg.random_token_prob,
            self.cfg.mask_whole_words,
        )
        dataset = MaskedPairDataset(
            corpus,
            self.dictionary,
            masking,
            self.sentence_objective,
            self.cfg.tokens_per_sample,
            self.cfg.seed,
            epoch if split.startswith("train") else FIXED,
            self.cfg.short_sample_prob,
        )
        self.datasets[split] = dataset
        self._log(prefix, dataset)

    def _log(self, prefix: str, dataset: MaskedPairDataset) -> None:
        counts, pairs = dataset.corpus.counts, dataset.pairs
        logger.info(
            "%s: %d documents, %d sentences, %d tokens (%d <unk>, never masked) in %d samples",
            *(prefix, counts.documents, counts.sentences, counts.tokens, counts.unknown, len(pairs)),
        )
        labelled = int(np.count_nonzero(pairs.label >= 0))
        if self.sentence_objective != "none":
            logger.info(
                "%s: %d pairs for %s, %.1f %% of label 1; without a label, for the masked LM only: "
                "%d pieces of sentences over --tokens-per-sample, %d chunks of one sentence",
                prefix,
                labelled,
                self.sentence_objective,
                100 * np.count_nonzero(pairs.label == 1) / max(labelled, 1),
                pairs.long_pieces,
                len(pairs) - labelled - pairs.long_pieces,
            )
            if not labelled:
                logger.warning("%s: no pair at all; raise --tokens-per-sample", prefix)
        else:
            logger.info("%s: %d samples are pieces of long sentences", prefix, pairs.long_pieces)
        logger.info("%s: nothing left out but %s", prefix, "blank lines and the </s> inside texts")

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Return the model, checked to have a position for every token of a sample."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.tokens_per_sample > model.max_positions():
            raise ValueError(
                f"--tokens-per-sample {self.cfg.tokens_per_sample} exceeds --max-positions "
                f"{model.max_positions()}: raise the one or lower the other"
            )
        return model

    def state_dict(self) -> dict:
        """Return what a checkpoint needs to be used without the data folder: symbols and SentencePiece model."""
        state = {"symbols": list(self.dictionary.symbols)}
        model = os.path.join(utils.split_paths(self.cfg.data)[0], "sentencepiece.model")
        if os.path.isfile(model):
            with open(model, "rb") as file:
                state["sentencepiece"] = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        return state

    def load_state_dict(self, state: dict) -> None:
        """Check that the checkpoint has this task's dictionary.

        Raises:
            ValueError: another dictionary, with the first difference.
        """
        theirs, ours = state.get("symbols"), self.dictionary.symbols
        if theirs is not None and theirs != ours:
            n = next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
                min(len(theirs), len(ours)),
            )
            raise ValueError(
                f"the checkpoint was trained with another dictionary: {len(theirs)} symbols and here "
                f"{len(ours)}, the first difference at {n}"
            )

    def max_positions(self) -> int:
        return self.cfg.tokens_per_sample

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary


def _check(cfg) -> None:
    if cfg.tokens_per_sample < 8:
        raise ValueError(f"--tokens-per-sample {cfg.tokens_per_sample}: must be at least 8")
    if not 0 < cfg.mask_prob < 1:
        raise ValueError(f"--mask-prob {cfg.mask_prob}: must be above 0 and below 1")
    for flag in ("leave_unmasked_prob", "random_token_prob", "short_sample_prob"):
        value = getattr(cfg, flag)
        if not 0 <= value <= 1:
            raise ValueError(f"--{flag.replace('_', '-')} {value}: a probability, from 0 to 1")
    if cfg.leave_unmasked_prob + cfg.random_token_prob > 1:
        raise ValueError(
            f"--leave-unmasked-prob {cfg.leave_unmasked_prob} and --random-token-prob "
            f"{cfg.random_token_prob} add up to more than 1"
        )
