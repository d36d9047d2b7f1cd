"""The control of lengths: windows that hold every token, and a model that cannot see out of them."""

import json

import length_control
import numpy as np
import pytest
from training import train

from fairseq_lambda.commands.evaluate import evaluate
from fairseq_lambda.models import LambdaBertModel


@pytest.mark.parametrize("width", [1, 2, 7, 126])
def test_each_token_is_in_its_window_and_far_from_the_edges(width):
    for tokens in [*range(1, 40), 125, 126, 127, 158, 500]:
        source = np.concatenate([[-1], np.arange(tokens), [-2]])
        batch, row, column = length_control.in_windows(source, width)
        assert batch.shape[1] == min(width, tokens) + 2
        assert (batch[:, 0] == -1).all() and (batch[:, -1] == -2).all()
        assert (batch[row, column] == np.arange(tokens)).all()
        first, last = batch[row, 1], batch[row, -2]
        before, after = np.arange(tokens) - first, last - np.arange(tokens)
        far = (width - max(1, width // 4) - 1) // 2
        assert (np.where(first == 0, width, before) >= far).all()
        assert (np.where(last == tokens - 1, width, after) >= far).all()


@pytest.mark.slow
def test_position_lambdas_read_the_same_in_windows_and_content_lambdas_do_not(toy_data, tmp_path, capsys):
    for terms in ("position", "both"):  # of two layers that see 3 tokens to each side; windows have 11
        train(toy_data, tmp_path / terms, 10, "--absolute-positions", "none", "--lambda-terms", terms)
    out, lengths = tmp_path / "control.jsonl", ["--lengths", "32,64"]
    length_control.main(
        [str(toy_data), str(tmp_path / "position"), str(tmp_path / "both"), "--json", str(out), *lengths]
    )
    short, long, _, content = map(json.loads, out.read_text().splitlines())
    assert (short["model"], content["model"], long["tokens"]) == ("position", "both", 64)
    assert short["ratio"] == 1 and short["standard_error"] == 0  # a single window each
    assert long["ratio"] == pytest.approx(1, abs=1e-6) and abs(content["ratio"] - 1) > 1e-5
    assert long["windows"] == pytest.approx(long["whole"]) and long["samples"] < short["samples"]
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "| position | 64 |" in capsys.readouterr().out

    hub = LambdaBertModel.from_pretrained(tmp_path / "both")
    hub.task.cfg.data, hub.task.cfg.tokens_per_sample = str(toy_data), 64
    assert content["whole"] == pytest.approx(evaluate(hub, ["valid"], 4)["valid"]["mlm_ppl"])

    train(toy_data, tmp_path / "learned", 1)
    with pytest.raises(SystemExit, match="--lengths 64: the model has 32 positions"):
        length_control.main([str(toy_data), str(tmp_path / "learned"), *lengths])
