"""Which characters of a text become pieces of a vocabulary, and how the others are written."""

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

# Single characters get no more than this share of the vocabulary, because rare ones would displace useful pieces. A
# text that needs more, such as a Chinese one, gets up to half of it.
_SHARE, _MAX_SHARE = 0.125, 0.5
_MIN_CHARACTERS = 100
# the share of a text that may be in other characters: at four characters per piece, below checks.MAX_UNKNOWN_RATE
_LEFT_OUT = 0.0002
_BYTES = 256  # pieces that byte fallback takes; by default at most an eighth of the vocabulary
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
        coverage: the least share of the text, 0 to 1, that they make up. By default an eighth of the vocabulary is for
            characters, and up to half of it as long as more than 0.02 % of the text is in other characters.
        byte_fallback: by default, a vocabulary of at least 2,048 pieces gets bytes if more than 0.02 % of new text is
            likely to be in other characters (estimated from the characters that occur once, as by Good and Turing).
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
    # SentencePiece's usual rule turns the non-joiner into a space, which would divide Persian words
    normalisation = "nfkc" if _NON_JOINER in kept else "nmt_nfkc"
    return CharacterPlan(kept, covered[number] / total, byte_fallback, normalisation)
