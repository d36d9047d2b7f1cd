"""Models with content terms on trial: where a term is put, what is trained and what it costs."""

import shutil
import subprocess
import sys
from pathlib import Path

import comparison
import pytest
import torch
from comparison import Results
from conftest import make_task, random_batch
from content_terms.layer import ContentLayer
from content_terms.model import ContentBertModel, ContentConfig
from content_terms.terms import TERMS


def build(term="softmax", **options):
    """Return the task and fairseq's model in float64."""
    task = make_task()
    shape = {"encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2}
    options = {**shape, "lambda_local_context": 3, "content_term": term, "content_layers": "1", **options}
    return task, ContentBertModel.build_model(ContentConfig(**options), task).double()


def test_the_top_layer_skips_what_no_loss_reads_and_no_gradient_changes():
    task, model = build()
    batch, found, asked = random_batch(task), [], []
    model.encoder.bert.encoder.layers[-1].term.register_forward_hook(
        lambda _, x, y: asked.append(y[:, :, 0, 0].numel())
    )
    for everything in (True, False):
        net_input = batch["net_input"] | {"return_all_hiddens": everything}
        logits, extra = model(**net_input, masked_tokens=batch["masked_positions"])
        loss = logits.square().mean() + extra["sentence_logits"].sin().sum()
        found.append([logits, extra["sentence_logits"], *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert asked[0] == batch["target"].numel() > asked[1]


def test_a_term_is_put_where_it_is_wanted_and_the_rest_stays():
    torch.manual_seed(3)
    _, model = build("taylor", encoder_layers=3, content_layers="0,2")
    torch.manual_seed(3)
    _, plain = build("none", encoder_layers=3)
    layers, theirs = model.encoder.bert.encoder.layers, plain.encoder.bert.encoder.layers
    assert [isinstance(layer, ContentLayer) for layer in layers] == [True, False, True]
    assert all(torch.equal(a, b) for a, b in zip(layers[1].parameters(), theirs[1].parameters(), strict=True))
    assert 0.01 < layers[2].fc1.weight.std() < 0.03 and not layers[2].fc1.bias.any()  # drawn as BERT does
    with pytest.raises(ValueError, match="--content-layers names layer 1, which --lambda-layers makes an att"):
        build("taylor", lambda_layers="0")


TOY = f"""
title: a toy
size: tiny
updates: 4
lr: "1e-2"
seeds: [1]
baseline: as it is
flags: {{user-dir: {Path(comparison.__file__).parent / "content_terms"}, arch: lambda_bert_content, num-workers: 0,
        validate-interval-updates: 2, save-interval-updates: 2, log-interval: 1, encoder-layers: 2, batch-size: 8,
        encoder-embed-dim: 32, encoder-ffn-embed-dim: 32, encoder-attention-heads: 2, tokens-per-sample: 32}}
models:
  as it is: {{}}
  soft codes: {{content-term: codes, content-layers: 0-1}}
"""


@pytest.mark.slow
def test_a_comparison_trains_evaluates_and_times_them(toy_data, tmp_path):
    data = shutil.copytree(toy_data, tmp_path / "data")
    for suffix in (".bin", ".idx"):
        shutil.copy(data / f"valid{suffix}", data / f"test{suffix}")
    (tmp_path / "toy.yaml").write_text(TOY)
    code = f"import pathlib, run, comparison; comparison.RESULTS = pathlib.Path({str(tmp_path)!r}); run.main(ARGV)"
    arguments = [str(tmp_path / "toy.yaml"), str(data), "--runs", str(tmp_path / "runs")]
    for more in ([], ["--time"]):  # in new processes: this one has the plugin
        command = [sys.executable, "-c", code.replace("ARGV", repr([*arguments, *more]))]
        subprocess.run(command, cwd=Path(comparison.__file__).parent, check=True)
    plain, codes = Results(tmp_path / "toy.jsonl").lines
    assert [point["updates"] for point in codes["curve"]] == [2, 4]
    assert codes["parameters"] > plain["parameters"] and codes["in_turns"]["ms_per_update"] > 0
    for line in (plain, codes):
        assert line["scores"]["valid"]["mlm_ppl"] == pytest.approx(line["curve"][-1]["valid_ppl"], rel=1e-2)


def test_costs_are_counted():
    command = [sys.executable, str(Path(comparison.__file__).parent / "content_terms/costs.py"), "--counts"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    table = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| ")}
    assert {"lambda", "attention layer", *TERMS} < set(table)
    # a key projection, scores and sums over 128 keys; and of a sixth of the positions
    more = [float(a) - float(b) for a, b in zip(table["softmax"][1:], table["lambda"][1:], strict=True)]
    assert more[0] == pytest.approx((256 * 16 + 4 * 128 * (16 + 64)) / 1000, abs=1.1)
    assert more[1] == pytest.approx((256 * 16 + 20 / 128 * 4 * 128 * (16 + 64)) / 1000, abs=1.1)
