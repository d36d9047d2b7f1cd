"""The task ``masked_lm_sop``: masked LM and sentence order (or next sentence) over documents."""

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
from fairseq_lambda.data.masking import TokenMasker
from fairseq_lambda.data.pair_dataset import SentencePairDataset
from fairseq_lambda.data.pairs import OBJECTIVES

logger = logging.getLogger(__name__)

REMEDY = "make it with scripts/preprocess_wikitext.sh"
MASK = "<mask>"


@dataclass
class MaskedLMSOPConfig(FairseqDataclass):
    data: str = field(
        default=MISSING,
        metadata={
            "help": "folder of fairseq-preprocess output with dict.txt, or several joined by colons, "
            "one an epoch in turn"
        },
    )
    sentence_objective: ChoiceEnum(list(OBJECTIVES)) = field(
        default="sop",
        metadata={
            "help": "sop: are the two parts in order or swapped; nsp: does the second follow the first or come "
            "from another document; none: masked LM only, one part"
        },
    )
    tokens_per_sample: int = field(
        default=512, metadata={"help": "most tokens of a sample, special symbols included"}
    )
    mask_prob: float = field(
        default=0.15, metadata={"help": "share of the tokens that the model has to tell"}
    )
    leave_unmasked_prob: float = field(
        default=0.1, metadata={"help": "of those tokens, the share that is left as it is"}
    )
    random_token_prob: float = field(
        default=0.1,
        metadata={"help": "of those tokens, the share that is replaced by a random one"},
    )
    mask_whole_words: bool = field(
        default=False, metadata={"help": "mask all pieces of a word or none; needs SentencePiece"}
    )
    short_sample_prob: float = field(
        default=0.0,
        metadata={"help": "share of the samples that are filled up to a random shorter length"},
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")


@register_task("masked_lm_sop", dataclass=MaskedLMSOPConfig)
class MaskedLMSOPTask(FairseqTask):
    """Pretraining of BERT-like models on sentence pairs.

    ``sentence_objective`` ("sop", "nsp" or "none") tells the model whether to build a sentence head, ``mask_idx`` is the
    id of ``<mask>``, which is appended to the dictionary here and nowhere else.

    Args:
        cfg: the options.
        dictionary: fairseq's, with or without ``<mask>``.

    Raises:
        ValueError: an option out of its range, with the flag and the value.
    """

    cfg: MaskedLMSOPConfig

    def __init__(self, cfg: MaskedLMSOPConfig, dictionary: Dictionary):
        super().__init__(cfg)
        _check_options(cfg)
        self.sentence_objective = str(cfg.sentence_objective)
        self.dictionary = dictionary
        self._symbols_of_text = len(dictionary)
        self.mask_idx = dictionary.add_symbol(MASK)
        self._masker = TokenMasker(
            dictionary,
            self.mask_idx,
            cfg.mask_prob,
            cfg.leave_unmasked_prob,
            cfg.random_token_prob,
            cfg.mask_whole_words,
        )
        self._sentencepiece = None

    @classmethod
    def setup_task(cls, cfg: MaskedLMSOPConfig, dictionary: Dictionary | None = None, **kwargs):
        """Return the task over ``dictionary``, by default the first data folder's ``dict.txt``.

        Raises:
            FileNotFoundError: no such folder, or no ``dict.txt`` in it.
            ValueError: a ``dict.txt`` that fairseq cannot read, or an option out of its range.
        """
        folder = _folders(cfg)[0]
        if dictionary is not None:
            return cls(cfg, dictionary)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no data folder {folder}: {REMEDY}")
        file = os.path.join(folder, "dict.txt")
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{file} is missing: {REMEDY}")
        try:
            dictionary = Dictionary.load(file)
        except Exception as error:  # fairseq raises bare Exception, ValueError and RuntimeError
            raise ValueError(f"{file} is not a fairseq dictionary ({error}): {REMEDY}") from error
        logger.info("dictionary: %d symbols", len(dictionary))
        task = cls(cfg, dictionary)
        model = os.path.join(folder, "sentencepiece.model")
        if os.path.isfile(model):
            task._sentencepiece = torch.from_numpy(np.fromfile(model, dtype=np.uint8))
        return task

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load ``split`` of the folder that is due in ``epoch`` into ``self.datasets`` and log what it holds.

        ``train``, every split that starts so, and ``--train-subset`` are planned anew each epoch, other splits once.

        Raises:
            FileNotFoundError: the split is not there.
            ValueError: it is damaged, empty, of another dictionary, in parts, or (``nsp``) of a single document.
        """
        folders = _folders(self.cfg)
        path = os.path.join(folders[(epoch - 1) % len(folders)], split)
        if combine and os.path.isfile(f"{path}1.idx"):
            raise ValueError(
                f"{path}1.idx: a split in numbered parts is not supported; put the parts into folders of their own and "
                "join these by colons"
            )
        corpus = Corpus(path, self.dictionary.eos())
        unknown = corpus.check_tokens(
            self._symbols_of_text, self.dictionary.pad(), self.dictionary.unk()
        )
        documents = len(corpus.document_starts())
        if documents == 1:
            message = f"{path} is a single document: separate its documents by empty lines"
            if self.sentence_objective == "nsp":
                raise ValueError(
                    f"{message}, or choose --sentence-objective sop; nsp takes sentences from another document"
                )
            logger.warning(message)
        dataset = SentencePairDataset(
            corpus,
            self._masker,
            self.dictionary.bos(),
            objective=self.sentence_objective,
            tokens_per_sample=self.cfg.tokens_per_sample,
            seed=self.cfg.seed,
            epoch=epoch,
            short_sample_prob=self.cfg.short_sample_prob,
            training=split.startswith("train") or split == self.cfg.train_subset,
        )
        self.datasets[split] = dataset
        self._log(path, dataset, documents, unknown)

    def _log(self, path: str, dataset: SentencePairDataset, documents: int, unknown: int) -> None:
        corpus, plan = dataset.corpus, dataset.plan
        tokens = int(corpus.content[-1])
        logger.info(
            "%s: %d documents, %d sentences, %d tokens (%.2f %% <unk>, never a target)",
            *(path, documents, len(corpus) - len(corpus.blank), tokens, 100 * unknown / tokens),
        )
        pairs = np.count_nonzero(plan.labels >= 0)
        logger.info(
            "%s: epoch %d has %d samples of %.1f tokens on average, %d at most",
            *(path, dataset.epoch, len(plan), plan.lengths.mean(), plan.lengths.max()),
        )
        if plan.long_sentences:
            logger.info(
                "%s: %d sentences are longer than a sample and are cut into %d samples",
                *(path, plan.long_sentences, plan.pieces),
            )
        if self.sentence_objective == "none":
            return
        logger.info(
            "%s: %d pairs, %.1f %% of them with label 1 (%s); without a label, for the masked LM only: %d chunks of one "
            "sentence, %d pieces of long sentences",
            *(path, pairs, 100 * np.count_nonzero(plan.labels == 1) / max(pairs, 1)),
            "swapped" if self.sentence_objective == "sop" else "of another document",
            *(plan.single_sentences, plan.pieces),
        )
        if pairs == 0:
            logger.warning(
                "%s has no sentence pairs: put one sentence on a line, raise --tokens-per-sample %d, or train with "
                "--sentence-objective none",
                *(path, self.cfg.tokens_per_sample),
            )

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Return the model.

        Raises:
            ValueError: the samples do not fit its positions.
        """
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.tokens_per_sample > model.max_positions():
            raise ValueError(
                f"--tokens-per-sample {self.cfg.tokens_per_sample} exceeds the model's --max-positions "
                f"{model.max_positions()}: shorten the samples, or give the model more positions"
            )
        return model

    def state_dict(self) -> dict:
        """Return what a checkpoint needs to be used alone: ``symbols`` of the dictionary, a list of str, and the bytes of
        the SentencePiece model, ``sentencepiece`` (bytes,) uint8, if there is one."""
        state = {"symbols": list(self.dictionary.symbols)}
        if self._sentencepiece is not None:
            state["sentencepiece"] = self._sentencepiece
        return state

    def load_state_dict(self, state: dict) -> None:
        """Check that a checkpoint goes with this task's dictionary; take its SentencePiece model if there is none here.

        Raises:
            ValueError: it was trained with another dictionary.
        """
        theirs, ours = state.get("symbols"), self.dictionary.symbols
        if theirs is not None and theirs != ours:
            shorter = min(len(theirs), len(ours))
            at = next((i for i in range(shorter) if theirs[i] != ours[i]), shorter)
            symbols = [repr(s[at]) if at < len(s) else "nothing" for s in (theirs, ours)]
            raise ValueError(
                f"the checkpoint was trained with another dictionary: it has {len(theirs)} symbols, the one of the data "
                f"{len(ours)}, and at {at} there is {symbols[0]} in the former and {symbols[1]} in the latter; use the "
                "data folder that it was trained on"
            )
        if self._sentencepiece is None:
            self._sentencepiece = state.get("sentencepiece")

    @classmethod
    def dictionary_from_state(cls, state: dict) -> Dictionary:
        """Return the dictionary of a checkpoint's ``task_state``, ``<mask>`` included.

        Raises:
            ValueError: the state holds no symbols, or fairseq's special symbols are not where they have to be.
        """
        symbols = state.get("symbols")
        dictionary = Dictionary()
        for symbol in symbols or []:
            dictionary.add_symbol(symbol)
        if dictionary.symbols != symbols:
            raise ValueError(
                "the checkpoint holds no dictionary of this task (task_state has no usable symbols): "
                "was it trained with --task masked_lm_sop?"
            )
        return dictionary

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary

    def max_positions(self) -> int:
        """Return the most tokens of a sample."""
        return self.cfg.tokens_per_sample


def _folders(cfg) -> list[str]:
    folders = utils.split_paths(cfg.data)
    if not all(folders):
        raise ValueError(f"data {cfg.data!r}: name a folder, or several joined by {os.pathsep!r}")
    return folders


def _check_options(cfg) -> None:
    if str(cfg.sentence_objective) not in OBJECTIVES:
        raise ValueError(
            f"--sentence-objective {cfg.sentence_objective}: choose one of {', '.join(OBJECTIVES)}"
        )
    if cfg.tokens_per_sample < 8:
        raise ValueError(f"--tokens-per-sample {cfg.tokens_per_sample}: must be at least 8")
    if not 0 < cfg.mask_prob < 1:
        raise ValueError(f"--mask-prob {cfg.mask_prob}: must be above 0 and below 1, such as 0.15")
    for flag, value in {
        "--leave-unmasked-prob": cfg.leave_unmasked_prob,
        "--random-token-prob": cfg.random_token_prob,
        "--short-sample-prob": cfg.short_sample_prob,
    }.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{flag} {value}: a probability, at least 0 and at most 1")
    if cfg.leave_unmasked_prob + cfg.random_token_prob > 1:
        raise ValueError(
            f"--leave-unmasked-prob {cfg.leave_unmasked_prob} and --random-token-prob {cfg.random_token_prob}: "
            "their sum is above 1; lower one of them"
        )
