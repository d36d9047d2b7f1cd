"""The datasets for fine-tuning: what a sample and a batch hold."""

import numpy as np
import pytest
from fairseq.data import Dictionary

from fairseq_lambda.data.labelled import LabelledTexts, LabelledWords

BOS, PAD, EOS = 0, 1, 2  # fairseq's
OPTIONS = {"dictionary": Dictionary(), "seed": 1, "length_multiple": 4}


class Lists(list):
    """Lists of ids as fairseq's memory-mapped ones: with their sizes."""

    def __init__(self, *rows):
        super().__init__(np.array(row) for row in rows)
        self.sizes = np.array([len(row) for row in rows])


def batch(data):
    return data.collater([data[i] for i in range(len(data))])


def test_texts_are_shortened_joined_and_padded():
    one = Lists([5, 6, EOS], [5, 6, 7, 8, 9, 5, EOS])
    data = LabelledTexts([one], np.array([1, 0]), max_length=6, training=False, **OPTIONS)
    assert data.sizes.tolist() == [4, 6] and data.shortened == 1 and len(data) == 2
    found = batch(data)
    assert found["net_input"]["src_tokens"].tolist() == [[BOS, 5, 6, EOS, PAD, PAD], [BOS, 5, 6, 7, 8, EOS]]
    assert found["target"].tolist() == [1, 0] and found["ntokens"] == 10 and found["net_input"]["has_padding"]
    pairs = LabelledTexts([one, one], np.array([1.5, 0.5]), max_length=30, training=False, **OPTIONS)
    found = batch(pairs)
    assert found["net_input"]["src_tokens"][0].tolist()[:8] == [BOS, 5, 6, EOS, EOS, 5, 6, EOS]
    assert found["net_input"]["src_tokens"].size(1) == 16 and found["target"].tolist() == [1.5, 0.5]  # 16: of 4


def test_words_are_read_in_parts_and_none_is_lost():
    words, marks = Lists([5, 6, 7, 8, 9, EOS], [5, EOS]), Lists([3, 0, 1, 2, 0, 0], [1, 0])
    data = LabelledWords(words, marks, max_length=5, training=False, **OPTIONS)
    assert data.shortened == 1 and data.sizes.tolist() == [5, 4, 3]
    found = batch(data)
    assert found["net_input"]["src_tokens"].tolist() == [
        [BOS, 5, 6, 7, EOS],
        [BOS, 8, 9, EOS, PAD],
        [BOS, 5, EOS, PAD, PAD],
    ]
    assert found["target"].tolist() == [[-1, 2, -1, 0, -1], [-1, 1, -1, -1, -1], [-1, 0, -1, -1, -1]]


@pytest.mark.parametrize("training", [True, False])
def test_every_sample_is_visited_once_and_an_epoch_has_its_order(training):
    lengths = np.random.default_rng(0).integers(1, 9, 50)
    texts = Lists(*([5] * n + [EOS] for n in lengths))
    data = LabelledTexts([texts], np.zeros(50), max_length=20, training=training, **OPTIONS)
    orders = []
    for epoch in (1, 2, 1):
        data.set_epoch(epoch)
        orders.append(data.ordered_indices().tolist())
        assert sorted(orders[-1]) == list(range(50))
        assert np.all(np.diff(data.sizes[orders[-1]]) >= 0)
    assert orders[0] == orders[2] and (orders[0] != orders[1]) == training
    assert data.can_reuse_epoch_itr_across_epochs != training
