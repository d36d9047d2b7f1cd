"""``lambda-bert finetune`` from files to a model, in this process, with a tiny model."""

import json
import random
import sys

import numpy as np
import pytest
import torch
from fine_tunings import launch_here, predicted, run, sentences, topic, topics, write_tsv  # noqa: F401  a fixture
from test_hub_interface import trained  # noqa: F401  a fixture
from training import differences, load, state_of_training

from fairseq_lambda.commands import evaluate, export, finetune, finetune_training
from fairseq_lambda.models import LambdaBertModel


def test_run_again_it_is_complete_and_test_is_not_read(topic, monkeypatch, capsys, trained):  # noqa: F811
    monkeypatch.setattr(finetune, "score", None)
    monkeypatch.setattr(finetune, "launch", None)
    run_again = ["--train", topic / "train.tsv", "--valid", "0.2", "--test", topic / "test.tsv", "--max-epoch", 6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fine_tunings.launch_here", None)
        run(patch, trained, topic / "run", *run_again)
    assert "is complete: nothing left to do" in capsys.readouterr().out


def test_other_data_in_the_same_folder_is_refused(topic, monkeypatch, trained):  # noqa: F811
    with pytest.raises(
        ValueError, match=r"holds a fine-tuning run on other data \(valid, seed\): choose another --save-dir"
    ):
        run(monkeypatch, trained, topic / "run", "--train", topic / "train.tsv", "--valid", topic / "test.tsv")


def test_pairs_and_seeds(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Whether both texts name the same thing; three seeds end with mean and spread."""
    rng = random.Random(0)
    rows = [(a, b, "same" if a == b else "other") for a, b in (rng.choices(["river", "town"], k=2) for _ in range(120))]
    write_tsv(tmp_path / "train.tsv", rows, ("sentence1", "sentence2", "label"))
    folder = run(
        monkeypatch, trained, tmp_path / "run", "--train", tmp_path / "train.tsv", "--seeds", "1,2", "--max-epoch", 8,
        "--metric", "f1",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert (
        "| valid | mean (deviation) |" in out and "F1 of same" in out and "best on the validation data by f1: " in out
    )
    best = out.strip().rsplit(" ", 1)[1]
    bert = LambdaBertModel.from_pretrained(best)
    assert bert.classify("river", "river").label == "same" and bert.classify(["town"], ["river"])[0].label == "other"
    ids = bert.encode("river", "town")
    np.testing.assert_array_equal(bert._join([bert.piece_ids("river"), bert.piece_ids("town")]), ids)
    with pytest.raises(ValueError, match=r"reads 2 text\(s\) at a time: give the second one as pair="):
        bert.classify("river")
    assert (folder / "seed-2" / "scores.json").is_file()
    with pytest.raises(FileNotFoundError, match=r"holds a model per seed: name one of its folders, such as .*seed-1$"):
        LambdaBertModel.from_pretrained(folder)


def test_regression(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    """The number of rivers, times 10, plus 100: the scale is learned from the file."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["river", "town"], k=4)) for _ in range(200)]
    rows = [(100 + 10 * text.split().count("river"), text) for text in texts]
    write_tsv(tmp_path / "train.tsv", rows, ("score", "text"))
    run(
        monkeypatch, trained, tmp_path / "run", "--train", tmp_path / "train.tsv", "--objective", "regression",
        "--max-epoch", 16, "--lr", 3e-3,
    )  # fmt: skip
    bert = LambdaBertModel.from_pretrained(tmp_path / "run")
    assert bert.classify("river river town river").label == pytest.approx(130, abs=4)
    assert bert.classify("river").probability is None
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["splits"]["valid"]
    assert scores["pearson"] > 0.95 and list(scores)[:2] == ["pearson", "spearman"]
    (tmp_path / "new.txt").write_text("town town town town\n")
    assert float(predicted(capsys, tmp_path / "run", tmp_path / "new.txt")[0]["score"]) == pytest.approx(100, abs=4)


def test_several_labels(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    rng = random.Random(0)
    words = ["river", "town", "spring"]
    chosen = [[w for w in words if rng.random() < 0.5] for _ in range(200)]
    rows = [("|".join(some), " ".join(["the", *some])) for some in chosen]
    write_tsv(tmp_path / "train.tsv", rows, ("labels", "text"))
    run(
        monkeypatch, trained, tmp_path / "run", "--train", tmp_path / "train.tsv", "--label-separator", "|",
        "--max-epoch", 16, "--lr", 3e-3, "--class-weights", "balanced",
    )  # fmt: skip
    bert = LambdaBertModel.from_pretrained(tmp_path / "run")
    found = bert.classify(["the river spring", "the town", "the"])
    assert [f.label for f in found] == [["river", "spring"], ["town"], []]
    assert found[0].probability == min(found[0].probabilities[n] for n in ("river", "spring"))
    assert found[2].probability == pytest.approx(1 - max(found[2].probabilities.values()))
    (tmp_path / "new.txt").write_text("the river spring\n")
    assert predicted(capsys, tmp_path / "run", tmp_path / "new.txt")[0]["label"] == "river,spring"


def test_tags_of_spans(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Long sentences are read in parts, in training and after it; no word is without a label."""
    data = list(sentences(150))
    lines = "\n\n".join("\n".join(f"{w} {t}" for w, t in zip(*s, strict=True)) for s in data)
    (tmp_path / "train.conll").write_text(lines + "\n")
    run(
        monkeypatch, trained, tmp_path / "run", "--train", tmp_path / "train.conll", "--max-epoch", 5,
        "--max-length", 12, "--layer-decay", 0.9,
    )  # fmt: skip
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["metric"] == "span_f1" and scores["splits"]["valid"]["span_f1"] == 1
    assert scores["splits"]["valid"]["shortened"] > 0
    bert = LambdaBertModel.from_pretrained(tmp_path / "run")
    long = [w for words, _ in sentences(30, seed=1) for w in words]
    expected = [t for _, tags in sentences(30, seed=1) for t in tags]
    with pytest.raises(TypeError, match="tag takes a text, the words of a text, or a list of lists"):
        bert.tag([["a"], "bc"])
    tagged = bert.tag(long)
    assert [t.word for t in tagged] == long and [t.label for t in tagged] == expected
    assert [t.label for t in bert.tag("in the town")] == ["O", "O", "B-PLACE"]
    (alone,), ((among,), nothing) = bert.tag(["town"]), bert.tag([["town"], []])
    assert among[:2] == alone[:2] and among.probability == pytest.approx(alone.probability) and nothing == []
    with pytest.raises(ValueError, match=r"labels words: use tag\(\)"):
        bert.classify("town")
    (tmp_path / "new.txt").write_text("in the town\n")
    rows = predicted(capsys, tmp_path / "run", tmp_path / "new.txt")
    assert [(row["word"], row["label"]) for row in rows] == [("in", "O"), ("the", "O"), ("town", "B-PLACE")]
    export.main([str(tmp_path / "run"), "--dest", str(tmp_path / "model")])
    assert LambdaBertModel.from_pretrained(tmp_path / "model").tag(long) == tagged


def test_a_frozen_encoder_stays_as_it_was(trained, topic, tmp_path, monkeypatch):  # noqa: F811
    run(
        monkeypatch, trained, tmp_path / "run", "--train", topic / "train.tsv", "--max-epoch", 1, "--freeze-encoder",
        "--dropout", "0.5",
    )  # fmt: skip
    before, after = load(trained, "checkpoint_best.pt")["model"], load(tmp_path / "run")["model"]
    shared = [name for name in after if name.startswith("encoder.")]
    assert shared and all(torch.equal(after[name], before[name]) for name in shared)
    assert any(name.startswith("classification_heads.") for name in after)


def test_resumed_in_an_epoch_it_ends_the_same_to_the_bit(trained, topic, tmp_path, monkeypatch):  # noqa: F811
    common = ["--train", topic / "train.tsv", "--max-epoch", 2, "--save-interval-updates", 5, "--dropout", "0.1"]
    whole = run(monkeypatch, trained, tmp_path / "whole", *common)
    monkeypatch.setattr("fine_tunings.launch_here", lambda *a: (launch_here(*a), sys.exit(9)))
    with pytest.raises(SystemExit):
        run(
            monkeypatch,
            trained,
            tmp_path / "cut",
            *common,
            "--max-update",
            20,
            "--total-num-update",
            34,
            "--warmup-updates",
            2,
        )
    monkeypatch.undo()
    cut = run(monkeypatch, trained, tmp_path / "cut", *common)
    assert not differences(state_of_training(whole), state_of_training(cut))
    assert not differences(state_of_training(whole, "checkpoint_best.pt"), state_of_training(cut, "checkpoint_best.pt"))


def test_a_fine_tuned_model_is_not_evaluated_as_a_pretrained_one(topic):  # noqa: F811
    with pytest.raises(ValueError, match="was fine-tuned: lambda-bert finetune has scored it"):
        evaluate.main([str(topic / "run"), "--data", "x", "--cpu"])
    with pytest.raises(ValueError, match="--sentence-objective none"):
        LambdaBertModel.from_pretrained(topic / "run").sentence_order("the", "town")


def test_dry_run_prints_the_architecture_of_the_model(trained, topic, tmp_path, capsys):  # noqa: F811
    finetune.main([str(trained), "--train", str(topic / "train.tsv"), "--save-dir", str(tmp_path / "run"), "--dry-run"])
    command = capsys.readouterr().out
    for flag in (
        "--encoder-embed-dim 16",
        "--lambda-key-depth 4",
        "--lambda-local-context 7",
        "--arch lambda_bert_tiny",
    ):
        assert flag in command
    assert "--pooling mean" in command and "--max-positions" not in command and "--warmup-updates 3 " in command


def test_the_length_of_a_table_of_positions_is_taken_over(toy_run):
    assert finetune_training.model_options(LambdaBertModel.from_pretrained(toy_run))["max_positions"] == 32


@pytest.mark.parametrize("arguments,message", [
    (["--train", "none.tsv"], "--train none.tsv: there is no such file"),
    (["--valid", "none.tsv"], "--valid none.tsv: there is no such file"),
    (["--valid", "1.5"], "--valid 1.5: a file, or a fraction of --train above 0 and below 1"),
    (["--text", "txt"], "has no column 'txt' (--text): it has 'label', 'sentence'"),
    (["--metric", "pearson"], "--metric pearson: classification has accuracy, matthews, macro_f1"),
    (["--seeds", "1,1"], "--seeds 1,1: a seed is given twice"),
    (["--seeds", "a"], "--seeds a: must be whole numbers"), (["--seed", "-1"], "--seed -1: must be at least 0"),
    (["--arch", "x"], "--arch follows from the model and the files: leave it out"),
    (["--max-length", "4"], "--max-length 4: must be at least 8"),
    (["--batch-size", "0"], "--batch-size 0: must be a whole number of at least 1"),
    (["--max-sentences=x"], "--batch-size x: must be a whole number of at least 1"),
    (["--update-freq", "0"], "--update-freq 0: must be a whole number of at least 1"),
    (["--max-epoch", "2.5"], "--max-epoch 2.5: must be a whole number of at least 1"),
    (["--max-tokens", "7"], "--max-tokens 7: the longest sample has "),
    (["--labels", "a,b,b,c"], "--labels a,b,b,c: 'b' is empty or given twice"),
    (["--layer-decay", "0"], "--layer-decay 0.0: must be above 0 and at most 1"),
    (["--class-weights", "d=2"], "--class-weights d=2: 'd=2' is not NAME=WEIGHT"),
])  # fmt: skip
def test_wrong_usage_is_one_line(trained, topic, tmp_path, monkeypatch, capsys, arguments, message):  # noqa: F811
    start = [] if "--train" in arguments else ["--train", topic / "train.tsv"]
    with pytest.raises((SystemExit, ValueError, OSError)) as end:
        run(monkeypatch, trained, tmp_path / "run", *start, *arguments)
    text = capsys.readouterr().err if isinstance(end.value, SystemExit) else str(end.value)
    assert message in text and text.strip().count("\n") == 0


@pytest.mark.parametrize("valid,message", [
    ([("z", "town")], "valid.tsv, line 2: the label 'z' is not in training, which has a, b, c"), ([], "is empty"),
])  # fmt: skip
def test_a_valid_file_that_does_not_fit(trained, topic, tmp_path, monkeypatch, valid, message):  # noqa: F811
    path = write_tsv(tmp_path / "valid.tsv", valid)
    with pytest.raises(ValueError) as error:
        run(monkeypatch, trained, tmp_path / "run", "--train", topic / "train.tsv", "--valid", path)
    assert message in str(error.value) and not (tmp_path / "run" / "data").exists()


@pytest.mark.parametrize("header,rows,message", [
    (("x", "sentence"), [("a", "town")], "which column is meant? Name it with --label"),
    (("label", "sentence"), [("z", "town")], "test.tsv, line 2: the label 'z' is not in training"),
    (("label", "sentence"), [], "test.tsv is empty"),
])  # fmt: skip
def test_a_test_file_that_does_not_fit(trained, topic, tmp_path, monkeypatch, header, rows, message):  # noqa: F811
    """It is an error before the training, not after it."""
    monkeypatch.setattr("fine_tunings.launch_here", None)
    path = write_tsv(tmp_path / "test.tsv", rows, header)
    with pytest.raises(ValueError) as error:
        run(monkeypatch, trained, tmp_path / "run", "--train", topic / "train.tsv", "--test", path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["own.txt", "labels.json"])
def test_a_data_folder_of_others_is_left_alone(trained, topic, tmp_path, monkeypatch, name):  # noqa: F811
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text('{"objective": "classification", "names": []}')
    with pytest.raises(OSError, match="data was not made by lambda-bert finetune: choose another --save-dir"):
        run(monkeypatch, trained, tmp_path, "--train", topic / "train.tsv")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [name]
