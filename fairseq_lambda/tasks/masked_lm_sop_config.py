"""Options of the task ``masked_lm_sop``."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, MISSING

from fairseq_lambda.data.pairs import OBJECTIVES


@dataclass
class MaskedLMSOPConfig(FairseqDataclass):
    data: str = field(
        default=MISSING,
        metadata={
            "help": "folder with dict.txt and binarised splits, or several joined by colons, one per epoch in turn"
        },
    )
    sentence_objective: ChoiceEnum(list(OBJECTIVES)) = field(
        default="sop",
        metadata={
            "help": "what to predict about two parts of text: sop: whether they are in order or swapped; nsp: whether "
            "the second follows the first or comes from another document; none: masked LM only, on one part"
        },
    )
    tokens_per_sample: int = field(
        default=512, metadata={"help": "maximum length of a sample in tokens, special symbols included"}
    )
    mask_prob: float = field(default=0.15, metadata={"help": "share of the tokens that are masked and predicted"})
    leave_unmasked_prob: float = field(
        default=0.1, metadata={"help": "of those tokens, the share that is left unchanged"}
    )
    random_token_prob: float = field(
        default=0.1, metadata={"help": "of those tokens, the share that is replaced by a random one"}
    )
    mask_whole_words: bool = field(
        default=False, metadata={"help": "mask all pieces of a word or none; needs SentencePiece"}
    )
    short_sample_prob: float = field(
        default=0.0, metadata={"help": "share of the samples that are filled only up to a random shorter length"}
    )
    pack_documents: bool = field(
        default=False,
        metadata={
            "help": "fill each sample with several documents, which do not see each other; for long samples; needs "
            "--sentence-objective none"
        },
    )
    # read by fairseq, whose own default is True
    persistent_workers: bool = field(
        default=False,
        metadata={
            "help": "keep the data loader's workers alive after each pass, although each epoch of training starts new "
            "ones"
        },
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    required_seq_len_multiple: int = II("dataset.required_seq_len_multiple")


def check_options(cfg: MaskedLMSOPConfig) -> None:
    """Raise ValueError for an option out of its range, naming flag, value and remedy."""
    if str(cfg.sentence_objective) not in OBJECTIVES:
        raise ValueError(f"--sentence-objective {cfg.sentence_objective}: choose one of {', '.join(OBJECTIVES)}")
    if cfg.pack_documents and str(cfg.sentence_objective) != "none":
        raise ValueError(
            f"--pack-documents with --sentence-objective {cfg.sentence_objective}: packed documents are for the masked "
            "LM alone; add --sentence-objective none, or leave out --pack-documents"
        )
    if cfg.pack_documents and cfg.short_sample_prob > 0:
        raise ValueError(
            f"--pack-documents with --short-sample-prob {cfg.short_sample_prob}: packed samples are filled; leave out "
            "one of the two"
        )
    if cfg.tokens_per_sample < 8:
        raise ValueError(f"--tokens-per-sample {cfg.tokens_per_sample}: must be at least 8")
    if cfg.required_seq_len_multiple < 1:
        raise ValueError(f"--required-seq-len-multiple {cfg.required_seq_len_multiple}: must be at least 1")
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
            f"--leave-unmasked-prob {cfg.leave_unmasked_prob} and --random-token-prob "
            f"{cfg.random_token_prob}: their sum is above 1; lower one of them"
        )
