"""Corpus: finding documents, reading tokens, and refusing impossible tokens. Damaged files are in tests/bad_inputs."""

import pickle

import numpy as np
import pytest
from small_corpora import EOS, number_tokens, write_corpus

from fairseq_lambda.data.corpus import Corpus

SHAPE = [[3, 1], [2], [5, 5, 5]]
VOCABULARY, PAD, UNK = 1000, 1, 3


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "train", number_tokens(SHAPE))


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0), (2, 3)])
def test_blank_lines_around_the_documents_do_not_matter(tmp_path, before, after):
    corpus = write_corpus(tmp_path / "train", [[]] * before + number_tokens(SHAPE) + [[]] * after)
    starts = corpus.document_starts()
    np.testing.assert_array_equal(starts, np.array([0, 3, 5]) + before)
    first, end = corpus.document_bounds(starts + np.array([1, 0, 2]))
    np.testing.assert_array_equal(first, starts)
    np.testing.assert_array_equal(end, np.array([2, 4, 8]) + before)
    assert len(set(corpus.document_of(starts))) == 3
    assert corpus.num_sentences == 6


def test_read_leaves_out_the_ends_of_sentences(corpus):
    # file: 4 5 6 2 7 2 2 8 9 2 2 ...
    assert corpus.read(0, 5).tolist() == [4, 5, 6, 7]
    assert corpus.read(0, 5).dtype == np.int64
    assert corpus.token_start(np.array([0, 1, 3])).tolist() == [0, 4, 7]


def test_survives_pickling(corpus):
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.read(0, 40).tolist() == corpus.read(0, 40).tolist()
    assert len(pickle.dumps(corpus)) < 500


def test_counts_unknown_tokens(tmp_path):
    corpus = write_corpus(tmp_path / "train", [[[UNK, 4], [UNK, UNK, 5]]])
    assert corpus.check_tokens(VOCABULARY, PAD, UNK) == 3


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_reads_all_integer_types_of_fairseq(tmp_path, dtype):
    corpus = write_corpus(tmp_path / "train", number_tokens(SHAPE), dtype=dtype)
    assert corpus.read(0, 5).tolist() == [4, 5, 6, 7]
    corpus.check_tokens(VOCABULARY, PAD, UNK)


@pytest.mark.parametrize("lines", [0, 3])
def test_no_sentence(tmp_path, lines):
    with pytest.raises(ValueError, match="has no sentence"):
        write_corpus(tmp_path / "train", [[]] * (lines + 1))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([4, VOCABULARY, EOS, 6, 7, EOS], "contains token 1000, but dict.txt has 1000 symbols"),
        ([4, PAD, EOS, 6, 7, EOS], "contains padding"),
        ([4, 5, EOS, 6, 7, 8], "2 lines, 1 of them end with </s>, 1 </s> in all"),
        ([4, 5, EOS, 6, EOS, 7], "2 lines, 1 of them end with </s>, 2 </s> in all"),
        ([4, EOS, EOS, 6, 7, EOS], "2 lines, 2 of them end with </s>, 3 </s> in all"),
    ],
)
def test_tokens_that_cannot_be(tmp_path, tokens, message):
    path = write_corpus(tmp_path / "train", [[[4, 5], [6, 7]]]).path
    np.array(tokens, np.uint16).tofile(f"{path}.bin")
    with pytest.raises(ValueError, match=message):
        Corpus(path, EOS).check_tokens(VOCABULARY, PAD, UNK)
