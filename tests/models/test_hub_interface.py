"""The hub: from a checkpoint alone, moved, without network; text in, predictions out."""

import copy
import io
import math
import pickle
import re
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
from conftest import random_documents, write_split
from fairseq.data import Dictionary
from training import load, train

from fairseq_lambda.commands import export as export_command
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import _fill
from fairseq_lambda.models.loading import load_checkpoint

WORDS = "the river runs north of a small town and its people built many bridges over the water in spring".split()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a checkpoint, trained on toy text through a real SentencePiece model."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "data"
    data.mkdir()
    text = [" ".join(WORDS[i % 7 : i % 7 + 9]) + "." for i in range(200)]
    with open(data / "sentencepiece.model", "wb") as file:  # trained from a file, it would keep the file's path
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=file, vocab_size=60, hard_vocab_limit=False, minloglevel=2
        )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(data / "sentencepiece.model"))
    pieces = [processor.id_to_piece(i) for i in range(len(processor)) if i > 2]
    (data / "dict.txt").write_text("".join(f"{p} 1\n" for p in pieces))
    dictionary = Dictionary.load(str(data / "dict.txt"))
    for split in ("train", "valid"):
        write_split(data, split, random_documents(words=len(dictionary) - 4))
    save_dir = folder / "run"
    train(data, save_dir, 4, "--tokens-per-sample", 64, "--absolute-positions", "auto")
    shutil.rmtree(data)  # the tests have the checkpoint and nothing else
    return save_dir


@pytest.fixture(scope="session")
def bert(trained):
    return LambdaBertModel.from_pretrained(trained)


def test_encode_and_decode(bert):
    ids = bert.encode("the river runs north.", "many bridges.")
    d = bert.task.source_dictionary
    assert ids[0] == d.bos() and ids[-1] == d.eos() and ids.dtype == torch.int64
    assert (ids == d.eos()).sum() == 3
    assert bert.decode(ids) == ["the river runs north.", "many bridges."]
    assert bert.decode(bert.encode("a small town")) == "a small town"
    assert d.unk() not in bert.encode("the river <mask> north.")
    assert d[bert.encode("the <mask>.")[-2]] == "."  # it starts no new word
    assert bert.decode(bert.encode("the <mask>.")) == "the <mask>."


def test_decode_without_pieces_of_pairs_and_of_what_is_no_text(bert):
    ids = bert.encode("the river <mask>.", "many bridges")
    assert bert.decode(ids) == ["the river <mask>.", "many bridges"] == bert.decode(ids.tolist())
    assert bert.decode(torch.tensor([], dtype=torch.int64)) == ""
    with pytest.raises(ValueError, match="ids of one text.*one by one"):
        bert.decode(ids[None])
    for bad in ([0, -1, 2], [0, 99999], [0.5], [1.0], "the river", None, [[0], [1, 2]]):
        with pytest.raises(ValueError, match="not an id of this vocabulary|neither a text nor ids|ids of one text"):
            bert.decode(bad)
    for bad in (None, 5, b"text", ["two", "texts"]):
        with pytest.raises(TypeError, match="encode takes texts .str., not"):
            bert.encode("one.", bad)
    pieces, bert.bpe = bert.bpe, None
    try:
        assert bert.decode(ids)[1].replace(" ", "").replace("\u2581", " ").strip() == "many bridges"
    finally:
        bert.bpe = pieces


def test_fill_mask_gives_distributions_over_real_pieces(bert):
    predictions = bert.fill_mask("the river <mask> north.", topk=7)
    assert len(predictions) == 7
    probabilities = [p.probability for p in predictions]
    assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    for p in predictions:
        assert "<" not in p.text and p.token in p.text and p.text.endswith("north.")
    everything = bert.fill_mask("a <mask>", topk=len(bert.task.source_dictionary) - 5)
    assert math.isclose(sum(p.probability for p in everything), 1, rel_tol=1e-5)
    ids = bert.encode("the river <mask> north.")
    logits, _ = bert.model(ids[None])
    at = (ids == bert.task.mask_idx).nonzero().item()
    best = bert.task.source_dictionary[logits[0, at, 4:-1].argmax() + 4]
    assert predictions[0].token == best.removeprefix("\u2581")


def test_fill_mask_several_masks(bert):
    first, second = bert.fill_mask("the <mask> runs <mask>.", topk=2)
    assert all(p.text.count("<mask>") == 1 for p in first + second)
    assert all(p.text.endswith("runs <mask>.") for p in first)
    assert all(p.text.startswith("the <mask> runs") for p in second)


def test_fill_mask_says_what_is_missing(bert):
    with pytest.raises(ValueError, match="no <mask> in 'plain text'"):
        bert.fill_mask("plain text")
    with pytest.raises(ValueError, match="topk=0"):
        bert.fill_mask("<mask>", topk=0)


def test_features_and_content_lambdas(bert):
    ids = bert.encode("the river runs")
    features, lambdas = bert.extract_features(ids, return_lambdas=True)
    assert features.shape == (1, len(ids), 16)
    assert [tuple(x.shape) for x in lambdas] == [(1, 4, 8)] * 2
    assert len(bert.extract_features(ids, return_all_hiddens=True)) == 3
    assert torch.equal(bert.extract_features(ids), features)


def test_sentence_order_is_a_probability(bert):
    assert 0 < bert.sentence_order("the river runs.", "many bridges.") < 1


