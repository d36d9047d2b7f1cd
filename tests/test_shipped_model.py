"""The included model: by its name in place of a folder, everywhere; its card is true."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from preparing import as_text, plain_documents
from processes import ROOT
from safetensors.torch import load_file
from training import differences, load, train

from fairseq_lambda.checkpointing.exported import CONFIG, SHIPPED, WEIGHTS, shipped_names
from fairseq_lambda.commands import blimp, evaluate, fill_mask, finetune, preprocess
from fairseq_lambda.commands.inspect import open_model
from fairseq_lambda.files import sha256
from fairseq_lambda.models import LambdaBertModel

NAME = "lambda_bert_mini-enwiki"
SENTENCE = "The president of the United <mask> lives in Washington."
SHAPE = "--arch lambda_bert_mini --encoder-embed-dim 256 --encoder-ffn-embed-dim 1024 --lambda-key-depth 16 "
SHAPE += "--lambda-local-context 23 --lambda-layers 0,1,3 --attention-rotary --absolute-positions auto"


@pytest.fixture(scope="module")
def bert():
    return LambdaBertModel.from_pretrained(NAME)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_masks_are_filled(bert):
    states, other = bert.fill_mask(SENTENCE, topk=2)
    assert states.token == "States" and states.probability > 0.5 > other.probability
    new_york = bert.fill_mask("She moved from New <mask> City to Chicago.", topk=1)[0]
    assert new_york.text == "She moved from New York City to Chicago."
    one, two = bert.score(["She lives in London.", "lives London in She."])
    assert one > two


def test_the_card_is_of_these_weights_and_says_what_the_model_answers(bert):
    folder = SHIPPED / NAME
    config, card = json.loads((folder / CONFIG).read_text()), (folder / "README.md").read_text()
    scores = config["scores"]
    assert scores["weights"] == sha256(folder / WEIGHTS) and scores["weights"] in card
    texts, _, answers = zip(*scores["facts"]["answers"], strict=True)
    assert len(texts) == 20 and scores["facts"]["sentences"] == 100
    for text, found, given in zip(texts, bert.fill_mask(list(texts)), answers, strict=True):
        assert [p.token for p in found] == [piece.removeprefix("##") for piece in given] and f"| `{text}` |" in card
    assert set(scores["splits"]) == {"valid", "test"} and f"| {scores['splits']['valid']['mlm_ppl']:.2f} |" in card
    assert scores["blimp"]["paradigms"] == 67 and "CC BY-SA" in card


def test_weights_are_float16_on_the_disk_and_float32_in_memory(bert):
    stored = load_file(SHIPPED / NAME / WEIGHTS)
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    assert (SHIPPED / NAME / WEIGHTS).stat().st_size < 15e6
    model = bert.model.state_dict()
    assert all(model[name].dtype == torch.float32 and torch.equal(model[name], stored[name].float()) for name in stored)


def test_torch_hub_without_a_folder(bert):
    hub = torch.hub.load(str(ROOT), "lambda_bert", source="local")
    assert hub.fill_mask(SENTENCE) == bert.fill_mask(SENTENCE)


def test_a_local_folder_of_that_name_wins(toy_run):
    shutil.copytree(toy_run, NAME)
    assert LambdaBertModel.from_pretrained(NAME).cfg.model.encoder_embed_dim == 16
    shutil.rmtree(NAME)
    Path(NAME).mkdir()
    with pytest.raises(FileNotFoundError, match=f"^{NAME} holds no model.safetensors"):
        LambdaBertModel.from_pretrained(NAME)


def test_an_unknown_name_is_told_those_that_ship():
    assert NAME in shipped_names()
    with pytest.raises(FileNotFoundError, match=f"^lambda_bert_mini: no such folder; .* an included model: .*{NAME}"):
        LambdaBertModel.from_pretrained("lambda_bert_mini")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LambdaBertModel.from_pretrained(f"checkpoints/{NAME}")


def test_commands_take_the_name(bert, capsys):
    fill_mask.main([NAME, SENTENCE, "--topk", "1"])
    (states,) = bert.fill_mask(SENTENCE, topk=1)
    assert capsys.readouterr().out == f"{SENTENCE}\n  States {states.probability:.2f}\n"
    Path("pairs.jsonl").write_text('{"sentence_good": "She lives here.", "sentence_bad": "here She lives."}\n')
    blimp.main([NAME, "pairs.jsonl"])
    assert json.loads(Path("outputs/blimp", NAME, "scores.json").read_text())["overall"]["original"] == 100
    assert len(open_model(NAME).mixings) == 4
    Path("train.tsv").write_text("".join(f"a town {i}\t{'ab'[i % 2]}\n" for i in range(20)))
    finetune.main([NAME, "--train", "train.tsv", "--text", "1", "--label", "2", "--dry-run"])
    command = capsys.readouterr().out
    assert f"--finetune-from-model {SHIPPED / NAME / WEIGHTS}" in command and f"checkpoints/{NAME}-" in command


def test_a_training_starts_from_it_on_text_in_its_vocabulary(bert, capsys):
    Path("text.txt").write_text(as_text(plain_documents(60)))
    given = ["--vocabulary-from", NAME, "--valid-fraction", "0.2", "--dest", "data", "--workers", "1"]
    assert preprocess.main(["text.txt", *given]) == 0
    assert Path("data/sentencepiece.model").read_bytes() == (SHIPPED / NAME / "sentencepiece.model").read_bytes()
    evaluate.main([NAME, "--data", "data", "--splits", "valid", "--json", "scores.json"])
    assert json.loads(Path("scores.json").read_text())["weights"] == sha256(SHIPPED / NAME / WEIGHTS)
    train("data", "run", 1, *SHAPE.split(), "--finetune-from-model", NAME, "--lr", 0)
    assert not differences(dict(bert.model.state_dict()), dict(load("run")["model"]))
