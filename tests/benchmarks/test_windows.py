"""Windows over a text: each token has enough text on both sides, and perplexities agree with whole samples."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import windows
from conftest import make_model, make_task
from hypothesis import given
from hypothesis import strategies as st
from training import write_data


@given(st.integers(1, 400), st.integers(1, 130))
def test_each_token_stands_in_the_window_whose_middle_is_nearest(tokens, width):
    source = np.concatenate([[0], 10 + np.arange(tokens), [2]])
    batch, row, column = windows.in_windows(source, width + 2)
    assert (batch[row, column] == source[1:-1]).all()
    assert (batch[:, 0] == 0).all() and (batch[:, -1] == 2).all()
    if tokens <= width:
        assert (batch == source).all()
    else:  # enough tokens on both sides, unless the text ends first
        at = np.arange(tokens)
        least = 3 * width // 8 - 1
        assert (column - 1 >= np.minimum(at, least)).all()
        assert (width - column >= np.minimum(tokens - 1 - at, least)).all()


def hub_of(tmp_path, **options):
    task = make_task("sop", data=write_data(tmp_path / "data"))
    model = make_model(task, **options).eval()
    return SimpleNamespace(task=task, model=model, device=torch.device("cpu"))


def test_who_sees_few_neighbours_reads_windows_as_well_as_the_whole(tmp_path):
    hub = hub_of(tmp_path, lambda_terms="position")  # two layers that see 2 tokens to each side
    found = windows.perplexities(hub, [24, 48])  # at least 7 tokens to each side in a window of 22
    assert found["24"]["ratio"] == 1 and found["48"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert found["48"]["mlm_ppl"] == pytest.approx(found["24"]["mlm_ppl"]) and found["48"]["masked_tokens"] > 20
    assert hub.task.cfg.tokens_per_sample == 32 and hub.task.sentence_objective == "sop"


def test_the_greatest_length_is_each_sample_read_whole(tmp_path):
    hub = hub_of(tmp_path)
    sums = count = 0
    for source, at, labels in windows.masked_samples(hub, 48):
        logits, _ = hub.model(torch.from_numpy(source)[None])
        losses = torch.nn.functional.cross_entropy(logits[0, at], torch.from_numpy(labels), reduction="none")
        sums, count = sums + losses.sum().item(), count + len(at)
    found = windows.perplexities(hub, [24, 48])
    assert found["48"]["mlm_ppl"] == pytest.approx(math.exp(sums / count), rel=1e-5)
    assert found["48"]["ratio"] != pytest.approx(1, abs=1e-6)  # content lambdas see the whole sample


def test_lengths_beyond_learned_positions_are_left_out(tmp_path):
    hub = hub_of(tmp_path, absolute_positions="learned", max_positions=40)
    assert set(windows.perplexities(hub, [24, 48])) == {"24"}
