"""Batches of similar length: every result in its place, no more held than a window, no batch above its tokens."""

import itertools

import pytest
import torch

from fairseq_lambda.models.batching import by_length

PAD = 1


def texts(lengths):
    return [torch.full((n,), 10 + i) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("max_tokens", [1, 7, 30, 10**6])
@pytest.mark.parametrize("window", [1, 3, 100])
def test_results_come_in_the_order_of_the_texts(max_tokens, window):
    lengths = [5, 1, 9, 3, 3, 8, 1, 12, 2]
    seen = []

    def function(batch):
        seen.append(batch)
        return [(row[0].item(), row.ne(PAD).sum().item()) for row in batch]

    results = list(by_length(function, texts(lengths), PAD, max_tokens, window))
    assert results == [(10 + i, n) for i, n in enumerate(lengths)]
    assert all(batch.numel() <= max_tokens or len(batch) == 1 for batch in seen)
    if max_tokens == 7 and window == 100:
        assert [tuple(batch.shape) for batch in seen] == [(3, 2), (2, 3), (1, 5), (1, 8), (1, 9), (1, 12)]


def test_an_endless_iterable_is_read_one_window_ahead():
    read = itertools.count()
    endless = (torch.full((1 + i % 3,), i) for i in read)
    results = by_length(lambda batch: batch[:, 0], endless, PAD, max_tokens=20, window=8)
    assert [next(results).item() for _ in range(9)] == list(range(9))
    assert next(read) == 16


def test_no_texts():
    assert list(by_length(lambda batch: batch, [], PAD)) == []
