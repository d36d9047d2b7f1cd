"""Sentence order is learned, from pairs to the head, on corpora whose words tell the order."""

import logging

import numpy as np
import pytest
import torch
from conftest import make_dictionary, write_split
from training import logged, train

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.modules.lambda_bert import segment_ids


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


def told_documents(count, seed):
    """Documents of two sentences with different words, except at their ends, within the reach of local contexts."""
    rng = np.random.default_rng(seed)
    words = lambda low, count: rng.integers(low, low + 2, count).tolist()  # noqa: E731
    return [[words(4, 3) + words(own, 7) + words(4, 3) for own in (6, 8)] for _ in range(count)]


@pytest.mark.parametrize("lambda_layers", ["all", "none"])
def test_a_model_that_is_told_the_order_is_never_wrong_and_goes_by_the_segments(lambda_layers, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    make_dictionary(6).save(str(tmp_path / "dict.txt"))
    for seed, (split, count) in enumerate({"train": 1600, "valid": 200}.items()):
        write_split(tmp_path, split, told_documents(count, seed))
    # two layers see two words far; beyond that, only the segments tell A from B, and so the order
    shape = ["--absolute-positions", "none", "--lambda-local-context", 3, "--dropout", 0.0, "--mask-prob", 0.05]
    shape += ["--random-token-prob", 0, "--sentence-loss-weight", 5, "--lambda-layers", lambda_layers]
    shape += ["--batch-size", 16, "--lr", 5e-3]
    train(tmp_path, tmp_path / "run", 400, *shape)
    last = [values for name, values in logged(caplog) if name == "valid"][-1]
    assert float(last["valid_sop_acc"]) == 100

    hub = LambdaBertModel.from_pretrained(tmp_path / "run", "checkpoint_last.pt")
    hub.task.cfg.data = str(tmp_path)
    hub.task.load_dataset("valid")
    dataset = hub.task.dataset("valid")
    batch = dataset.collater([dataset[i] for i in range(len(dataset))])
    tokens, labels = batch["net_input"]["src_tokens"], batch["sentence_target"]
    core, segments = hub.model.encoder.bert, segment_ids(batch["net_input"]["src_tokens"], hub.task.dictionary.eos())
    assert len(labels) == 200 and 60 < labels.sum() < 140

    def accuracy(of):
        with torch.no_grad():
            logits = core.sentence_head(core(tokens, tokens.eq(hub.task.dictionary.pad()), of).features)
        return logits.argmax(dim=1).eq(labels).float().mean().item()

    assert accuracy(segments) == 1
    exchanged = torch.where(tokens > 3, 1 - segments, segments)  # A is B now; <s> and </s> stay as in training
    assert accuracy(exchanged) == 0
    assert 0.3 < accuracy(torch.zeros_like(segments)) < 0.7  # without segments the model can only guess
