"""``lambda-bert export``: the card is made of the checkpoint and of files of scores, and of these only if they fit."""

import json

import facts
import pytest
from conftest import random_documents, write_split
from omegaconf import OmegaConf
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.checkpointing.exported import CONFIG, WEIGHTS
from fairseq_lambda.commands import blimp, evaluate, export
from fairseq_lambda.commands.card import data_name, fine_tuned_card
from fairseq_lambda.commands.card_scores import read_scores
from fairseq_lambda.files import sha256
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.metrics import names_of
from fairseq_lambda.models import LambdaBertModel

PAIR = {"sentence_good": "the river runs north.", "sentence_bad": "river the runs north."}


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):  # noqa: F811
    """An export without a card's scores, and a folder with the files of its scores beside it."""
    folder = tmp_path_factory.mktemp("scored")
    export.main([str(trained), "--dest", str(folder / "model"), "--dtype", "float16"])
    bert = LambdaBertModel.from_pretrained(folder / "model")
    (folder / "data").mkdir()
    bert.task.source_dictionary.save(str(folder / "data/dict.txt"))
    symbols = (folder / "data/dict.txt").read_text().splitlines()
    (folder / "data/dict.txt").write_text("\n".join(symbols[:-1]) + "\n")  # without <mask>
    for split in ("train", "valid"):
        write_split(folder / "data", split, random_documents(words=len(symbols) - 1))
    (folder / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    (folder / "facts.yaml").write_text("rivers:\n" + "".join(f"  - [the {i} <mask>., north]\n" for i in range(45)))
    evaluation = ["--data", folder / "data", "--json", folder / "evaluation.json"]  # which has no test split
    evaluate.main([str(word) for word in (folder / "model", *evaluation)])
    blimp.main([str(word) for word in (folder / "model", folder / "pairs.jsonl", "--dest", folder, "--limit", 5)])
    asked = ["--data", folder / "data", "--facts", folder / "facts.yaml", "--out", folder]
    facts.main([str(word) for word in (folder / "model", *asked)])
    return folder


def exported(source, dest, *flags):
    export.main([str(word) for word in (source, "--dest", dest, *flags)])
    return json.loads((dest / CONFIG).read_text()), (dest / "README.md").read_text()


def test_the_card_has_all_scores_and_what_no_checkpoint_knows(model, tmp_path):
    files = [model / name for name in ("evaluation.json", "scores.json", "facts.jsonl")]
    (tmp_path / "about.md").write_text("## Licence\n\nNone.\n")
    about = ["--about", tmp_path / "about.md"]
    config, card = exported(model / "model", tmp_path / "new", "--dtype", "float16", *about, "--scores", *files)
    weights = sha256(tmp_path / "new" / WEIGHTS)
    assert weights == sha256(model / "model" / WEIGHTS) == config["scores"]["weights"]
    assert f"Measured on this `model.safetensors`, SHA-256 `{weights}`." in card and "\n## Licence\n\nNone.\n" in card
    evaluation, pairs = (json.loads(file.read_text()) for file in files[:2])
    assert f"| valid | {evaluation['splits']['valid']['mlm_ppl']:.2f} | " in card
    overall = pairs["overall"]
    assert f"BLiMP, 1 paradigms, the first 5 pairs of each, {pairs['precision']}: {overall['original']:.1f} %" in card
    asked = next(line for line in map(json.loads, files[2].read_text().splitlines()) if line["model"] == "model")
    assert config["scores"]["facts"]["answers"] == asked["predictions"][::2] and card.count("| `the ") == 23
    assert f"| at 5 | {asked['accuracy']['rivers']['at 5']:.0f} | {asked['accuracy']['all']['at 5']:.0f} |" in card

    config, card = exported(model / "model", tmp_path / "single", "--scores", *files)  # other bytes: float32
    assert "Measured on this" not in card and f"| valid | {evaluation['splits']['valid']['mlm_ppl']:.2f} | " in card


def test_the_data_and_the_precision_of_other_runs():
    assert data_name("data-bin/one:/x/two/") == "one, two" and data_name(".") is None and data_name("..:a") is None
    half = {"common": {"fp16": True}, "criterion": {"autocast": "none"}, "dataset": {"batch_size": 4, "max_tokens": 99}}
    found = export.training(OmegaConf.create(half))
    assert found["precision"] == "float16" and found["samples_per_update"] is None


def test_how_it_was_trained_is_kept_by_an_export_of_an_export(trained, model, tmp_path):  # noqa: F811
    config, card = exported(model / "model", tmp_path / "again")
    assert config["data"] == "data" and config["training"]["samples_per_update"] == 4
    for row in (
        "training data | data", "updates | 4, of 4 samples each", "optimizer | adam, learning rate 0.01",
        "precision in training | float32",
    ):  # fmt: skip
        assert f"| {row} |" in card
    assert "| schedule | polynomial_decay: warmup_updates 5, " in card and "attention layers" not in card
    assert "## Scores" not in card and "None" not in card


def test_scores_of_another_model_or_kind_are_refused(trained, model, tmp_path):  # noqa: F811
    for name in ("evaluation.json", "scores.json", "facts.jsonl"):
        with pytest.raises(ValueError, match=f"^--scores .*{name} has no scores of these weights: make it again"):
            exported(trained, tmp_path / "new", "--scores", model / name)
    for content, message in (("{", "is not JSON: "), ("[1]", "has no scores"), ('{"a": 1}', "has no scores")):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=f"^--scores .*other.json {message}"):
            exported(model / "model", tmp_path / "new", "--scores", tmp_path / "other.json")
    assert not (tmp_path / "new").exists()


def test_scores_from_before_they_named_the_weights_are_taken(model, tmp_path):
    old = json.loads((model / "evaluation.json").read_text())
    del old["weights"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    _, card = exported(model / "model", tmp_path / "new", "--dtype", "float16", "--scores", tmp_path / "old.json")
    assert "| valid | " in card and "Measured on this" not in card


def test_json_lines_end_nowhere_else(tmp_path):
    entry = {"splits": {"valid": {}}, "data": "a\u2028b"}
    (tmp_path / "scores.jsonl").write_text(json.dumps(entry, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert read_scores([tmp_path / "scores.jsonl"], "sum") == entry


def test_signs_in_labels_do_not_break_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("fairseq_lambda.commands.card.about_the_model", lambda *_: {})
    labels = Labels("classification", ["a", "x|y"])
    splits = {"valid": {"texts": 1, "shortened": 0, **dict.fromkeys(names_of(labels), 1.0)}}
    config = {"scores": {"splits": splits}, "task_state": {"max_length": 8}, "about": None}
    text = fine_tuned_card("name", config, tmp_path, labels)
    assert r"| labels | a, x\|y |" in text and r" | F1 of x\|y |" in text
