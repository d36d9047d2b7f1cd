"""The benchmark against transformers' models runs at toy size, and its models are as described."""

import json

import pytest

pytest.importorskip("transformers", minversion="4.57")

import measuring
import peers
import torch


def test_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "tests_fail", lambda *arguments: "")
    flags = "--autocast none --size tiny --lengths 32 --tokens 64 --repeats 1 --budget 0 --device cpu".split()
    peers.main([*flags, "--out", str(tmp_path)])
    (file,) = tmp_path.glob("peers-tiny-cpu-none.jsonl")
    rows = {row["model"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert rows.keys() == set(peers.MODELS)
    assert rows["fairseq"]["parameters"] == rows["transformers"]["parameters"]
    assert rows["transformers"]["time over transformers"] == 1 and rows["bert"]["batch"] == 2


@pytest.mark.parametrize("name", peers.MODELS[1:])
def test_models_use_fused_attention_and_no_dropout(name):
    model = peers.model_of(name, "tiny", 32)
    assert model.training and model.config._attn_implementation == "sdpa"
    ids = torch.randint(4, 100, (2, 32))
    inputs = {"input_ids": ids, "labels": torch.where(ids.gt(50), ids, -100)}
    if "modernbert" not in name:
        inputs["next_sentence_label"] = torch.tensor([0, 1])
    assert torch.equal(model(**inputs).loss, model(**inputs).loss)
