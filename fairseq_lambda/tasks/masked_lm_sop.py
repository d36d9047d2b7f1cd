"""The task ``masked_lm_sop``: masked LM and sentence order (or next sentence) over documents."""

import logging
import os
from inspect import signature

import numpy as np
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.tasks import register_task

from fairseq_lambda.data.corpus import REMEDY, Corpus
from fairseq_lambda.data.dataset import SentencePairDataset
from fairseq_lambda.data.masking import TokenMasker
from fairseq_lambda.data.packing import PackedDocumentsDataset
from fairseq_lambda.symbols import MASK, difference
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig, check_options
from fairseq_lambda.tasks.symbols_task import SymbolsTask

logger = logging.getLogger(__name__)


@register_task("masked_lm_sop", dataclass=MaskedLMSOPConfig)
class MaskedLMSOPTask(SymbolsTask):
    """Pretraining of BERT-like models on sentence pairs.

    ``sentence_objective`` ("sop", "nsp" or "none") tells the model whether to build a sentence head.

    Args:
        cfg: the options.
        dictionary: fairseq's; ``<mask>`` is added if it is missing.

    Raises:
        ValueError: an option out of its range, naming flag, value and remedy.
    """

    cfg: MaskedLMSOPConfig
    OTHER_DICTIONARY = "Use data binarised with the dict.txt of its training"
    # These change the meaning of neither weights nor labels. All others must be the same when a run is resumed.
    HARMLESS_OPTIONS = frozenset(
        "_name data tokens_per_sample mask_prob leave_unmasked_prob random_token_prob mask_whole_words seed "
        "short_sample_prob pack_documents persistent_workers train_subset required_seq_len_multiple".split()
    )

    def __init__(self, cfg: MaskedLMSOPConfig, dictionary: Dictionary):
        check_options(cfg)
        self._symbols_of_text = len(dictionary)
        super().__init__(cfg, dictionary)
        self.sentence_objective = str(cfg.sentence_objective)
        self._masker = TokenMasker(
            dictionary,
            self.mask_idx,
            cfg.mask_prob,
            cfg.leave_unmasked_prob,
            cfg.random_token_prob,
            cfg.mask_whole_words,
        )

    @classmethod
    def setup_task(cls, cfg: MaskedLMSOPConfig, dictionary: Dictionary | None = None, **kwargs):
        """Return the task over ``dictionary``, by default the first data folder's ``dict.txt``.

        Raises:
            FileNotFoundError: no such folder, or no ``dict.txt`` in it.
            ValueError: a ``dict.txt`` that fairseq cannot read, or an option out of its range.
        """
        if dictionary is not None:
            return cls(cfg, dictionary)
        folder, *others = _folders(cfg)
        dictionary = _read_dictionary(folder)
        task = cls(cfg, dictionary)
        logger.info("dictionary: %d symbols", len(task.dictionary))
        for other in others:  # now, and not when an epoch gets to it
            task.check_dictionary(other)
        task.read_sentencepiece(folder)
        return task

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """Load ``split`` from the folder of this ``epoch`` into ``self.datasets``; log its contents.

        ``--train-subset`` and splits whose names start with "train" get new samples and masks each epoch; other splits
        keep theirs.

        Raises:
            FileNotFoundError: the split is not there.
            ValueError: it is damaged or empty, is in numbered parts, was binarised with another dictionary, or, for
                ``nsp``, is a single document.
        """
        folders = _folders(self.cfg)
        folder = folders[(epoch - 1) % len(folders)]
        self.check_dictionary(folder)
        path = os.path.join(folder, split)
        if combine and os.path.isfile(f"{path}1.idx"):
            raise ValueError(
                f"{path}1.idx: splits in numbered parts are not supported; put each part into a "
                "folder of its own and join the folders by colons"
            )
        corpus = Corpus(path, self.dictionary.eos())
        unknown = corpus.check_tokens(self._symbols_of_text, self.dictionary.pad(), self.dictionary.unk())
        if unknown == corpus.content[-1]:
            raise ValueError(f"{path} has only words that are not in the vocabulary (<unk>): {REMEDY}")
        documents = len(corpus.document_starts())
        if documents == 1:
            if self.sentence_objective == "nsp":
                raise ValueError(
                    f"{path} is a single document and --sentence-objective nsp needs sentences "
                    "from another one: put empty lines between documents, or choose sop or none"
                )
            logger.warning("%s is a single document: put empty lines between documents", path)
        dataset = (PackedDocumentsDataset if self.cfg.pack_documents else SentencePairDataset)(
            corpus,
            self._masker,
            self.dictionary.bos(),
            objective=self.sentence_objective,
            tokens_per_sample=self.cfg.tokens_per_sample,
            seed=self.cfg.seed,
            epoch=epoch,
            short_sample_prob=self.cfg.short_sample_prob,
            length_multiple=self.cfg.required_seq_len_multiple,
            training=split.startswith("train") or split == self.cfg.train_subset,
        )
        self.datasets[split] = dataset
        self._log(path, dataset, documents, unknown)

    def check_dictionary(self, folder: str) -> None:
        """Check that data was binarised with this task's symbols, which the ids do not show.

        Raises:
            FileNotFoundError, ValueError: it was not, or its ``dict.txt`` is missing or cannot be read.
        """
        dictionary = _read_dictionary(folder)
        dictionary.add_symbol(MASK)
        if found := difference(self.dictionary.symbols, dictionary.symbols):
            raise ValueError(
                f"{folder}/dict.txt does not fit: the model was trained with {found}. Use data binarised with its "
                "dict.txt"
            )

    def _log(self, path: str, dataset: SentencePairDataset, documents: int, unknown: int) -> None:
        corpus, plan = dataset.corpus, dataset.plan
        tokens = int(corpus.content[-1])
        logger.info(
            f"{path}: {documents} documents, {corpus.num_sentences} sentences, {tokens} tokens, "
            f"{unknown} of them <unk> ({unknown / tokens:.2%}) and never a target"
        )
        logger.info(
            f"{path}: epoch {dataset.epoch} has {len(dataset)} samples of {dataset.sizes.mean():.1f} "
            f"tokens on average and {dataset.sizes.max()} at most; {plan.long_sentences} sentences "
            f"longer than a sample are cut into {plan.pieces}"
        )
        if self.cfg.pack_documents:
            logger.info(
                f"{path}: the samples are packed with {len(plan)} texts of {plan.lengths.mean():.1f} tokens on "
                f"average, and {dataset.sizes.mean() / self.cfg.tokens_per_sample:.1%} full"
            )
        if self.sentence_objective == "none":
            return
        pairs, ones = np.count_nonzero(plan.labels >= 0), np.count_nonzero(plan.labels == 1)
        meaning = "swapped" if self.sentence_objective == "sop" else "from another document"
        logger.info(
            f"{path}: {pairs} pairs, {ones / max(pairs, 1):.1%} of them {meaning}; for the masked "
            f"LM only, without a label: {plan.single_sentences} chunks of one sentence, "
            f"{plan.pieces} pieces of long sentences"
        )
        if pairs == 0:
            logger.warning(
                f"{path} has no sentence pairs: put one sentence on a line, raise "
                f"--tokens-per-sample {self.cfg.tokens_per_sample}, or train with "
                "--sentence-objective none"
            )

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Return the model.

        Raises:
            ValueError: the samples are longer than its positions, or are packed and it would read each as one text.
        """
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.pack_documents and "document_lengths" not in signature(model.encoder.forward).parameters:
            raise ValueError(
                f"--pack-documents with --arch {getattr(cfg, '_name', type(model).__name__)}: only a lambda_bert keeps "
                "packed documents apart (--lambda-layers none for attention layers); leave out --pack-documents"
            )
        if self.cfg.tokens_per_sample > model.max_positions():
            raise ValueError(
                f"--tokens-per-sample {self.cfg.tokens_per_sample} is above the model's "
                f"--max-positions {model.max_positions()}: lower the former or raise the latter"
            )
        return model

    def max_positions(self) -> int:
        """Return the largest number of tokens in a sample."""
        return self.cfg.tokens_per_sample


def _read_dictionary(folder: str) -> Dictionary:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no data folder {folder}: {REMEDY}")
    file = os.path.join(folder, "dict.txt")
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file} is missing: {REMEDY}")
    try:
        return Dictionary.load(file)
    except Exception as error:  # fairseq raises bare Exception, ValueError and RuntimeError
        raise ValueError(f"{file} is not a fairseq dictionary ({error}): {REMEDY}") from error


def _folders(cfg) -> list[str]:
    folders = utils.split_paths(cfg.data)
    if not all(folders):
        raise ValueError(f"data {cfg.data!r}: name a folder, or several joined by {os.pathsep!r}")
    return folders
