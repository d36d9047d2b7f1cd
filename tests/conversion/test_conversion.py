"""From a trained model to transformers and back: weights, logits, ids, perplexity, masks filled, labels."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", minversion="4.57")

from processes import ROOT, environment
from safetensors.torch import load_file
from test_hub_interface import trained  # noqa: F401  a fixture
from training import train
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

from fairseq_lambda import __version__
from fairseq_lambda.checkpointing.exported import SHIPPED
from fairseq_lambda.conversion import checks, to_transformers
from fairseq_lambda.conversion.from_transformers import from_transformers
from fairseq_lambda.huggingface import LambdaBertConfig
from fairseq_lambda.models import LambdaBertModel

OLD = Path(__file__).parents[1] / "checkpointing/version_0_1_0"


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("conversion") / "small-bert"
    report = to_transformers.to_transformers(trained, folder)
    assert report["model"] == "LambdaBertForPreTraining" and report["weights"] > 30
    assert report["logits"] <= 1e-5 and report["sentences"] == 1000
    return folder


@pytest.fixture(scope="module")
def hub(trained):  # noqa: F811
    return LambdaBertModel.from_pretrained(trained)


def test_weights_are_bit_equal_and_the_head_is_tied(converted, hub):
    stored = load_file(converted / "model.safetensors")
    ours = hub.model.state_dict()
    query = "encoder.layers.0.mixing.q_proj.weight"
    for name, theirs in (
        (f"encoder.bert.{query}", f"lambda_bert.core.{query}"),
        ("encoder.bert.lm_head.dense.weight", "lm_head.dense.weight"),
        ("encoder.bert.sentence_head.out_proj.bias", "sentence_classifier.bias"),
    ):
        assert torch.equal(ours[name], stored[theirs])
    assert ("lm_head.weight" in stored) + ("lambda_bert.core.embed_tokens.weight" in stored) == 1
    model = AutoModelForPreTraining.from_pretrained(converted)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_probability_of_the_order_is_the_hubs(converted, hub):
    tokenizer, model = AutoTokenizer.from_pretrained(converted), AutoModelForPreTraining.from_pretrained(converted)
    first, second = "the river runs north.", "many bridges over the water"
    logits = model(**tokenizer(first, second, return_tensors="pt")).sentence_logits
    assert logits.softmax(-1)[0, 0].item() == pytest.approx(hub.sentence_order(first, second), abs=1e-6)


def test_masks_are_filled_as_by_the_hub(converted, hub):
    fill = pipeline("fill-mask", str(converted))
    for text in ("the river <mask> north.", "<mask> built many bridges", "a small <mask>", "its water in <mask>."):
        found, ours = fill(text, top_k=3), hub.fill_mask(text, topk=3)
        special = set(AutoTokenizer.from_pretrained(converted).all_special_tokens)
        found = [p for p in fill(text, top_k=10) if p["token_str"] not in special][:3]
        assert [p["token_str"].strip() for p in found] == [p.token for p in ours]
        assert [p["sequence"] for p in found] == [p.text for p in ours]
        # the hub leaves symbols out and shares their probability out
        assert [p["score"] for p in found] == pytest.approx([p.probability for p in ours], rel=0.15)


def test_lambdas_are_the_hubs(converted, hub):
    model = AutoModelForMaskedLM.from_pretrained(converted, output_lambda_params=True)
    ids = hub.encode("the river runs north of a small town")
    _, ours = hub.extract_features(ids, return_lambdas=True)
    for found, expected in zip(model(ids[None]).lambdas, ours, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("how", ["folder", "saved again"])
def test_there_and_back(converted, hub, how, tmp_path):
    folder, pieces = converted, None
    if how == "saved again":  # without the SentencePiece model
        folder, pieces = tmp_path / "again", converted / "sentencepiece.model"
        AutoModelForPreTraining.from_pretrained(converted).save_pretrained(folder)
        AutoTokenizer.from_pretrained(converted).save_pretrained(folder)
    report = from_transformers(folder, tmp_path / "back", pieces)
    assert report["added"] == [] and report["sentences"] == 1000
    again = LambdaBertModel.from_pretrained(tmp_path / "back")
    ours, theirs = hub.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = "the river <mask> north."
    assert again.fill_mask(text) == hub.fill_mask(text)
    assert str(again.task.cfg.sentence_objective) == "sop" and again.task.cfg.tokens_per_sample == 64


def test_goes_on_in_fairseq(converted, toy_data, tmp_path):
    """A model that was converted back can start a training, as any exported model can."""
    from_transformers(converted, tmp_path / "back")
    hub = LambdaBertModel.from_pretrained(tmp_path / "back")
    assert hub.cfg.model._name == "lambda_bert_tiny"
    loss = hub.task.build_criterion(hub.cfg.criterion)
    assert loss.sentence_scale > 0


@pytest.mark.parametrize("labels", [["dull", "good", "odd"], []])
def test_fine_tuned_in_transformers_and_used_by_the_hub(converted, labels, tmp_path):
    names = dict(enumerate(labels or ["number"]))
    model = AutoModelForSequenceClassification.from_pretrained(
        converted, id2label=names, label2id={name: i for i, name in names.items()}, label_mean=2.5, label_deviation=0.5,
        problem_type="single_label_classification" if labels else "regression",
    )  # fmt: skip
    with torch.no_grad():
        model.classifier.weight.normal_()
    model.save_pretrained(tmp_path / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(converted)
    tokenizer.save_pretrained(tmp_path / "tuned")
    report = from_transformers(tmp_path / "tuned", tmp_path / "back", converted / "sentencepiece.model")
    assert any("lm_head" in name for name in report["added"])
    again = LambdaBertModel.from_pretrained(tmp_path / "back")
    texts = ["the river runs north.", "a small town"]
    logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    found = again.classify(texts)
    if labels:
        assert [p.label for p in found] == [labels[i] for i in logits.argmax(-1)]
        assert [p.probability for p in found] == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=1e-5)
    else:
        assert [p.label for p in found] == pytest.approx(logits[:, 0].tolist(), abs=1e-5)
    # and to transformers again
    to_transformers.to_transformers(tmp_path / "back", tmp_path / "there")
    there = AutoModelForSequenceClassification.from_pretrained(tmp_path / "there")
    assert there.config.id2label == names and there.config.problem_type == model.config.problem_type
    assert all(torch.equal(a, b) for a, b in zip(there.state_dict().values(), model.state_dict().values(), strict=True))
    torch.testing.assert_close(there(**tokenizer(texts, padding=True, return_tensors="pt")).logits, logits)


def test_tagging_goes_both_ways(converted, tmp_path):
    names = {0: "O", 1: "B-X", 2: "I-X"}
    model = AutoModelForTokenClassification.from_pretrained(
        converted, id2label=names, label2id={name: i for i, name in names.items()}
    )
    model.save_pretrained(tmp_path / "tagger")
    AutoTokenizer.from_pretrained(converted).save_pretrained(tmp_path / "tagger")
    from_transformers(tmp_path / "tagger", tmp_path / "back", converted / "sentencepiece.model")
    hub = LambdaBertModel.from_pretrained(tmp_path / "back")
    assert hub.task.labels.names == list(names.values()) and hub.task.labels.objective == "tagging"
    report = to_transformers.to_transformers(tmp_path / "back", tmp_path / "there")
    assert report["model"] == "LambdaBertForTokenClassification"


def test_models_of_version_0_1_0_without_pieces(tmp_path):
    report = to_transformers.to_transformers(OLD / "exported", tmp_path / "old")
    assert report["sentences"] == 0 and not (tmp_path / "old/tokenizer.json").exists()
    expected = LambdaBertModel.from_pretrained(OLD / "exported")
    ids = torch.randint(4, len(expected.task.source_dictionary) - 1, (2, 16))
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "old")
    torch.testing.assert_close(model(ids).logits, expected.model(ids)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "flags",
    [
        "--lambda-layers 0 --attention-rotary",
        "--lambda-norm batch --post-norm",
        "--sentence-objective none --lambda-local-context 0",
    ],
)
def test_other_kinds(toy_data, flags, tmp_path):
    train(toy_data, tmp_path / "run", 2, *flags.split())
    report = to_transformers.to_transformers(tmp_path / "run", tmp_path / "there")
    assert report["logits"] <= 1e-5
    assert report["model"] == "LambdaBertFor" + ("MaskedLM" if "none" in flags else "PreTraining")


def test_the_included_model_goes_there_and_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, text = "lambda_bert_mini-enwiki", "He was born in New <mask> and moved to England."
    report = to_transformers.to_transformers(Path(name), Path("there"))
    assert report["model"] == "LambdaBertForPreTraining" and report["logits"] <= 1e-5 and report["sentences"] == 1000
    ours, theirs = LambdaBertModel.from_pretrained(name), pipeline("fill-mask", model="there", trust_remote_code=True)
    found, expected = theirs(text, top_k=3), ours.fill_mask(text, topk=3)
    assert [p["token_str"] for p in found] == [p.token for p in expected]
    assert [p["score"] for p in found] == pytest.approx([p.probability for p in expected], rel=1e-3)
    from_transformers(Path("there"), Path("back"))
    assert LambdaBertModel.from_pretrained("back").fill_mask(text, topk=3) == expected


def test_perplexity_over_a_split_is_that_of_evaluate(toy_run, toy_data, tmp_path):
    from fairseq_lambda.commands.evaluate import evaluate

    hub = LambdaBertModel.from_pretrained(toy_run)
    hub.task.cfg.data = str(toy_data)
    expected = evaluate(hub, ["valid"], 8)["valid"]
    to_transformers.to_transformers(toy_run, tmp_path / "there")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "there")
    hub.task.load_dataset("valid")
    data, total, count = hub.task.dataset("valid"), 0.0, 0
    for start in range(0, len(data), 8):
        batch = data.collater([data[i] for i in range(start, min(start + 8, len(data)))])
        labels = batch["target"].masked_fill(batch["target"].eq(1), -100)
        masked = labels.ne(-100).sum().item()
        total += model(batch["net_input"]["src_tokens"], labels=labels).loss.item() * masked
        count += masked
    assert count == expected["masked_tokens"]
    assert total / count == pytest.approx(expected["mlm_loss"], rel=1e-6)


def test_nothing_is_written_unless_all_is_equal(trained, tmp_path, monkeypatch):  # noqa: F811
    destination = tmp_path / "there"
    wrong = {
        "check_weights": lambda a, b: checks.check_weights({name: w + 1 for name, w in a.items()}, b),
        "check_logits": lambda a, b, o: checks.check_logits(lambda tokens: [x + 1 for x in a(tokens)], b, o),
        "check_ids": lambda e, t, p: checks.check_ids(lambda text: [*e(text), 9], t, p),
    }
    messages = ("the weight .* differs", "logits differ by", "the tokenizer encodes")
    for (name, check), message in zip(wrong.items(), messages, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(to_transformers, name, check)
            with pytest.raises(checks.NotEqual, match=message):
                to_transformers.to_transformers(trained, destination)
        assert list(tmp_path.iterdir()) == []


def test_all_may_read_the_files(converted):
    modes = {path.stat().st_mode & 0o777 for path in converted.iterdir() if path.is_file()}
    assert len(modes) == 1


def test_a_folder_for_fairseq_is_not_taken_for_one_of_transformers():
    with pytest.raises(ValueError, match="convert it with lambda-bert to-transformers"):
        LambdaBertConfig.from_pretrained(SHIPPED / "lambda_bert_mini-enwiki")


def test_what_fairseq_cannot_have_is_refused(converted, tmp_path):
    def edited(**changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(converted, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        from_transformers(tmp_path / "nowhere", tmp_path / "back")
    with pytest.raises(FileExistsError, match="--dest"):
        from_transformers(converted, converted)
    for convert in (from_transformers, to_transformers.to_transformers):
        with pytest.raises(FileExistsError, match="what is to be converted"):
            convert(converted, converted, force=True)
    with pytest.raises(ValueError, match="LambdaBertForQuestionAnswering"):
        from_transformers(edited(architectures=["LambdaBertForQuestionAnswering"]), tmp_path / "back")
    model = AutoModelForPreTraining.from_pretrained(converted)
    model.resize_token_embeddings(model.config.vocab_size + 3)
    folder = edited()
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        from_transformers(folder, tmp_path / "back")
    assert LambdaBertConfig.from_pretrained(converted).fairseq["task"]["data"] == "."


def test_the_commands(trained, tmp_path):  # noqa: F811
    run = [sys.executable, "-W", "ignore", "-m", "fairseq_lambda.commands"]
    for command in (["to-transformers", trained, "--dest", "there"], ["from-transformers", "there", "--dest", "back"]):
        done = subprocess.run(
            [*run, *map(str, command)], cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert (
            "it/s" not in done.stderr
            and "weights bit-equal" in done.stdout
            and "ids of 1,000 sentences equal" in done.stdout
        )
    card = (tmp_path / "there/README.md").read_text()
    assert "trust_remote_code=True" in card and f"| trained with | fairseq_lambda {__version__} |" in card
    done = subprocess.run(
        [*run, "to-transformers", "nowhere", "--dest", "there2"], cwd=tmp_path, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: nowhere: no such folder")
    for script in ("to_transformers", "from_transformers"):
        assert (ROOT / f"scripts/{script}.sh").is_file()
