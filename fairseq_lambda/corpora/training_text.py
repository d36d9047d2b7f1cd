"""What the vocabulary is learned from: a text's lines as the trainer takes them, their number, and their characters."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fairseq_lambda.symbols import UNK

_MAX_BYTES = 4000  # SentencePiece's trainer silently drops lines over 4,192 bytes
_LITERAL_UNK = re.compile(rf"\s*{re.escape(UNK)}")


@dataclass
class TextStatistics:
    """How many lines a text has for the trainer, and how often each character occurs in them."""

    lines: int = 0
    characters: Counter[str] = field(default_factory=Counter)

    def add(self, sentences: Iterable[str]) -> None:
        """Count further sentences."""
        lines = list(training_lines(sentences))
        self.lines += len(lines)
        self.characters.update("".join(lines))

    def merge(self, other: "TextStatistics") -> None:
        """Add the counts of the text that follows; of equally frequent characters, the one seen first ranks higher."""
        self.lines += other.lines
        self.characters.update(other.characters)


def training_lines(sentences: Iterable[str]) -> Iterator[str]:
    """Yield the sentences without literal ``<unk>``; long ones are split, empty ones are dropped."""
    for sentence in sentences:
        # A literal <unk> is removed with the space before it, so that the trainer sees `of, the` for `of <unk>, the`
        # and not a comma at the start of a word.
        text = _LITERAL_UNK.sub("", sentence).strip() if UNK in sentence else sentence.strip()
        if len(text) <= _MAX_BYTES // 4 or len(text.encode()) <= _MAX_BYTES:
            if text:
                yield text
            continue
        width = _MAX_BYTES // 4  # no character takes more than four bytes
        yield from filter(None, (text[i : i + width].strip() for i in range(0, len(text), width)))
