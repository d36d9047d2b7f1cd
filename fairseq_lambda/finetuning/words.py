"""Words as pieces: the first piece of a word carries its label."""

import re
from collections.abc import Callable

WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Return the words of a text, each mark of punctuation by itself."""
    return WORD.findall(text)


def word_pieces(words: list[str], encode: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """Return the pieces of all words and, for each word, where it starts among them.

    Each word is encoded by itself, so that its first piece starts a word whatever stands before it.

    Args:
        encode: returns the ids of a word's pieces, at least one (``<unk>``).
    """
    pieces, starts = [], []
    for word in words:
        starts.append(len(pieces))
        pieces += encode(word)
    return pieces, starts
