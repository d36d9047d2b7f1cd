"""Symbols: what is said of two dictionaries that differ."""

import pytest

from fairseq_lambda.symbols import difference


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], ("a", "b"), None),
        (
            ["a", "b"],
            ["a", "c"],
            "2 symbols, and the data has 2; the first difference is at 1, where it has 'b' and the data 'c'",
        ),
        (
            ["a"],
            ["a", "c"],
            "1 symbols, and the data has 2; the first difference is at 1, where it has nothing and the data 'c'",
        ),
        (
            ["a"],
            [],
            "1 symbols, and the data has 0; the first difference is at 0, where it has 'a' and the data nothing",
        ),
    ],
)
def test_the_first_difference_of_two_dictionaries(theirs, ours, text):
    assert difference(theirs, ours) == text
