"""The vocabulary: a SentencePiece model learned from a text, or from evenly spaced sentences of a long one.

Each row of the model's embedding belongs to one symbol. To SentencePiece, ``<unk> <s> </s> <pad> <mask>`` are unknown
and control pieces, which no text can produce. They are not in dict.txt, because fairseq puts its own four first and the
task adds ``<mask>`` at the end. So a vocabulary of 8,000 pieces gives a dictionary of exactly 8,000 symbols.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sentencepiece

from fairseq_lambda.corpora.characters import CharacterPlan
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.training_text import TextStatistics, training_lines
from fairseq_lambda.symbols import MASK

SPECIALS = 5  # <unk> <s> </s> <pad> <mask>

# the trainer keeps its text in memory, some 20 bytes per character
_MAX_LINES, _MAX_CHARACTERS = 1_000_000, 32_000_000
# the result depends on the number of threads, so --workers must not set it
_TRAINING_THREADS = 4
_MIN_COVERAGE = 0.98  # the lowest that the trainer accepts


@dataclass(frozen=True)
class Lesson:
    """What to learn from: every ``step``-th sentence of a file, the number of pieces, and the characters to keep."""

    sentences: Path
    step: int
    vocab_size: int
    plan: CharacterPlan


def sampling_step(statistics: TextStatistics) -> int:
    """Return n such that every n-th sentence of a text is enough to learn a vocabulary."""
    lines, characters = statistics.lines, statistics.characters.total()
    return max(-(-lines // _MAX_LINES), -(-characters // _MAX_CHARACTERS), 1)


def learner():
    """Return :func:`learn`: workers need a factory."""
    return learn


def learn(lesson: Lesson) -> bytes:
    """Return a unigram SentencePiece model. The same lesson gives the same bytes.

    It has fewer pieces than requested if the text is too short for that many useful ones.

    Raises:
        PrepareError: the size is too small for the text's characters, or too large for the text.
    """
    model, limit = _train(lesson, lesson.vocab_size)
    if limit is not None:  # the trainer's limit for this text, which it may not reach
        model, _ = _train(lesson, limit)
    size = len(sentencepiece.SentencePieceProcessor(model_proto=model))
    # the limit is soft, so a text may give a few pieces fewer; less than half is a mistake
    if size < lesson.vocab_size // 2:
        raise _too_large(lesson.vocab_size, size)
    return model


def _train(lesson: Lesson, vocab_size: int) -> tuple[bytes | None, int | None]:
    """Return the model, or the largest ``vocab_size`` that the trainer takes."""
    plan = lesson.plan
    lines = training_lines(_sample(lesson.sentences, lesson.step))
    # the trainer refuses a low coverage, so the other characters are removed from its text instead
    drops = plan.coverage < _MIN_COVERAGE
    if drops:
        lines = ("".join(c if c in plan.kept else " " for c in line).strip() for line in lines)
    # in memory, because the trainer writes the path of an output file into the model
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0 if drops else plan.coverage,
            byte_fallback=plan.byte_fallback,
            normalization_rule_name=plan.normalisation,
            pad_id=3,
            control_symbols=[MASK],
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        message = " ".join(str(error).split())
        if (largest := re.search(r"value <= (\d+)", message)) and int(largest[1]) < vocab_size:
            return None, int(largest[1])
        raise _training_error(message, vocab_size, plan.byte_fallback) from None
    return model.getvalue(), None


def check_size(vocab_size: int) -> None:
    """Check that there is room for pieces besides the special symbols.

    Raises:
        PrepareError: there is none.
    """
    if vocab_size <= SPECIALS:
        raise PrepareError(
            f"a vocabulary of {vocab_size} is too small: {SPECIALS} of its pieces are "
            "special symbols; ask for a larger --vocab-size"
        )


def _sample(path: Path, step: int) -> Iterator[str]:
    with path.open("rb") as file:
        sentences = (line for line in file if line != b"\n")
        yield from (line.decode() for line in islice(sentences, 0, None, step))


def _too_large(vocab_size: int, largest: int) -> PrepareError:
    return PrepareError(
        f"a vocabulary of {vocab_size} is far too large for this text: the largest possible is "
        f"{largest}; pass --vocab-size {largest} or less, use more text, or take a model's by --vocabulary-from"
    )


def _training_error(message: str, vocab_size: int, byte_fallback: bool) -> PrepareError:
    smallest = re.search(r"required_chars\D*\d+ vs (\d+)|smaller than required_chars", message)
    if smallest:
        bytes_too = ", and 256 bytes" if byte_fallback else ""
        return PrepareError(
            f"a vocabulary of {vocab_size} cannot hold the characters of this text{bytes_too}; "
            "ask for a larger --vocab-size or a smaller --character-coverage"
        )
    return PrepareError(f"SentencePiece could not learn a vocabulary of {vocab_size}: {message}")
