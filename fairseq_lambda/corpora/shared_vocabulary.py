"""The vocabulary to binarise with: a SentencePiece model and the order of its pieces in dict.txt, learned or given.

A given one comes from a prepared folder, an exported model, or anything else that the caller can read.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary

from fairseq_lambda.corpora.characters import CharacterPlan
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.symbols import MASK

MODEL, DICTIONARY = "sentencepiece.model", "dict.txt"


@dataclass(frozen=True)
class Vocabulary:
    """The content of a SentencePiece model, and its pieces in the order of dict.txt."""

    model: bytes
    symbols: tuple[str, ...]

    @classmethod
    def learned(cls, model: bytes) -> "Vocabulary":
        """Return the vocabulary of a new model: its pieces in its own order."""
        return cls(model, tuple(PieceEncoder(model).pieces))

    @classmethod
    def given(cls, model: bytes, symbols: Iterable[str], origin: str | Path) -> "Vocabulary":
        """Return the vocabulary of a data folder or of a trained model.

        Args:
            model: the content of its SentencePiece model.
            symbols: all symbols of its dictionary, with or without fairseq's own and ``<mask>``.
            origin: where they come from, for messages.

        Raises:
            PrepareError: the dictionary lacks pieces of the model.
        """
        special = {*Dictionary().symbols, MASK}
        symbols = tuple(symbol for symbol in symbols if symbol not in special)
        try:
            missing = sorted(set(PieceEncoder(model).pieces).difference(symbols))
        except PrepareError as error:
            raise PrepareError(f"--vocabulary-from {origin}: its {MODEL}: {error}") from None
        if missing:
            raise PrepareError(
                f"--vocabulary-from {origin}: its dictionary lacks {len(missing)} pieces of its {MODEL}, such as "
                f"{missing[0]!r}: the two do not belong together"
            )
        return cls(model, symbols)

    @cached_property
    def _encoder(self) -> PieceEncoder:
        return PieceEncoder(self.model)

    @property
    def size(self) -> int:
        """The number of the model's pieces, including special symbols."""
        return len(self._encoder.processor)

    @property
    def digest(self) -> str:
        """A SHA-256 that identifies the vocabulary."""
        return hashlib.sha256(self.model + "\n".join(self.symbols).encode()).hexdigest()

    def dictionary(self, counts: Counter[str] | None = None) -> Dictionary:
        """Return fairseq's dictionary of the symbols, with how often each occurs."""
        dictionary = Dictionary()
        for symbol in self.symbols:
            dictionary.add_symbol(symbol, n=(counts or {}).get(symbol, 0))
        return dictionary

    def names(self) -> list[str | None]:
        """Return the piece for each of the model's numbers; None for unknown text and for control symbols."""
        processor, known = self._encoder.processor, frozenset(self._encoder.pieces)
        pieces = map(processor.id_to_piece, range(len(processor)))
        return [piece if piece in known else None for piece in pieces]

    def ids(self) -> np.ndarray:
        """Return (pieces + 1,): the dictionary's number for each of the model's, and that of ``</s>`` at the end."""
        dictionary = self.dictionary()
        numbers = [dictionary.unk() if name is None else dictionary.index(name) for name in self.names()]
        return np.array([*numbers, dictionary.eos()], dtype=np.int32)

    def characters(self, found: Counter[str]) -> CharacterPlan:
        """Return which characters of a text are pieces by themselves, and how the others are written."""
        processor = self._encoder.processor
        kept = frozenset(piece for piece in self._encoder.pieces if len(piece) == 1)
        covered = sum(count for character, count in found.items() if character in kept or character == " ")
        has_bytes = any(map(processor.is_byte, range(len(processor))))
        return CharacterPlan(kept, covered / max(found.total(), 1), has_bytes, "")


def read_vocabulary(origin: Path, read_other: Callable[[Path], Vocabulary] | None = None) -> Vocabulary:
    """Return the vocabulary of ``origin``.

    Args:
        origin: a folder with dict.txt and sentencepiece.model, or anything that ``read_other`` reads.
        read_other: reads the vocabulary of a training folder or a checkpoint.

    Raises:
        PrepareError: there is no vocabulary, or it cannot be used.
    """
    files = [origin / name for name in (MODEL, DICTIONARY)]
    if all(file.is_file() for file in files) and (read_other is None or not (origin / "config.json").is_file()):
        try:
            symbols = Dictionary.load(str(files[1])).symbols
        except Exception as error:  # fairseq raises bare Exception, ValueError and RuntimeError
            raise PrepareError(f"{files[1]} is not a fairseq dictionary: {error}") from None
        return Vocabulary.given(files[0].read_bytes(), symbols, origin)
    if read_other is None:
        raise PrepareError(f"--vocabulary-from {origin}: not a folder with {MODEL} and {DICTIONARY}")
    return read_other(origin)
