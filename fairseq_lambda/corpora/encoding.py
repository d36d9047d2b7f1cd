"""From sentences to the pieces of a SentencePiece model; each literal ``<unk>`` becomes exactly one ``<unk>``."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import sentencepiece

from fairseq_lambda.corpora.documents import UNK_CHARACTER
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.symbols import UNK, WORD_START

_UNK_BYTES = [f"<0x{byte:02X}>" for byte in UNK_CHARACTER.encode()]


@dataclass(frozen=True)
class EncodedSentence:
    """The pieces of a sentence, with ``<unk>`` for text that has none, and why there are ``<unk>``."""

    pieces: list[str]
    literal_unknowns: int  # <unk> written in the text, as in WikiText's .tokens files
    encoder_unknowns: int  # characters that the vocabulary lacks


class PieceEncoder:
    """Encodes sentences as SentencePiece pieces.

    Args:
        model: a SentencePiece model: its path, or its content.

    Raises:
        OSError: the model is missing or cannot be read.
        PrepareError: it is not a model, or has a piece with white space, which fairseq would split.
    """

    def __init__(self, model: Path | bytes):
        content = model if isinstance(model, bytes) else model.read_bytes()
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            name = "it" if content is model else model
            raise PrepareError(f"{name} is not a SentencePiece model") from None
        self.pieces = [
            self.processor.id_to_piece(index)
            for index in range(len(self.processor))
            if not self.processor.is_control(index) and not self.processor.is_unknown(index)
        ]
        for piece in self.pieces:
            if piece.split() != [piece]:
                raise PrepareError(f"piece {piece!r} contains white space, which fairseq cannot store")
        self._known = frozenset(self.pieces)

    def encode(self, sentences: list[str]) -> list[EncodedSentence]:
        """Return one EncodedSentence per sentence; empty text gives no pieces."""
        # UNK_CHARACTER is in no training text, so it always becomes an unknown piece of its own, and the text on either
        # side is segmented as if a word were there.
        marked = [sentence.replace(UNK, UNK_CHARACTER) for sentence in sentences]
        return [self._mark_unknowns(pieces) for pieces in self.processor.encode(marked, out_type=str)]

    def encode_ids(self, sentences: list[str]) -> tuple[list[list[int]], int]:
        """Return the pieces of each sentence as the model's own numbers, and the number of literal ``<unk>``.

        The pieces are those of :meth:`encode`, without a Python string for each.
        """
        rows = self.processor.encode(sentences, out_type=int)
        literal = 0
        for index, sentence in enumerate(sentences):
            if UNK in sentence or UNK_CHARACTER in sentence:
                (encoded,) = self.encode([sentence])
                rows[index] = [self.processor.piece_to_id(piece) for piece in encoded.pieces]
                literal += encoded.literal_unknowns
        return rows, literal

    def _mark_unknowns(self, surfaces: list[str]) -> EncodedSentence:
        pieces: list[str] = []
        literal = unknown = 0
        for surface in surfaces:
            if surface == _UNK_BYTES[-1] and pieces[-2:] == _UNK_BYTES[:-1]:
                del pieces[-2:]  # byte fallback has spelt out UNK_CHARACTER
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


@dataclass
class EncodedLines:
    """A batch of lines as fairseq stores them, and its counts.

    ``tokens`` holds the ids of all lines, each with ``</s>`` at its end, and ``sizes`` the number of tokens in each
    line. A ``</s>`` on its own, of size 1, separates two documents. ``opens`` says whether an empty line comes before
    the first sentence, ``closes`` whether one comes after the last.
    """

    read: int  # bytes of text
    tokens: np.ndarray
    sizes: np.ndarray
    opens: bool
    closes: bool
    pieces: np.ndarray  # how often each piece occurs, by the model's number; including <unk>
    literal_unknowns: int


class LineEncoder:
    """What a worker does: it turns sentences, one per line with empty lines between documents, into EncodedLines.

    A sentence that is empty after normalisation is dropped, because its empty line would divide the document.

    Args:
        model: the content of a SentencePiece model.
        ids: (pieces + 1,), the number in fairseq's dictionary of each of the model's pieces; that of ``</s>`` is last.
    """

    def __init__(self, model: bytes, ids: np.ndarray):
        self.encoder, self.ids = PieceEncoder(model), ids

    def __call__(self, text: bytes) -> EncodedLines:
        lines = text.decode().removesuffix("\n").split("\n")
        rows, literal = self.encoder.encode_ids(lines)
        end = len(self.ids) - 1
        written: list[list[int]] = []
        opens = is_between = False
        for line, row in zip(lines, rows, strict=True):
            if not line:
                is_between = True
            if not row:
                continue
            if is_between and written:
                written.append([end])
            opens = opens or (is_between and not written)
            is_between = False
            row.append(end)
            written.append(row)
        sizes = np.fromiter(map(len, written), dtype=np.int32, count=len(written))
        numbers = np.fromiter(chain.from_iterable(written), dtype=np.int32, count=int(sizes.sum()))
        pieces = np.bincount(numbers, minlength=end + 1)[:end]
        return EncodedLines(len(text), self.ids[numbers], sizes, opens, is_between, pieces, literal)
