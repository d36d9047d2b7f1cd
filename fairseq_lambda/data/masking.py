"""BERT's masking: which tokens are masked, and what replaces them."""

import numpy as np
from fairseq.data import Dictionary

from fairseq_lambda.data.corpus import REMEDY
from fairseq_lambda.symbols import WORD_START


class TokenMasker:
    """Masks tokens as BERT does (Devlin et al., 2019, section 3.1, "Masked LM").

    Of n tokens that can be masked, ``mask_prob * n`` are chosen without replacement: rounded up or down at random so
    that the mean is exact, but at least one. Independently, each of them stays unchanged with probability
    ``leave_unmasked_prob``, becomes a symbol drawn uniformly with probability ``random_token_prob``, and becomes
    ``<mask>`` otherwise.

    With ``whole_words`` the same share of words is chosen, each with all its pieces. A word is a piece that starts with
    U+2581 and the pieces that follow, up to the next such piece, special symbol or end of the sample.

    The special symbols ``<s> <pad> </s> <unk> <mask>`` are never masked, predicted or drawn.

    Args:
        dictionary: fairseq's, including ``<mask>``.
        mask_idx: id of ``<mask>``.
        mask_prob: share of the tokens that become targets.
        leave_unmasked_prob, random_token_prob: shares of the targets, see above.
        whole_words: mask all pieces of a word or none.

    Raises:
        ValueError: the dictionary has special symbols only, or ``whole_words`` is set and no symbol starts with U+2581.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        mask_idx: int,
        mask_prob: float = 0.15,
        leave_unmasked_prob: float = 0.1,
        random_token_prob: float = 0.1,
        whole_words: bool = False,
    ):
        self.mask_idx, self.pad_idx = mask_idx, dictionary.pad()
        self.mask_prob = mask_prob
        self.leave_unmasked_prob, self.random_token_prob = leave_unmasked_prob, random_token_prob
        self._maskable = np.ones(len(dictionary), dtype=bool)
        self._maskable[[dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk(), mask_idx]] = False
        self._replacements = np.flatnonzero(self._maskable)
        if len(self._replacements) == 0:
            raise ValueError(f"dict.txt has special symbols only: {REMEDY}")
        self._word_start = None
        if whole_words:
            starts = [symbol.startswith(WORD_START) for symbol in dictionary.symbols]
            if not any(starts):
                raise ValueError(
                    "--mask-whole-words needs SentencePiece pieces, but no symbol of dict.txt "
                    "starts with U+2581: leave the flag out, or binarise with a SentencePiece model"
                )
            if sum(starts) < sum(symbol.endswith(WORD_START) for symbol in dictionary.symbols):
                raise ValueError(
                    "--mask-whole-words needs pieces with U+2581 before each word, but in dict.txt it is behind: leave "
                    "the flag out, or train the SentencePiece model without treat_whitespace_as_suffix"
                )
            self._word_start = np.array(starts)

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the masked tokens and the targets; a target is padding where nothing is masked.

        ``tokens`` and both results are (n,) int64.
        """
        chosen = self._choose(tokens, rng)
        source, target = tokens.copy(), np.full_like(tokens, self.pad_idx)
        target[chosen] = tokens[chosen]
        fate = rng.random(len(chosen))
        changed = fate >= self.leave_unmasked_prob
        randomised = chosen[changed & (fate < self.leave_unmasked_prob + self.random_token_prob)]
        source[chosen[changed]] = self.mask_idx
        drawn = rng.integers(len(self._replacements), size=len(randomised))
        source[randomised] = self._replacements[drawn]
        return source, target

    def _choose(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        maskable = self._maskable[tokens]
        positions = np.flatnonzero(maskable)
        if len(positions) == 0:
            return positions
        if self._word_start is None:
            return positions[self._draw(len(positions), rng)]
        starts = self._word_start[tokens]
        starts[1:] |= ~maskable[:-1]  # the first piece after a special symbol
        starts[0] = True
        word = np.cumsum(starts & maskable)[positions] - 1
        hidden = np.zeros(word[-1] + 1, dtype=bool)
        hidden[self._draw(len(hidden), rng)] = True
        return positions[hidden[word]]

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        wanted = int(self.mask_prob * count + rng.random())
        return rng.choice(count, size=max(wanted, 1), replace=False, shuffle=False)
