"""Symbols with a special meaning, and the comparison of two dictionaries."""

from collections.abc import Sequence

MASK = "<mask>"
UNK = "<unk>"
WORD_START = "\u2581"  # how SentencePiece marks a piece that starts a word


def difference(theirs: Sequence[str], ours: Sequence[str]) -> str | None:
    """Return how a checkpoint's symbols (``theirs``) differ from the data's (``ours``), or None if they are equal.

    The text names both sizes and the first index at which they differ, with both symbols. It continues a sentence such
    as "the checkpoint was trained with another dictionary: ".
    """
    if list(theirs) == list(ours):
        return None
    shorter = min(len(theirs), len(ours))
    at = next((i for i in range(shorter) if theirs[i] != ours[i]), shorter)
    theirs_at, ours_at = (repr(symbols[at]) if at < len(symbols) else "nothing" for symbols in (theirs, ours))
    return (
        f"{len(theirs)} symbols, and the data has {len(ours)}; the first difference is at {at}, where it has "
        f"{theirs_at} and the data {ours_at}"
    )
