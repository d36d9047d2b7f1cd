"""Models of transformers that fairseq has not seen before, converted to it: their precision, their description."""

import pytest
import torch
from small_port import config, perturbed, pieces, tokenizer

from fairseq_lambda.conversion import checks
from fairseq_lambda.conversion.from_transformers import from_transformers
from fairseq_lambda.huggingface import LambdaBertForMaskedLM
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
