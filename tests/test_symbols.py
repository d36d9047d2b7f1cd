"""Symbols: what the message says about two dictionaries that differ."""

import pytest

from fairseq_lambda.symbols import difference


@pytest.mark.parametrize("theirs,ours,sizes,place", [
    (["a", "b"], ["a", "c"], (2, 2), "1, where it has 'b' and the data 'c'"),
    (["a"], ["a", "c"], (1, 2), "1, where it has nothing and the data 'c'"),
    (["a"], [], (1, 0), "0, where it has 'a' and the data nothing"),
])  # fmt: skip
def test_the_first_difference_of_two_dictionaries(theirs, ours, sizes, place):
    text = "{} symbols, and the data has {}; the first difference is at ".format(*sizes)
    assert difference(theirs, ours) == text + place
    assert difference(theirs, tuple(theirs)) is None
