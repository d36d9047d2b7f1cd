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

from fairseq_lambda.corpora.documents import UNK_CHARACTER
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.symbols import MASK, UNK, WORD_START

SPECIALS = 5  # <unk> <s> </s> <pad> <mask>

_MAX_TRAINING_SENTENCES = 1_000_000
_MAX_TRAINING_BYTES = 4000  # the trainer silently drops lines over 4,192 bytes
# the result depends on the number of threads, so --workers must not set it
_TRAINING_THREADS = 4
# at most this share of the vocabulary is single characters: rare ones would displace useful pieces
_CHARACTER_SHARE = 0.125

_LITERAL_UNK = re.compile(rf"\s*{re.escape(UNK)}")


@dataclass(frozen=True)
class EncodedSentence:
    """The pieces of a sentence, with ``<unk>`` for text that has none, and the reasons for each ``<unk>``."""

    pieces: list[str]
    literal_unknowns: int  # <unk> written in the text, as in WikiText's .tokens files
    encoder_unknowns: int  # characters that the vocabulary lacks


def train_sentencepiece(read: Callable[[], Iterable[str]], vocab_size: int, model_path: Path) -> int:
    """Write a unigram SentencePiece model and return its size in pieces, special symbols included.

    The same sentences and size give the same file.

    Args:
        read: returns the sentences; called twice.
        vocab_size: the size, in pieces; the result is smaller if the text is too short for that many useful pieces.
        model_path: where the model is written.

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
    # in memory, because the trainer writes the path of an output file into the model
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=islice(_training_lines(read()), 0, None, -(-count // _MAX_TRAINING_SENTENCES)),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=_coverage(characters, vocab_size),
            byte_fallback=False,
            pad_id=3,
            control_symbols=[MASK],
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise _training_error(error, vocab_size) from None
    model_path.write_bytes(model.getvalue())
    size = len(sentencepiece.SentencePieceProcessor(model_file=str(model_path)))
    # the limit is soft, so that a text may fill a little less; less than half is a mistake
    if size < vocab_size // 2:
        raise _too_large(vocab_size, size)
    return size


def _too_large(vocab_size: int, largest: int) -> PrepareError:
    return PrepareError(
        f"a vocabulary of {vocab_size} is far too large for this text: the largest possible is "
        f"{largest}; pass --vocab-size {largest} or less, or use more text"
    )


def _training_error(error: Exception, vocab_size: int) -> PrepareError:
    message = " ".join(str(error).split())
    largest = re.search(r"value <= (\d+)", message)
    if largest:
        return _too_large(vocab_size, int(largest[1]))
    smallest = re.search(r"required_chars\D*\d+ vs (\d+)|smaller than required_chars", message)
    if smallest:
        return PrepareError(
            f"a vocabulary of {vocab_size} cannot hold the characters of this text; ask for a larger --vocab-size"
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


def _coverage(characters: Counter[str], vocab_size: int) -> float:
    kept = max(int(vocab_size * _CHARACTER_SHARE), 100)
    if len(characters) <= kept:
        return 1.0
    return sum(n for _, n in characters.most_common(kept)) / characters.total()


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
