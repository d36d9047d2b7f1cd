"""``lambda-bert inspect`` on a folder of transformers: predictions only if the folder has the masked-LM head."""

import pytest
import torch
from small_port import batch, config, small, tokenizer

from fairseq_lambda.commands.inspect import main, open_model
from fairseq_lambda.huggingface import LambdaBertForPreTraining, LambdaBertForSequenceClassification
from fairseq_lambda.huggingface.tokenizer import save_tokenizer


def saved(kind, path):
    model = small(kind)
    model.save_pretrained(path)
    save_tokenizer(tokenizer(), path)
    return model


def test_a_folder_of_transformers_without_the_head_has_no_predictions(tmp_path, capsys):
    model = saved(LambdaBertForSequenceClassification, tmp_path / "model")
    reads = open_model(str(tmp_path / "model"))
    assert reads.lm_head is None
    tokens = batch()[0][:1]
    with torch.no_grad():
        found, expected = reads.core.eval()(tokens).features, model.lambda_bert(tokens).last_hidden_state
    torch.testing.assert_close(found, expected)

    note = "This model has no masked-LM head, so there are no predictions."
    main([str(tmp_path / "model"), "the river <mask> north.", "--out", str(tmp_path / "a")])
    said, files = capsys.readouterr().err, {path.name for path in (tmp_path / "a").iterdir()}
    assert note in (tmp_path / "a/index.html").read_text() and said.count(note) == 1 and "MISSING" not in said
    assert "rollout.svg" in files and not any("leave-one-out" in name for name in files)
    main([str(tmp_path / "model"), "the river", "--out", str(tmp_path / "b")])
    assert note in (tmp_path / "b/index.html").read_text() and note not in capsys.readouterr().err


def test_the_head_of_a_pretrained_folder_is_read(tmp_path):
    model = saved(LambdaBertForPreTraining, tmp_path / "model")
    features = torch.randn(3, config().hidden_size)
    with torch.no_grad():
        torch.testing.assert_close(open_model(str(tmp_path / "model")).lm_head(features), model.lm_head(features))


def test_a_folder_of_transformers_that_lacks_weights(tmp_path):
    model = small(LambdaBertForPreTraining)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "encoder.layers.1" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    save_tokenizer(tokenizer(), tmp_path)
    with pytest.raises(ValueError, match="lacks weights of the model, such as lambda_bert.core.encoder.layers.1"):
        open_model(str(tmp_path))
