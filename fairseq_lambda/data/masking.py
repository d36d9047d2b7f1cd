"""BERT's masking of one sample."""

from dataclasses import dataclass

import numpy as np
from fairseq.data import Dictionary

WORD_START = "\u2581"  # SentencePiece's mark of a space before the piece


@dataclass
class Masking:
    """How to mask: the shares, and tables over the vocabulary.

    Args:
        dictionary: its special symbols, ``<mask>`` and so ``<unk>`` too, are never masked and never drawn.
        mask_idx: of ``<mask>``.
        mask_prob: share of the tokens, or words, that are to be predicted.
        leave_unmasked_prob: share of these that stay as they are.
        random_token_prob: share of these that become a random token.
        whole_words: choose words, a SentencePiece word start and what continues it, not tokens.
    """

    dictionary: Dictionary
    mask_idx: int
    mask_prob: float = 0.15
    leave_unmasked_prob: float = 0.1
    random_token_prob: float = 0.1
    whole_words: bool = False

    def __post_init__(self):
        self.pad = self.dictionary.pad()
        self.special = np.zeros(len(self.dictionary), dtype=bool)
        self.special[: self.dictionary.nspecial] = True
        self.special[self.mask_idx] = True
        self.ordinary = np.flatnonzero(~self.special)
        self.word_start = None
        if self.whole_words:
            self.word_start = np.array([s.startswith(WORD_START) for s in self.dictionary.symbols])
        del self.dictionary  # the tables are all that workers need

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the masked tokens and the targets (n,), which are padding where nothing is to be predicted.

        The number of masked units is mask_prob times theirs, rounded up or down at random so that the mean is exact,
        and at least 1 where there are any; they are drawn without replacement.
        """
        maskable = np.flatnonzero(~self.special[tokens])
        source, target = tokens.copy(), np.full_like(tokens, self.pad)
        if not len(maskable):
            return source, target
        unit = np.arange(len(maskable)) if self.word_start is None else self._words(tokens, maskable)
        units = int(unit[-1]) + 1
        count = max(1, int(self.mask_prob * units + rng.random()))
        drawn = np.zeros(units, dtype=bool)
        drawn[rng.choice(units, count, replace=False, shuffle=False)] = True
        chosen = maskable[drawn[unit]]

        target[chosen] = tokens[chosen]
        fate = rng.random(len(chosen))
        randomised = fate < self.random_token_prob
        kept = ~randomised & (fate < self.random_token_prob + self.leave_unmasked_prob)
        source[chosen[~randomised & ~kept]] = self.mask_idx
        source[chosen[randomised]] = rng.choice(self.ordinary, int(randomised.sum()))
        return source, target

    def _words(self, tokens: np.ndarray, maskable: np.ndarray) -> np.ndarray:
        """Number the words of the maskable tokens from 0; a word ends where another starts or at a special symbol."""
        begins = self.word_start[tokens[maskable]]
        begins[1:] |= np.diff(maskable) > 1
        begins[0] = True
        return np.cumsum(begins) - 1
