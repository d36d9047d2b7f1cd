"""Which characters of a text become pieces of a vocabulary, and what becomes of the others."""

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

# Single characters take this share of the vocabulary, because rare ones would displace useful pieces; for a text that
# needs more of them, such as Chinese, up to half of it.
_SHARE, _MAX_SHARE = 0.125, 0.5
_MIN_CHARACTERS = 100
# the share of a text that may be in other characters: with four characters a piece, below prepare.MAX_UNKNOWN_RATE
_LEFT_OUT = 0.0002
_BYTES = 256  # pieces of a vocabulary with byte fallback; by default at most an eighth of it
_NON_JOINER = "\u200c"


@dataclass(frozen=True)
class CharacterPlan:
    """Which characters become pieces.

    ``coverage`` is their share of the text. ``byte_fallback`` says whether the others are written as the bytes of
    UTF-8, ``<0xE6>`` and so on, or are unknown. ``normalisation`` is the name of SentencePiece's rule.
    """

    kept: frozenset[str]
    coverage: float
    byte_fallback: bool
    normalisation: str


def plan_characters(
    characters: Counter[str], vocab_size: int, coverage: float | None = None, byte_fallback: bool | None = None
) -> CharacterPlan:
    """Return which characters of a text become pieces.

    Args:
        characters: how often each occurs in the text.
        vocab_size: the size of the vocabulary, in pieces.
        coverage: the share of the text, 0 to 1, that they make up at least. By default an eighth of the vocabulary is
            for characters, and up to half of it as long as more than 0.02 % of the text is in other characters.
        byte_fallback: by default, bytes are taken for a vocabulary of at least 2,048 pieces if more than 0.02 % of a
            further text is likely to be in other characters (by the number of those that occur once: Good and Turing).
    """
    total = characters.total()
    ranked = characters.most_common()
    covered = [0, *accumulate(count for _, count in ranked)]
    if coverage is None:
        least = max(int(vocab_size * _SHARE), _MIN_CHARACTERS)
        most, wanted = max(int(vocab_size * _MAX_SHARE), least), (1 - _LEFT_OUT) * total
    else:
        least, most, wanted = 0, len(ranked), coverage * total
    number = next(
        n for n in range(len(ranked) + 1) if n >= min(most, len(ranked)) or (n >= least and covered[n] >= wanted)
    )
    if byte_fallback is None:
        once = sum(count == 1 for count in characters.values())
        unknown = total - covered[number] + once
        byte_fallback = vocab_size * _SHARE >= _BYTES and unknown > _LEFT_OUT * total
    kept = frozenset(character for character, _ in ranked[:number])
    # SentencePiece's usual rule makes a space of the non-joiner, which would divide Persian words
    normalisation = "nfkc" if _NON_JOINER in kept else "nmt_nfkc"
    return CharacterPlan(kept, covered[number] / total, byte_fallback, normalisation)
