"""Whether sentence order is learned where it can be, from pairs to the head: on a corpus whose words tell it."""

import logging

import numpy as np
import pytest
from conftest import make_dictionary, write_split
from training import logged, train


def rising_documents(count, seed, words=50):
    """Documents of eight sentences, whose words come from a window that moves up through the vocabulary."""
    rng = np.random.default_rng(seed)
    window = words // 8
    lows = np.linspace(4, 4 + words - window, 8).astype(int)
    return [[rng.integers(low, low + window, rng.integers(2, 6)).tolist() for low in lows] for _ in range(count)]


@pytest.mark.parametrize("lambda_layers", ["all", "none", "0"])
def test_an_order_that_the_words_tell_is_learned(lambda_layers, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make_dictionary().save(str(tmp_path / "dict.txt"))
    for seed, (split, count) in enumerate({"train": 200, "valid": 80}.items()):
        write_split(tmp_path, split, rising_documents(count, seed))
    shape = ["--absolute-positions", "none", "--attention-rotary", "--dropout", 0.0, "--batch-size", 16, "--lr", 5e-3]
    train(tmp_path, tmp_path / "run", 300, "--lambda-layers", lambda_layers, *shape)
    last = [values for name, values in logged(caplog) if name == "valid"][-1]
    assert float(last["valid_sop_acc"]) > 75  # chance is 50, of 86 pairs with a standard error of 5.4
