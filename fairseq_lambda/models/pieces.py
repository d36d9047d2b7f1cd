"""Text to pieces of a SentencePiece vocabulary and back, with ``<mask>`` and ``<unk>`` kept in place."""

import itertools
import re
import unicodedata

import sentencepiece
from fairseq.data import Dictionary

from fairseq_lambda.symbols import MASK, UNK, WORD_START

SYMBOLS = (MASK, UNK)
NO_PIECE = "\U0010fffd"  # private use
STRAIGHT_QUOTES = "\"'"
OPENING = ("Ps", "Pi")  # Unicode's categories of opening brackets and quotes


class SentencePieceEncoder:
    """Text to space-joined pieces and back; what fairseq calls a bpe.

    Without symbols, ``decode(encode(text))`` is SentencePiece's own round trip. Pieces do not show whether there is a
    space before a symbol (or after it, if the vocabulary has its spaces after the words). ``decode`` writes one, except
    after brackets, quotes and hyphens that open towards the symbol, as in ``(<mask>)`` and ``pre-<mask>``.

    Args:
        model: a SentencePiece model, serialised.
        dictionary: fairseq's.
    """

    def __init__(self, model: bytes, dictionary: Dictionary):
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.dictionary = dictionary
        self.space_behind = not self.processor.encode("a", out_type=str)[0].startswith(WORD_START)

    def encode(self, text: str) -> str:
        """Return the pieces of ``text``, joined by spaces.

        Any Unicode white space counts as a space, since fairseq splits pieces there; a lone surrogate becomes a "?".
        """
        pieces = []
        spans = re.split(f"({MASK}|{UNK})", re.sub(r"\s", " ", text).encode("utf-8", "replace").decode())
        for index, span in enumerate(spans):
            if span in SYMBOLS:
                pieces.append(span)
            elif span.strip():
                before = not self.space_behind and index and not span[0].isspace()
                behind = self.space_behind and index < len(spans) - 1 and not span[-1].isspace()
                new = self._beside_symbol(span, before) if before or behind else self._pieces(span)
                pieces.extend(new)
        return " ".join(pieces)

    def _pieces(self, text: str) -> list[str]:
        return self.processor.encode(text, out_type=str)

    def _beside_symbol(self, text: str, before: bool) -> list[str]:
        """Return the pieces of ``text`` beside a symbol, without a space: after it if ``before``, else before it.

        Encoded alone, the text would get a space there. So a character that no piece contains stands in for the symbol,
        as it does for a literal ``<unk>`` in training data.
        """
        pieces = self._pieces(NO_PIECE + text if before else text + NO_PIECE)
        in_bytes = [f"<0x{byte:02X}>" for byte in NO_PIECE.encode()]
        length = len(in_bytes)
        if before:
            pieces = pieces[pieces[0] == WORD_START :]
            if pieces[:length] == in_bytes:
                return pieces[length:]
            return [piece for piece in (pieces[0].lstrip(WORD_START).removeprefix(NO_PIECE), *pieces[1:]) if piece]
        pieces = pieces[: len(pieces) - (pieces[-1] == WORD_START)]
        if pieces[-length:] == in_bytes:
            return pieces[:-length]
        return [piece for piece in (*pieces[:-1], pieces[-1].rstrip(WORD_START).removesuffix(NO_PIECE)) if piece]

    def decode(self, pieces: str) -> str:
        """Return the text of pieces that are joined by spaces."""
        text, last = "", ""
        for is_symbol, group in itertools.groupby(pieces.split(), lambda piece: piece in SYMBOLS):
            run, text = list(group), text.rstrip(" ")
            for part in run if is_symbol else [self.processor.decode_pieces(run)]:
                if text and part:
                    between = self._before_symbol(text, last) if is_symbol else self._behind_symbol(run[0], part)
                    text += " " if between else ""
                text, last = text + part, run[-1]
        return text

    def _before_symbol(self, text: str, last: str) -> bool:
        """Return whether a space stands between ``text``, whose last piece is ``last``, and a symbol."""
        if self.space_behind and last not in SYMBOLS:
            return last.endswith(WORD_START)
        return not _opens(text)

    def _behind_symbol(self, first: str, words: str) -> bool:
        """Return whether a space stands between a symbol and ``words``, whose first piece is ``first``."""
        if self.space_behind:
            return words[:1].isalnum() or (bool(words) and unicodedata.category(words[0]) in OPENING)
        return first.startswith(WORD_START)


def _opens(text: str) -> bool:
    """Return whether what follows ``text`` joins it without a space."""
    last, before = text[-1], text[-2:-1]
    starts_word = not before or before.isspace()
    if last in STRAIGHT_QUOTES:
        return starts_word
    if unicodedata.category(last) == "Pd" or last == "/":
        return not starts_word
    return unicodedata.category(last) in (*OPENING, "Sc") or last in "<#@"
