"""The warnings about a prepared corpus, and the reasons to refuse one."""

from fairseq_lambda.corpora.binarise import SplitCounts
from fairseq_lambda.corpora.documents import BLANK_LINES, DIVIDERS, HEADINGS, Layout
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.splitting import TRAIN

MAX_UNKNOWN_RATE = 0.001
MAX_UNKNOWN_RATE_OF_GIVEN = 0.05  # with --vocabulary-from, where a better vocabulary is not an option
_SHORT_DOCUMENTS = 2.5  # sentences per document: between blank lines there are probably paragraphs
# fewer sentences per paragraph than this: their ends were not recognised, or each line is a sentence
_FEW_SENTENCES = 1.05


def warnings_of(counts: dict[str, SplitCounts], headings: int, layout: Layout, language: str) -> list[str]:
    """Return warnings about the result, one line each; ``headings`` counts those of the train split."""
    warnings, train = [], counts[TRAIN]
    if train.sentences < _FEW_SENTENCES * train.paragraphs:
        warnings.append(
            f"{train.sentences / train.paragraphs:.2f} sentences per paragraph: if the text has more than one sentence "
            f"per line, their ends were not recognised (--language is {language}; Thai and Lao mark none)"
        )
    if layout.divider == BLANK_LINES and train.sentences < _SHORT_DOCUMENTS * train.documents:
        warnings.append(
            f"{train.sentences / train.documents:.1f} sentences per document: blank lines divide documents, so remove "
            "those between the paragraphs of a text, pass --documents files if each file is one text, or give JSON "
            "lines with one text each"
        )
    if headings and layout.divider != HEADINGS:
        warnings.append(f"{headings} lines such as `= Title =` in the train split are left out as headings")
    for split, split_counts in counts.items():
        rate = split_counts.encoder_unknowns / split_counts.tokens
        if rate > MAX_UNKNOWN_RATE:
            warnings.append(f"{rate:.2%} of the {split} split is unknown to the given vocabulary")
    return warnings


def refuse_nonsense(counts: dict[str, SplitCounts], divider: str, is_given: bool) -> None:
    """Check that the data can be trained on.

    Args:
        counts: of each split.
        divider: what divides the documents, one of ``DIVIDERS``, for the message.
        is_given: whether the vocabulary comes from another text.

    Raises:
        PrepareError: a split is empty, much of it is unknown to the vocabulary, or the train split is one document.
    """
    most = MAX_UNKNOWN_RATE_OF_GIVEN if is_given else MAX_UNKNOWN_RATE
    for split, split_counts in counts.items():
        if not split_counts.sentences:
            raise PrepareError(f"the {split} split contains no sentence")
        rate = split_counts.encoder_unknowns / split_counts.tokens
        if rate > most:
            remedy = (
                "pass --byte-fallback, or use a larger --vocab-size or splits of the same kind"
                if not is_given
                else "leave --vocabulary-from out to learn one from this text"
            )
            where = "the text of --vocabulary-from" if is_given else "the train split"
            raise PrepareError(
                f"{rate:.2%} of the {split} split is unknown to the vocabulary, more than "
                f"{most:.1%}: its characters are rare or absent in {where}; {remedy}"
            )
    if counts[TRAIN].documents < 2:
        raise PrepareError(f"the train split is a single document; it needs at least two ({DIVIDERS[divider]})")