def test_classification_head_and_predict(bert):
    bert.register_classification_head("topic", 3)
    scores = bert.predict("topic", bert.encode("the river"))
    assert scores.shape == (1, 3) and math.isclose(scores.exp().sum().item(), 1, rel_tol=1e-5)
    for classes in (None, 0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="num_classes=.*whole number of at least 1"):
            bert.register_classification_head("other", classes)
    for name in ("a.b", "", "keys", "training", 5):
        with pytest.raises(ValueError, match="a head cannot be named"):
            bert.register_classification_head(name, 3)
    with pytest.raises(ValueError, match=r"no classification head 'other' \(there is topic\): see register_class"):
        bert.predict("other", bert.encode("the river"))


def test_moved_and_exported_folders_work_the_same(bert, trained, tmp_path):
    expected = bert.fill_mask("the <mask> runs")
    moved = tmp_path / "a folder, moved"
    shutil.copytree(trained, moved)
    assert LambdaBertModel.from_pretrained(moved).fill_mask("the <mask> runs") == expected
    export_command.main([str(moved), "--dest", str(tmp_path / "out")])
    shutil.rmtree(moved)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "dict.txt", "sentencepiece.model", "config.json", "README.md"}
    assert LambdaBertModel.from_pretrained(tmp_path / "out").fill_mask("the <mask> runs") == expected
    for name in ("config.json", "README.md"):
        assert str(trained.parent) not in (tmp_path / "out" / name).read_text()
    assert str(trained.parent).encode() not in (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="already exists"):
        export_command.main([str(trained), "--dest", str(tmp_path / "out")])
    (tmp_path / "out" / "README.md").unlink()
    export_command.main([str(trained), "--dest", str(tmp_path / "out"), "--force"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == names


def test_a_piece_with_its_space_behind_is_filled_in_without_it():
    filled = _fill("The <mask> sat.", 4, "cat\u2581", 0.5)
    assert filled == ("The cat sat.", 0.5, "cat")


def test_a_checkpoint_from_before_there_were_gates(trained, tmp_path):
    state = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    state["model"] = {name: weight for name, weight in state["model"].items() if "gate_proj" not in name}
    del state["cfg"]["model"]["lambda_gate"]
    torch.save(state, tmp_path / "checkpoint_last.pt")
    layers = LambdaBertModel.from_pretrained(tmp_path).model.encoder.bert.encoder.layers
    assert all(layer.mixing.gate_proj is None for layer in layers)


def test_torch_hub(trained):
    root = str(Path(__file__).parents[2])
    bert = torch.hub.load(root, "lambda_bert", str(trained), source="local")
    assert bert.fill_mask("the <mask>", topk=1)


def test_loading_draws_nothing_from_the_global_generator(trained):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    LambdaBertModel.from_pretrained(trained)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("make,message", [
    (lambda f: f / "absent", "no such folder"),
    (lambda f: f, "holds no model.safetensors or model.pt or checkpoint_best.pt or checkpoint_last.pt"),
])  # fmt: skip
def test_folders_without_a_model(make, message, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        LambdaBertModel.from_pretrained(make(tmp_path))


def test_training_checkpoints_load_with_weights_only(trained):
    state = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    assert state["task_state"]["symbols"][-1] == "<mask>"
    assert load_checkpoint(trained / "checkpoint_last.pt")["cfg"].model._name == "lambda_bert_tiny"


def test_a_loaded_model_can_be_copied_and_pickled(bert):
    ids = bert.encode("the river runs")
    features = bert.extract_features(ids)
    stored = io.BytesIO()
    torch.save(bert, stored)
    for again in (copy.deepcopy(bert), pickle.loads(pickle.dumps(bert))):
        assert torch.equal(again.extract_features(again.encode("the river runs")), features)
    assert torch.equal(pickle.loads(pickle.dumps(bert.model))(ids[None], features_only=True)[0], features)


def test_a_head_has_dtype_and_mode_of_its_model_and_is_loaded_again_with_it(trained, tmp_path):
    bert = LambdaBertModel.from_pretrained(trained).to(torch.bfloat16)
    bert.register_classification_head("topic", 4)
    ids = bert.encode("the river runs")
    assert bert.predict("topic", ids).dtype == torch.bfloat16
    assert not bert.model.classification_heads["topic"].training
    state = load(trained, "checkpoint_best.pt")
    state["model"] = bert.model.state_dict()
    torch.save(state, tmp_path / "model.pt")
    again = LambdaBertModel.from_pretrained(tmp_path).to(torch.bfloat16)
    assert torch.equal(again.predict("topic", ids), bert.predict("topic", ids))


def test_the_backend_of_the_training_is_not_asked_for(trained, tmp_path):
    state = load(trained, "checkpoint_best.pt")
    state["cfg"]["model"]["lambda_backend"] = "triton"
    torch.save(state, tmp_path / "model.pt")
    layer = LambdaBertModel.from_pretrained(tmp_path).model.encoder.bert.encoder.layers[0].mixing
    assert layer.backend == "auto"
    bert = LambdaBertModel.from_pretrained(tmp_path, backend="reference")
    assert bert.model.encoder.bert.encoder.layers[0].mixing.backend == "reference"


def test_byte_pieces_are_never_filled_in(trained):
    bert = LambdaBertModel.from_pretrained(trained)
    dictionary = bert.task.source_dictionary
    best = bert.encode(bert.fill_mask("the <mask> north", topk=1)[0].token)[1]
    word = dictionary[best]
    dictionary.symbols[best] = "<0xE6>"  # as if the likeliest piece were a byte
    assert word.strip("\u2581") not in [p.token for p in bert.fill_mask("the <mask> north", topk=5)]
    assert "<0xE6>" not in [p.token for p in bert.fill_mask("the <mask> north", topk=5)]
