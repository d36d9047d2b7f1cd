"""``lambda-bert preprocess --vocabulary-from MODEL``: your own text for a model that is already trained."""

import json
import shutil

import pytest
import torch
from preparing import as_text, only_error, plain_documents
from training import load, train

from fairseq_lambda.commands import export, preprocess
from fairseq_lambda.corpora.prepared_folder import REPORT


@pytest.fixture(scope="module")
def models(prepared, tmp_path_factory):
    """A training folder, a checkpoint away from it, an exported folder, and the data that the model was trained on."""
    folder = tmp_path_factory.mktemp("models")
    train(prepared, folder / "run", 2)
    (folder / "file").mkdir()
    shutil.copy(folder / "run" / "checkpoint_last.pt", folder / "file" / "model.pt")
    export.main([str(folder / "run"), "--dest", str(folder / "exported")])
    return {
        "run": folder / "run",
        "file": folder / "file" / "model.pt",
        "exported": folder / "exported",
        "data": prepared,
    }


def own_text(folder):
    path = folder / "my-text.txt"
    path.write_text(as_text(plain_documents(60, seed=9)).lower())  # as the text of the model
    return path


def preprocess_own(folder, origin, dest="data"):
    arguments = [own_text(folder), "--vocabulary-from", origin, "--valid-fraction", 0.2, "--dest", folder / dest]
    return preprocess.main([*map(str, arguments), "--workers", "1"])


def test_the_vocabulary_is_that_of_the_model_wherever_it_lies(models, prepared, tmp_path):
    for name, origin in models.items():
        assert preprocess_own(tmp_path, origin, name) == 0
    outputs = [json.loads((tmp_path / name / REPORT).read_text())["outputs"] for name in models]
    assert all(hashes == outputs[0] for hashes in outputs)
    assert (tmp_path / "run" / "sentencepiece.model").read_bytes() == (prepared / "sentencepiece.model").read_bytes()
    symbols = [
        [line.rsplit(" ", 1)[0] for line in (folder / "dict.txt").read_text().splitlines()]
        for folder in (tmp_path / "run", prepared)
    ]
    assert symbols[0] == symbols[1]


@pytest.mark.parametrize("name", ["run", "exported"])
def test_training_starts_from_the_models_weights(models, tmp_path, name):
    assert preprocess_own(tmp_path, models[name]) == 0
    train(tmp_path / "data", tmp_path / "new", 1, "--finetune-from-model", models[name], "--lr", 0)
    weights, before = load(tmp_path / "new")["model"], load(models["run"])["model"]
    assert weights.keys() == before.keys() and all(torch.equal(weights[key], before[key]) for key in weights)


def test_what_is_no_model_is_refused_in_one_line(models, toy_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert preprocess_own(tmp_path, tmp_path / "empty") == 1
    assert "neither a prepared folder (dict.txt and sentencepiece.model), nor a training folder" in only_error(capsys)
    assert preprocess_own(tmp_path, toy_run) == 1  # of data that was binarised by other means
    assert "without a sentencepiece.model, so no text can be encoded for it" in only_error(capsys)
    damaged = shutil.copytree(models["exported"], tmp_path / "damaged")
    (damaged / "sentencepiece.model").write_bytes(b"altered")
    assert preprocess_own(tmp_path, damaged) == 1
    assert "sentencepiece.model is not as it was exported" in only_error(capsys)
    (tmp_path / "torn.pt").write_bytes(models["file"].read_bytes()[:1000])
    assert preprocess_own(tmp_path, tmp_path / "torn.pt") == 1
    assert "torn.pt cannot be read" in only_error(capsys)
