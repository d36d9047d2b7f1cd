"""Models of transformers that fairseq has not seen before, converted to it: their precision, their description."""

import shutil

import pytest
import torch
from small_port import config, perturbed, pieces, symbols, tokenizer

from fairseq_lambda.conversion import checks
from fairseq_lambda.conversion.from_transformers import from_transformers
from fairseq_lambda.conversion.to_transformers import to_transformers
from fairseq_lambda.huggingface import (
    LambdaBertConfig,
    LambdaBertForMaskedLM,
    LambdaBertForPreTraining,
    LambdaBertForSequenceClassification,
)
from fairseq_lambda.huggingface.tokenizer import save_tokenizer
from fairseq_lambda.models import LambdaBertModel


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    monkeypatch.setattr(checks, "SENTENCES", 20)


def saved(folder, cls=LambdaBertForMaskedLM, dtype=torch.float32, **options):
    """A folder with a model, its tokenizer and its SentencePiece model; return the model."""
    model = perturbed(cls(config(**options))).to(dtype)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer(), folder)
    (folder / "sentencepiece.model").write_bytes(pieces())
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(dtype, tmp_path):
    model = saved(tmp_path / "half", dtype=dtype)
    report = from_transformers(tmp_path / "half", tmp_path / "back")
    assert report["logits"] <= 1e-5 and report["sentences"] == 20
    hub = LambdaBertModel.from_pretrained(tmp_path / "back")
    weight = hub.model.encoder.bert.embed_tokens.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, model.get_input_embeddings().weight.float())


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_the_recorded_objective_is_kept(objective, tmp_path):
    saved(tmp_path / "own", LambdaBertForPreTraining, fairseq={"task": {"sentence_objective": objective}})
    from_transformers(tmp_path / "own", tmp_path / "back")
    hub = LambdaBertModel.from_pretrained(tmp_path / "back")
    assert str(hub.task.cfg.sentence_objective) == objective
    if objective == "nsp":
        with pytest.raises(ValueError, match="sentence order needs sop"):
            hub.sentence_order("The film was released", "A city")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_what_is_classified_is_kept_both_ways(pooling, tmp_path):
    saved(tmp_path / "own", LambdaBertForSequenceClassification, num_labels=3, classifier_pooling=pooling)
    assert from_transformers(tmp_path / "own", tmp_path / "back")["logits"] <= 1e-5
    assert str(LambdaBertModel.from_pretrained(tmp_path / "back").task.cfg.pooling) == pooling
    assert to_transformers(tmp_path / "back", tmp_path / "again")["logits"] <= 1e-5
    assert LambdaBertConfig.from_pretrained(tmp_path / "again").classifier_pooling == pooling


@pytest.mark.parametrize(
    "cls, options, message",
    [
        (LambdaBertForMaskedLM, {"tie_word_embeddings": False}, "^tie_word_embeddings=False: .*; train with"),
        (LambdaBertForMaskedLM, {"pad_token_id": 0}, "^pad_token_id=0, but <pad> is 1 .*config.json"),
        (LambdaBertForMaskedLM, {"eos_token_id": None}, "^eos_token_id=None, but </s> is 2 .*config.json"),
        (
            LambdaBertForSequenceClassification,
            {"problem_type": "regression", "num_labels": 2},
            "^problem_type=regression with num_labels=2: .* train a model for each",
        ),
    ],
)
def test_what_fairseq_lacks_is_refused_with_a_remedy(cls, options, message, tmp_path):
    saved(tmp_path / "own", cls, **options)
    with pytest.raises(ValueError, match=message):
        from_transformers(tmp_path / "own", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_folder_without_a_tokenizer(tmp_path):
    saved(tmp_path / "own")
    (tmp_path / "own/tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json: call tokenizer\.save_pretrained"):
        from_transformers(tmp_path / "own", tmp_path / "back")


def test_added_tokens_are_refused_and_the_remedy_helps(tmp_path):
    model, first, added = saved(tmp_path / "own"), tokenizer(), tokenizer()
    added.add_tokens(["covidxyz"])
    save_tokenizer(added, tmp_path / "own")
    model.resize_token_embeddings(len(added))
    model.save_pretrained(tmp_path / "own")
    size = len(symbols(pieces()))
    with pytest.raises(ValueError, match=rf"'covidxyz', .*resize_token_embeddings\({size}\)"):
        from_transformers(tmp_path / "own", tmp_path / "back")
    shutil.rmtree(tmp_path / "own")
    model.resize_token_embeddings(size)
    model.save_pretrained(tmp_path / "own")
    save_tokenizer(first, tmp_path / "own")
    assert from_transformers(tmp_path / "own", tmp_path / "back")["model"] == "LambdaBertForMaskedLM"
