"""The vocabulary: a SentencePiece model, the dict.txt for fairseq made from it, and encoding with both.

Each row of the model's embedding belongs to one symbol. To SentencePiece, ``<unk> <s> </s> <pad> <mask>`` are unknown
and control pieces, which no text can produce. They are not in dict.txt, because fairseq puts its own four first and the
task adds ``<mask>`` at the end. So a vocabulary of 8,000 pieces gives a dictionary of exactly 8,000 symbols.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sentencepiece
from fairseq.data import Dictionary

from fairseq_lambda.corpora.characters import CharacterPlan, plan_characters
from fairseq_lambda.corpora.documents import UNK_CHARACTER
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.symbols import MASK, UNK, WORD_START

SPECIALS = 5  # <unk> <s> </s> <pad> <mask>

_MAX_TRAINING_SENTENCES = 1_000_000
_MAX_TRAINING_BYTES = 4000  # the trainer silently drops lines over 4,192 bytes
# the result depends on the number of threads, so --workers must not set it
_TRAINING_THREADS = 4
_MIN_COVERAGE = 0.98  # that the trainer accepts
_UNK_BYTES = [f"<0x{byte:02X}>" for byte in UNK_CHARACTER.encode()]

_LITERAL_UNK = re.compile(rf"\s*{re.escape(UNK)}")


@dataclass(frozen=True)
class EncodedSentence:
    """The pieces of a sentence, with ``<unk>`` for text that has none, and the reasons for each ``<unk>``."""

    pieces: list[str]
    literal_unknowns: int  # <unk> written in the text, as in WikiText's .tokens files
    encoder_unknowns: int  # characters that the vocabulary lacks


def train_sentencepiece(
    read: Callable[[], Iterable[str]],
    vocab_size: int,
    model_path: Path,
    coverage: float | None = None,
    byte_fallback: bool | None = None,
) -> tuple[int, CharacterPlan]:
    """Write a unigram SentencePiece model; return its size in pieces, special symbols included, and its characters.

    The same sentences and options give the same file.

    Args:
        read: returns the sentences; called twice.
        vocab_size: the size, in pieces; the result is smaller if the text is too short for that many useful pieces.
        model_path: where the model is written.
        coverage: the share of the text, 0 to 1, whose characters are pieces; by default what suits the text.
        byte_fallback: whether other characters are written as bytes and not as ``<unk>``; by default by the text.

    Raises:
        PrepareError: the size is too small for the text's characters, or too large for the text.
    """
    if vocab_size <= SPECIALS:
        raise PrepareError(
            f"a vocabulary of {vocab_size} is too small: {SPECIALS} of its pieces are "
            "special symbols; ask for a larger --vocab-size"
        )
    characters: Counter[str] = Counter()
    count = 0
    for line in _training_lines(read()):
        characters.update(line)
        count += 1
    if not count:
        raise PrepareError("the train split has no text to learn a vocabulary from")
    plan = plan_characters(characters, vocab_size, coverage, byte_fallback)
    # the trainer cannot be asked for a small coverage, but does not count what is not in its text
    dropped = dict.fromkeys(map(ord, characters.keys() - plan.kept), " ") if plan.coverage < _MIN_COVERAGE else {}
    lines = (
        (line.translate(dropped).strip() for line in _training_lines(read())) if dropped else _training_lines(read())
    )
    # in memory, because the trainer writes the path of an output file into the model
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=islice(lines, 0, None, -(-count // _MAX_TRAINING_SENTENCES)),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0 if dropped else plan.coverage,
            byte_fallback=plan.byte_fallback,
            normalization_rule_name=plan.normalisation,
            pad_id=3,
            control_symbols=[MASK],
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _training_error(error, vocab_size, plan.byte_fallback) from None
    model_path.write_bytes(model.getvalue())
    size = len(sentencepiece.SentencePieceProcessor(model_file=str(model_path)))
    # the limit is soft, so that a text may fill a little less; less than half is a mistake
    if size < vocab_size // 2:
        raise _too_large(vocab_size, size)
    return size, plan


def _too_large(vocab_size: int, largest: int) -> PrepareError:
    return PrepareError(
        f"a vocabulary of {vocab_size} is far too large for this text: the largest possible is "
        f"{largest}; pass --vocab-size {largest} or less, or use more text"
    )


def _training_error(error: Exception, vocab_size: int, byte_fallback: bool) -> PrepareError:
    message = " ".join(str(error).split())
    largest = re.search(r"value <= (\d+)", message)
    if largest:
        return _too_large(vocab_size, int(largest[1]))
    smallest = re.search(r"required_chars\D*\d+ vs (\d+)|smaller than required_chars", message)
    if smallest:
        bytes_too = ", and 256 bytes" if byte_fallback else ""
        return PrepareError(
            f"a vocabulary of {vocab_size} cannot hold the characters of this text{bytes_too}; "
            "ask for a larger --vocab-size or a smaller --character-coverage"
        )
    return PrepareError(f"SentencePiece could not learn a vocabulary of {vocab_size}: {message}")


def _training_lines(sentences: Iterable[str]) -> Iterator[str]:
    for sentence in sentences:
        # A literal <unk> is removed with the space before it, so that the trainer sees `of, the` for `of <unk>, the`
        # and not a comma at the start of a word.
        text = _LITERAL_UNK.sub("", sentence).strip()
        if len(text.encode()) <= _MAX_TRAINING_BYTES:
            if text:
                yield text
            continue
        width = _MAX_TRAINING_BYTES // 4  # no character takes more than four bytes
        yield from filter(None, (text[i : i + width].strip() for i in range(0, len(text), width)))


class PieceEncoder:
    """Sentences to SentencePiece pieces, each literal ``<unk>`` to exactly one ``<unk>``.

    Args:
        model_path: a SentencePiece model.

    Raises:
        OSError: the model is missing or cannot be read.
        PrepareError: it has a piece with white space, which fairseq would split.
    """

    def __init__(self, model_path: Path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        self.pieces = [
            self.processor.id_to_piece(index)
            for index in range(len(self.processor))
            if not self.processor.is_control(index) and not self.processor.is_unknown(index)
        ]
        for piece in self.pieces:
            if piece.split() != [piece]:
                raise PrepareError(f"piece {piece!r} contains white space, which fairseq cannot store")
        self._known = frozenset(self.pieces)

    def encode(self, sentences: list[str], threads: int = 1) -> list[EncodedSentence]:
        """Return one EncodedSentence per sentence; empty text gives no pieces."""
        # UNK_CHARACTER is in no training text, so it always becomes an unknown piece of its own, and the text on either
        # side is segmented as if a word stood there.
        marked = [sentence.replace(UNK, UNK_CHARACTER) for sentence in sentences]
        encoded = self.processor.encode(marked, out_type=str, num_threads=threads)
        return [self._mark_unknowns(pieces) for pieces in encoded]

    def _mark_unknowns(self, surfaces: list[str]) -> EncodedSentence:
        pieces: list[str] = []
        literal = unknown = 0
        for surface in surfaces:
            if surface == _UNK_BYTES[-1] and pieces[-2:] == _UNK_BYTES[:-1]:
                del pieces[-2:]  # byte fallback has spelt UNK_CHARACTER
                surface = UNK_CHARACTER
            if surface in self._known:
                pieces.append(surface)
                continue
            marks = surface.count(UNK_CHARACTER)
            if marks and pieces and pieces[-1] == WORD_START:
                pieces.pop()  # the space before a literal <unk> is not a token
            literal += marks
            unknown += 0 if marks else 1
            pieces.extend([UNK] * max(marks, 1))
        return EncodedSentence(pieces, literal, unknown)

    def dictionary(self, counts: Counter[str]) -> Dictionary:
        """Return fairseq's dictionary of the pieces, in the model's order, with how often each occurs."""
        dictionary = Dictionary()
        for piece in self.pieces:
            dictionary.add_symbol(piece, n=counts[piece])
        return dictionary
