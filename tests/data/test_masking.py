"""Masking: the shares, the symbols that are never masked, and whole words."""

import numpy as np
import pytest
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import FIRST_WORD, word_dictionary

from fairseq_lambda import symbols
from fairseq_lambda.data.masking import TokenMasker

BOS, PAD, EOS, UNK = range(4)
DICTIONARY = word_dictionary(60, start=symbols.WORD_START)
MASK = DICTIONARY.index(symbols.MASK)
SPECIALS = {BOS, PAD, EOS, UNK, MASK}


def masker(dictionary=DICTIONARY, **options):
    return TokenMasker(dictionary, dictionary.index(symbols.MASK), **options)


def within(count, trials, probability):
    """Return whether the count is within 5 standard deviations of a binomial's mean."""
    return abs(count - trials * probability) <= 5 * (trials * probability * (1 - probability)) ** 0.5


@pytest.mark.parametrize(("leave", "randomise"), [(0.1, 0.1), (0.0, 0.0), (0.3, 0.5), (1.0, 0.0)])
def test_shares_of_mask_random_and_unmasked(leave, randomise):
    tokens = np.arange(100_000) % 60 + FIRST_WORD
    mask = masker(leave_unmasked_prob=leave, random_token_prob=randomise)
    source, target = mask(tokens, np.random.default_rng(0))
    chosen = target != PAD
    assert np.count_nonzero(chosen) == 15_000
    np.testing.assert_array_equal(target[chosen], tokens[chosen])
    np.testing.assert_array_equal(source[~chosen], tokens[~chosen])
    masked = np.count_nonzero(source[chosen] == MASK)
    same = np.count_nonzero(source[chosen] == tokens[chosen])
    assert within(masked, 15_000, 1 - leave - randomise)
    assert within(same, 15_000, leave + randomise / 60)  # a random token may be the same one


def test_random_tokens_are_uniform_over_all_but_the_special_ones():
    tokens = np.full(400_000, FIRST_WORD)
    mask = masker(leave_unmasked_prob=0, random_token_prob=1)
    source, target = mask(tokens, np.random.default_rng(0))
    drawn = np.bincount(source[target != PAD], minlength=len(DICTIONARY))
    assert drawn[list(SPECIALS)].sum() == 0
    words = np.delete(drawn, list(SPECIALS))
    assert len(words) == 60
    assert all(within(count, 60_000, 1 / 60) for count in words)


def test_positions_are_uniform_and_their_number_is_right_on_average():
    tokens = np.arange(30) + FIRST_WORD
    mask, rng = masker(), np.random.default_rng(0)
    counts, hits = [], np.zeros(30)
    for _ in range(4000):
        chosen = mask(tokens, rng)[1] != PAD
        counts.append(chosen.sum())
        hits += chosen
    assert set(counts) == {4, 5}  # 4.5, rounded at random
    assert within(sum(c == 5 for c in counts), 4000, 0.5)
    assert all(within(hit, 4000, 0.15) for hit in hits)


def words_of(tokens):
    """The definition of a word, token by token: lists of positions."""
    words, inside = [], False
    for i, token in enumerate(tokens):
        if token in SPECIALS:
            inside = False
            continue
        if inside and not DICTIONARY[token].startswith(symbols.WORD_START):
            words[-1].append(i)
        else:
            words.append([i])
        inside = True
    return words


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, len(DICTIONARY) - 1), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.booleans(),
    st.integers(0, 99),
)
def test_specials_stay_and_the_share_of_words_or_tokens_is_masked(tokens, mask_prob, whole_words, seed):
    tokens = np.array(tokens)
    mask = masker(mask_prob=mask_prob, random_token_prob=0.5, whole_words=whole_words)
    before = tokens.copy()
    source, target = mask(tokens, np.random.default_rng(seed))
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(mask(tokens, np.random.default_rng(seed)), (source, target))
    chosen = target != PAD
    np.testing.assert_array_equal(np.where(chosen, target, source), tokens)
    assert not np.isin(target[chosen], list(SPECIALS)).any()
    assert not np.isin(source[chosen], [BOS, PAD, EOS, UNK]).any()
    units = words_of(tokens) if whole_words else [[i] for i, token in enumerate(tokens) if token not in SPECIALS]
    states = [set(chosen[unit]) for unit in units]
    assert all(len(state) == 1 for state in states)
    share = mask_prob * len(units)
    assert not units or max(np.floor(share), 1) <= states.count({True}) <= max(np.ceil(share), 1)


def test_whole_words_mask_the_same_share_of_tokens():
    tokens = np.random.default_rng(1).integers(FIRST_WORD, FIRST_WORD + 60, size=100_000)
    _, target = masker(whole_words=True)(tokens, np.random.default_rng(0))
    assert abs((target != PAD).mean() - 0.15) < 0.005


def test_whole_words_need_sentencepiece():
    with pytest.raises(ValueError, match="--mask-whole-words needs SentencePiece"):
        masker(word_dictionary(), whole_words=True)


def test_whole_words_need_the_space_before_the_word():
    dictionary = Dictionary()
    for symbol in ("\u2581", "the\u2581", "run", "ning\u2581", symbols.MASK):
        dictionary.add_symbol(symbol)
    with pytest.raises(ValueError, match="U\\+2581 before each word"):
        masker(dictionary, whole_words=True)


def test_dictionary_without_words():
    dictionary = Dictionary()
    dictionary.add_symbol(symbols.MASK)
    with pytest.raises(ValueError, match="special symbols only"):
        masker(dictionary)
