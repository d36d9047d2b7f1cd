"""The vocabulary: a SentencePiece model, fairseq's dict.txt made from it, and encoding with both.

Every row of the model's embedding has one owner. SentencePiece knows ``<unk> <s> </s> <pad>
<mask>`` as unknown and control pieces, which no text can produce; they stay out of dict.txt,
because fairseq puts its four in front and the task puts ``<mask>`` at the end. A vocabulary of
8,000 pieces is therefore a dictionary of exactly 8,000 symbols.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from fairseq_lambda.corpora.documents import UNK_CHARACTER
from fairseq_lambda.corpora.errors import PrepareError

UNK = "<unk>"
MASK = "<mask>"
SPECIALS = 5  # <unk> <s> </s> <pad> <mask>

_MAX_TRAINING_SENTENCES = 1_000_000
_MAX_TRAINING_BYTES = 4000  # the trainer silently drops lines over 4,192 bytes
# The result depends on the number of threads: fixed, so that --workers cannot change a vocabulary.
_TRAINING_THREADS = 4
# Rare characters would take the place of useful pieces: at most this share of the vocabulary.
_CHARACTER_SHARE = 0.125

_LITERAL_UNK = re.compile(rf"\s*{re.escape(UNK)}")


@dataclass(frozen=True)
class EncodedSentence:
    """Pieces of one sentence, ``<unk>`` for what has none, and how those came about."""

    pieces: list[str]
    literal_unknowns: int  # <unk> written in the text, as in WikiText's .tokens files
    encoder_unknowns: int  # characters that the vocabulary lacks


def train_sentencepiece(sentences: Iterable[str], vocab_size: int, model_path: Path) -> int:
    """Write a unigram SentencePiece model and return its size in pieces, specials included.

    The size is vocab_size, or less where the text is too small to fill that many pieces usefully.
    The same sentences and size give the same file. ``sentences`` is gone through twice.

    Raises PrepareError if the size cannot hold the text's characters or exceeds what it offers.
    """
    if vocab_size <= SPECIALS:
        raise PrepareError(
            f"a vocabulary of {vocab_size} is too small: it holds {SPECIALS} special symbols "
            "already; ask for a larger --vocab-size"
        )
    characters: Counter[str] = Counter()
    count = 0
    for line in _training_lines(sentences):
        characters.update(line)
        count += 1
    if not count:
        raise PrepareError("the train split has no text to learn a vocabulary from")
    # Through memory: the trainer would write the path of its output into the model, and the same
    # text would give another file in another folder.
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_every(_training_lines(sentences), -(-count // _MAX_TRAINING_SENTENCES)),
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
    # The soft limit forgives a text that fills a little less; half empty is a mistake.
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
        # A literal <unk> goes together with the space before it, so that `of <unk> , the` teaches
        # the trainer `of, the` and not a comma at the start of a word.
        text = _LITERAL_UNK.sub("", sentence).strip()
        if len(text.encode()) <= _MAX_TRAINING_BYTES:
            if text:
                yield text
            continue
        width = _MAX_TRAINING_BYTES // 4  # no character takes more than four bytes
        yield from filter(None, (text[i : i + width].strip() for i in range(0, len(text), width)))


def _every(lines: Iterator[str], step: int) -> Iterator[str]:
    return (line for number, line in enumerate(lines) if number % step == 0)


def _coverage(characters: Counter[str], vocab_size: int) -> float:
    kept = max(int(vocab_size * _CHARACTER_SHARE), 100)
    if len(characters) <= kept:
        return 1.0
    return sum(n for _, n in characters.most_common(kept)) / characters.total()


class PieceEncoder:
    """Sentences to SentencePiece pieces, a literal ``<unk>`` to exactly one ``<unk>``."""

    def __init__(self, model_path: Path):
        """Load the model; OSError if it is missing or no SentencePiece model."""
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
        self.pieces = [
            self.processor.id_to_piece(index)
            for index in range(len(self.processor))
            if not self.processor.is_control(index) and not self.processor.is_unknown(index)
        ]
        self._known = frozenset(self.pieces)

    def encode(self, sentences: list[str], threads: int = 1) -> list[EncodedSentence]:
        """Return one EncodedSentence for each sentence; empty text gives no pieces."""
        # No training text holds UNK_CHARACTER: it always comes out as an unknown piece of its own,
        # and the text right and left of it is segmented as if a word stood there.
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
            if marks and pieces and pieces[-1] == "▁":
                pieces.pop()  # the space before a literal <unk> is no token
            literal += marks
            unknown += 0 if marks else 1
            pieces.extend([UNK] * max(marks, 1))
        return EncodedSentence(pieces, literal, unknown)

    def write_dictionary(self, counts: Counter[str], path: Path) -> None:
        """Write fairseq's dict.txt: ``piece count`` lines in the model's order, specials left out.

        Raises PrepareError for a piece that fairseq's reader would split or drop.
        """
        lines = []
        for piece in self.pieces:
            if piece.split() != [piece]:
                raise PrepareError(f"piece {piece!r} holds white space, which fairseq cannot store")
            lines.append(f"{piece} {counts[piece]}\n")
        path.write_text("".join(lines), encoding="utf-8")
