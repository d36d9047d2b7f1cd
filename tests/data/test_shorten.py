"""Which pieces of long texts are kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_lambda.data.shorten import cut_at_words, join, pair_lengths

COUNT = st.integers(0, 40)


def one_by_one(first, second, room):
    """The rule as stated: the longer text loses a piece until both fit; if they are equally long, the second does."""
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@given(COUNT, COUNT, st.integers(0, 30))
def test_the_longer_text_is_shortened(first, second, room):
    a, b = pair_lengths(first, second, room)
    x, y = one_by_one(first, second, room)
    assert a + b == x + y == min(first + second, room) and abs(a - x) <= 1 and a <= first and b <= second


def test_pairs_of_many_samples_at_once():
    a, b = pair_lengths(np.array([100, 10, 100, 3]), np.array([10, 100, 100, 4]), 60)
    assert a.tolist() == [50, 10, 30, 3] and b.tolist() == [10, 50, 30, 4]


def test_join():
    first, second = np.arange(10, 16), np.arange(20, 23)
    assert join([first], 5, 0, 2).tolist() == [0, 10, 11, 12, 2]
    assert join([first, second], 99, 0, 2).tolist() == [0, *first, 2, 2, *second, 2]
    assert join([first, second], 9, 0, 2).tolist() == [0, 10, 11, 12, 2, 2, 20, 21, 2]
    assert join([first, first[:0]], 8, 0, 2).tolist() == [0, 10, 11, 12, 13, 2, 2, 2]
    assert join([first[:0]], 8, 0, 2).tolist() == [0, 2]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_every_word_starts_in_one_part(word_lengths, room):
    starts = np.cumsum([0, *word_lengths[:-1]])
    pieces = sum(word_lengths)
    parts = cut_at_words(starts, pieces, room)
    assert all(0 < end - start <= room for start, end in parts)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(parts))
    inside = [[s for s in starts if start <= s < end] for start, end in parts]
    assert [s for part in inside for s in part] == starts.tolist()
    assert all(part[0] == start for part, (start, _) in zip(inside, parts, strict=True))


@pytest.mark.parametrize("pieces,room,parts", [(5, 5, [(0, 5)]), (0, 5, [(0, 0)]), (6, 5, [(0, 4), (4, 6)])])
def test_short_texts_stay_whole(pieces, room, parts):
    assert cut_at_words(np.arange(0, pieces, 2), pieces, room) == parts
