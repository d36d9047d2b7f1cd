"""Corpus: documents found, tokens read, and damaged files told from good ones."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder
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


@pytest.mark.parametrize("ending", [".bin", ".idx"])
def test_missing_file(corpus, ending, tmp_path):
    (tmp_path / f"train{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"train\{ending} is missing.*preprocess_wikitext"):
        Corpus(corpus.path, EOS)


@pytest.mark.parametrize(
    ("ending", "keep", "message"),
    [
        (".bin", 10, "10 bytes where its .idx says 58"),
        (".bin", 0, "0 bytes where its .idx says 58"),
        (".idx", 0, "is damaged"),
        (".idx", 12, "is damaged"),
        (".idx", 60, "is damaged"),
    ],
)
def test_truncated_file(corpus, tmp_path, ending, keep, message):
    shutil.copytree(tmp_path, tmp_path / "copy")
    file = tmp_path / "copy" / f"train{ending}"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=message):
        Corpus(str(tmp_path / "copy" / "train"), EOS)


def test_files_of_two_runs(corpus, tmp_path):
    write_corpus(tmp_path / "other", number_tokens([[7]]))
    shutil.copy(tmp_path / "other.bin", tmp_path / "mixed.bin")
    shutil.copy(tmp_path / "train.idx", tmp_path / "mixed.idx")
    with pytest.raises(ValueError, match="of another run"):
        Corpus(str(tmp_path / "mixed"), EOS)


@pytest.mark.parametrize("lines", [0, 3])
def test_no_sentence(tmp_path, lines):
    with pytest.raises(ValueError, match="has no sentence"):
        write_corpus(tmp_path / "train", [[]] * (lines + 1))


def test_line_without_end(tmp_path):
    builder = MMapIndexedDatasetBuilder(str(tmp_path / "train.bin"), dtype=np.uint16)
    for line in ([4, 5, EOS], [6, 7]):
        builder.add_item(torch.tensor(line))
    builder.finalize(str(tmp_path / "train.idx"))
    with pytest.raises(ValueError, match="2 lines, 1 of them end with </s>"):
        Corpus(str(tmp_path / "train"), EOS).check_tokens(VOCABULARY, PAD, UNK)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ([4, VOCABULARY], "holds token 1000 and dict.txt has 1000 symbols"),
        ([4, PAD], "holds padding"),
        ([4, EOS, 4], r"2 </s> in all"),
    ],
)
def test_tokens_that_cannot_be(tmp_path, sentence, message):
    corpus = write_corpus(tmp_path / "train", [[sentence]])
    with pytest.raises(ValueError, match=message):
        corpus.check_tokens(VOCABULARY, PAD, UNK)
