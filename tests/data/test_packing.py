"""Packed samples: each text is in exactly one, samples are full and reproducible, and documents that fit stay whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import EOS, number_tokens, random_shape, word_dictionary, write_corpus

from fairseq_lambda.data.masking import TokenMasker
from fairseq_lambda.data.packing import PackedDocumentsDataset, pack

BOS, PAD = 0, 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 90), st.integers(0, 3))
def test_every_text_is_in_one_sample_that_has_room(lengths, capacity, seed):
    lengths = np.array(lengths, dtype=np.int32)
    packing = pack(lengths, capacity, np.random.default_rng(seed))
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    for i in range(len(packing)):
        assert packing.lengths[i] == lengths[packing.texts(i)].sum() <= capacity
        assert len(packing.texts(i)) > 0
    # no two samples fit into one: the best bound on the number of samples without a search
    smallest = np.sort(packing.lengths)[:2]
    assert len(packing) == 1 or smallest.sum() > capacity
    again = pack(lengths, capacity, np.random.default_rng(seed))
    assert np.array_equal(packing.order, again.order) and np.array_equal(packing.bounds, again.bounds)


def test_many_texts_are_packed_fast_and_without_a_gap():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 1, 50_000), 8, 8192).astype(np.int32)
    packing = pack(lengths, 8192, rng)
    assert len(packing) == -(-lengths.sum() // 8192)
    assert np.sort(packing.lengths)[1:].min() > 8100


SHAPE = random_shape(3, documents=40, sentences=12, mean=6)  # documents of 4 to 130 tokens
DICTIONARY = word_dictionary(sum(map(sum, SHAPE)))


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "train", number_tokens(SHAPE))


def dataset(corpus, **options):
    options = {"objective": "none", "tokens_per_sample": 100, "training": True, **options}
    return PackedDocumentsDataset(corpus, TokenMasker(DICTIONARY, len(DICTIONARY) - 1), BOS, **options)


def texts(data):
    """Return the tokens between <s> and </s> of all texts."""
    found = []
    for i in range(len(data)):
        tokens, lengths = data.tokens(i), data[i]["document_lengths"]
        assert len(tokens) == sum(lengths) == data.size(i) <= 100
        for part in np.split(tokens, np.cumsum(lengths)[:-1]):
            assert part[0] == BOS and part[-1] == EOS and not {BOS, EOS} & set(part[1:-1].tolist())
            found.append(part[1:-1].tolist())
    return found


@pytest.mark.parametrize("training", [True, False])
def test_documents_that_fit_are_whole_and_others_are_cut_between_sentences(corpus, training):
    seen = []
    for epoch in (1, 2):
        data = dataset(corpus, training=training, epoch=epoch)
        seen.append(texts(data))
        assert sorted(t for text in seen[-1] for t in text) == list(range(4, 4 + sum(map(sum, SHAPE))))
        starts = {text[0] for text in seen[-1]}
        first = 4
        for document in SHAPE:
            size = sum(document)
            if size <= 98:
                assert list(range(first, first + size)) in seen[-1]
            else:
                boundaries = set((first + np.append(0, np.cumsum(document))).tolist())
                assert starts & set(range(first, first + size)) <= boundaries
            first += size
        assert data.sizes.mean() > 80
    assert (seen[0] != seen[1]) == training


def test_a_sample_is_a_function_of_seed_epoch_and_index(corpus):
    data = dataset(corpus)
    first = [data[i] for i in range(len(data))]
    data.set_epoch(2)
    second = [data[i] for i in range(len(data))]
    data.set_epoch(1)
    for i, sample in enumerate(first):
        again = data[i]
        assert all(torch.equal(sample[key], again[key]) for key in ("source", "target"))
        assert sample["document_lengths"] == again["document_lengths"]
    assert [s["document_lengths"] for s in first] != [s["document_lengths"] for s in second]


def test_a_batch_has_the_lengths_of_each_row(corpus):
    data = dataset(corpus, length_multiple=8)
    samples = [data[0], data[len(data) - 1]]
    batch = data.collater(samples)
    assert batch["net_input"]["document_lengths"] == [sample["document_lengths"] for sample in samples]
    assert [sum(row) for row in batch["net_input"]["document_lengths"]] == batch["net_input"]["src_lengths"].tolist()
    assert "sentence_target" not in batch
    idle = data.collater([])
    assert idle["net_input"]["document_lengths"] == [[2]] and idle["nsentences"] == 0
