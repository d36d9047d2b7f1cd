"""A checkpoint, an exported model and their numbers, made by version 0.1.0 (commit 309f944), in today's version.

A hybrid with rotary and learned positions, gate, dropout and layer drop: updates 6 to 10, features and scores. Not to
the bit: 0.1.0 computed q, k and v in one product, and rotated pairs with four products instead of a complex one. Both
round differently.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training import load, train

from fairseq_lambda.commands.evaluate import evaluate
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.modules import LambdaEncoder

OLD = Path(__file__).with_name("version_0_1_0")
FLAGS = "--encoder-layers 3 --lambda-layers 0,2 --attention-rotary --dropout .1 --attention-dropout .1".split()
FLAGS += (
    "--encoder-layerdrop .2 --save-interval-updates 5 --no-epoch-checkpoints --clip-norm 1 --weight-decay .01".split()
)
SCORES = {"mlm_loss": 4.043999825754473, "mlm_acc": 0.0, "masked_tokens": 31, "pairs": 9, "sop_acc": 700 / 9}
ROTARY = torch.arange(48).view(3, 2, 2, 4)  # queries, keys, values; heads; halves of a head's channels


@pytest.fixture(scope="module")
def expected():
    return {name: torch.from_numpy(array) for name, array in np.load(OLD / "expected.npz").items()}


def in_todays_order(name, weight):
    if "qkv_proj" not in name:
        return weight
    pairs = ROTARY.clone()
    pairs[:2] = ROTARY[:2].transpose(-1, -2).reshape(2, 2, 2, 4)
    return weight[pairs.flatten()]


@pytest.fixture
def _draws_dropout_of_all_tokens(monkeypatch):
    """Let the top layer compute all tokens, as the old version did: what it skips has no dropout drawn for it."""
    whole = LambdaEncoder.forward

    def forward(self, x, *rest):
        *rest, at = rest
        x, states, lambdas = whole(self, x, *rest)
        return (x if at is None else x.flatten(0, 1)[at]), states, lambdas

    monkeypatch.setattr(LambdaEncoder, "forward", forward)


@pytest.mark.usefixtures("_draws_dropout_of_all_tokens")
def test_the_next_five_updates_are_those_of_the_old_version(expected, tmp_path):
    shutil.copy(OLD / "checkpoint_5.pt", tmp_path / "checkpoint_last.pt")
    train(OLD / "data", tmp_path, 10, *FLAGS)
    weights = load(tmp_path)["model"]
    after = {name.removeprefix("after10/"): w for name, w in expected.items() if name.startswith("after10/")}
    assert len(weights) == len(after)
    for name, old in after.items():
        new = name.replace("encoder.", "encoder.bert.", 1).replace("gate_proj", "mixing.gate_proj")
        torch.testing.assert_close(weights[new], in_todays_order(name, old), atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["checkpoint_5.pt", "exported"])
def test_features_lambdas_logits_and_scores_are_those_of_the_old_version(expected, name):
    bert, expected = LambdaBertModel.from_pretrained(OLD / name), dict(expected)
    with torch.no_grad():
        features, lambdas = bert.extract_features(expected["ids"], return_lambdas=True)
        logits, extra = bert.model(expected["ids"])
    found = {"features": features, "lambda_0": lambdas[0], "lambda_2": lambdas[2], "logits": logits}
    real = expected["ids"].ne(bert.task.source_dictionary.pad())  # padding's own features have no meaning
    for key in ("features", "logits"):
        found[key], expected[key] = found[key][real], expected[key][real]
    for key, tensor in (found | {"sentence_logits": extra["sentence_logits"]}).items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=1e-5, msg=key)
    bert.task.cfg.data = str(OLD / "data")
    scores = evaluate(bert, ["valid"], 4)["valid"]
    assert {key: scores[key] for key in SCORES} == pytest.approx(SCORES, abs=1e-6)


@pytest.mark.parametrize("option,weight", [
    ({"attention_gate": "silu"}, "layers.1.mixing.gate_proj.weight"),
    ({"lambda_output_projection": True}, "layers.0.out_proj.weight"),
])  # fmt: skip
def test_an_option_that_is_gone_is_refused_in_one_line(tmp_path, option, weight):
    state = load(OLD, "checkpoint_5.pt")
    state["model"][f"encoder.encoder.{weight}"] = torch.zeros(16, 16)
    state["cfg"]["model"].update(option)
    torch.save(state, tmp_path / "checkpoint_last.pt")
    flag = "--" + next(iter(option)).replace("_", "-")
    with pytest.raises(ValueError, match=f"trained with {flag}.* 0.1.0$"):
        LambdaBertModel.from_pretrained(tmp_path)
    with pytest.raises(SystemExit):
        train(OLD / "data", tmp_path, 10, *FLAGS)
