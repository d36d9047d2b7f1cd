"""Chunks compared with a loop over sentences, and random targets. test_pairs.py checks that no token is lost."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import number_tokens, shapes, write_corpus

from fairseq_lambda.data import chunks
from fairseq_lambda.data.chunks import chunk_documents


def greedy(lengths, budget):
    """The definition, sentence by sentence: return (first, end) of the chunks of one document."""
    result, first, filled = [], 0, 0
    for line, length in enumerate(lengths):
        if line > first and filled + length > budget:
            result.append((first, line))
            first, filled = line, 0
        filled += length
    return [*result, (first, len(lengths))]


def greedy_backward(lengths, budget):
    n = len(lengths)
    return [(n - end, n - first) for first, end in reversed(greedy(lengths[::-1], budget))]


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 60), st.sampled_from([1, 5, 2**18]))
def test_full_chunks_are_the_greedy_ones(shape, budget, step):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "LINES_PER_STEP", step)
        corpus = write_corpus(f"{folder}/train", number_tokens(shape))
        first, end = chunk_documents(corpus, budget, np.random.default_rng(0))
    found = list(zip(first.tolist(), end.tolist(), strict=True))
    line, expected = 0, []
    for lengths in shape:
        ways = [
            [(line + first, line + end) for first, end in fill(lengths, budget)] for fill in (greedy, greedy_backward)
        ]
        here = found[len(expected) :]
        expected += next((way for way in ways if here[: len(way)] == way), ways[0])
        line += len(lengths) + 1
    assert found == expected


def test_first_chunks_are_uniformly_shorter_and_the_others_are_full(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[1] * 200] * 300))
    first, end = chunk_documents(corpus, 50, np.random.default_rng(0), short_first=True)
    sizes = end - first
    _, last_document = np.unique(corpus.document_of(first)[::-1], return_index=True)
    front, back = np.isin(first, corpus.document_starts()), np.zeros(len(first), bool)
    back[len(first) - 1 - last_document] = True
    assert (sizes[~front & ~back] == 50).all()
    # a draw is at one end of a document, and the rest of 200 - draw at the other
    assert sizes[front | back].max() <= 50
    for ends in (sizes[front], sizes[back]):
        assert len(ends) == 300
        assert abs(ends.mean() - 25.5) < 5 * 14.4 / 300**0.5


def test_share_of_short_chunks(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[1] * 20000]))
    first, end = chunk_documents(corpus, 20, np.random.default_rng(0), short_prob=0.3)
    short = np.count_nonzero(end - first < 20) / len(first)
    expected = 0.3 * 19 / 20  # a uniform draw from 1..20 is 20 once in 20 times
    assert abs(short - expected) < 5 * (expected * (1 - expected) / len(first)) ** 0.5


def test_one_document_of_many_chunks_is_quick(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[9] * 20000]), dtype=np.uint32)
    first, _ = chunk_documents(corpus, 8, np.random.default_rng(0))
    assert len(first) == 20000
