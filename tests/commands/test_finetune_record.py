"""A folder with a fine-tuning takes no command that would have trained something else."""

import json
import shutil

import pytest
from fine_tunings import run, topic  # noqa: F401  a fixture
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.commands import export, finetune
from fairseq_lambda.commands.finetune_record import FILE, check, made_by


def again(monkeypatch, model, topic, *flags, folder=None):  # noqa: F811
    """Give the command of the fixture once more; return whether it starts a training."""
    monkeypatch.setattr("fine_tunings.launch_here", lambda *_: started.append(1))
    monkeypatch.setattr(finetune, "score", lambda *_: {"texts": 1, "shortened": 0, **dict.fromkeys(SCORES, 1.0)})
    started = []
    files = ["--train", topic / "train.tsv", "--test", topic / "test.tsv", "--valid", "0.2", "--max-epoch", 6]
    run(monkeypatch, model, folder or topic / "run", *files, *flags)
    return bool(started)


SCORES = ("accuracy", "matthews", "macro_f1")


@pytest.mark.parametrize("flags,message", [
    (["--lr", "1e-3"], "--lr 1e-2, now --lr 1e-3"),
    (["--freeze-encoder"], "no --freeze-encoder, now --freeze-encoder"),
    (["--metric", "macro_f1", "--layer-decay=.9"], "no --layer-decay, now --layer-decay .9; --metric accuracy, now "),
])  # fmt: skip
def test_other_options_are_refused(topic, monkeypatch, trained, flags, message):  # noqa: F811
    before = (topic / "run" / "scores.json").read_bytes()
    with pytest.raises(ValueError) as error:
        again(monkeypatch, trained, topic, *flags)
    text = str(error.value)
    assert f"run holds a fine-tuning with {message}" in text and text.endswith(": choose another --save-dir")
    assert (topic / "run" / "scores.json").read_bytes() == before


def test_another_model_at_the_same_path_is_refused(topic, monkeypatch, trained, tmp_path):  # noqa: F811
    export.main([str(trained), "--dest", str(tmp_path / "model")])
    with pytest.raises(ValueError, match="holds a fine-tuning with another model: choose another --save-dir"):
        again(monkeypatch, tmp_path / "model", topic)


def test_what_does_no_harm_may_change(topic, monkeypatch, trained, tmp_path):  # noqa: F811
    folder = shutil.copytree(topic / "run", tmp_path / "run")
    assert again(monkeypatch, trained, topic, "--lr", "0.010", "--dropout=0.0", folder=folder)  # the same numbers
    flags = ["--max-epoch", 7, "--patience", 2, "--nproc", 2, "--log-interval", 1, "--fp16", "--autocast", "none"]
    assert again(monkeypatch, trained, topic, *flags, folder=folder)


def test_a_folder_of_an_older_version_is_used_as_before(topic, monkeypatch, trained, tmp_path):  # noqa: F811
    folder = shutil.copytree(topic / "run", tmp_path / "run")
    (folder / FILE).unlink()
    assert again(monkeypatch, trained, topic, "--lr", "1e-3", folder=folder) and not (folder / FILE).exists()


def test_until_something_is_saved_flags_can_be_corrected(tmp_path):
    check(tmp_path, {"--lr": "1e0"})
    check(tmp_path, {"--lr": "2.0"})
    (tmp_path / "checkpoint_last.pt").touch()
    check(tmp_path, {"--lr": "2.0"})
    with pytest.raises(ValueError, match=r"--lr 2.0, now --lr 1e0: choose"):
        check(tmp_path, {"--lr": "1e0"})


def test_flags_of_a_command():
    command = ["python", "-m", "x", "data", "--lr", "1e-4", "--cpu", "--adam-betas", "(0.9, 0.98)", "--lr=2", "--fp16"]
    assert made_by([*command, "--freeze-encoder"], "sum") == {
        "model": "sum", "--lr": "2", "--adam-betas": "(0.9, 0.98)", "--freeze-encoder": "",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"splits": {}})])
def test_a_file_of_scores_of_another_command(topic, monkeypatch, trained, tmp_path, text):  # noqa: F811
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ValueError, match="scores.json was not written by lambda-bert finetune: choose another --save"):
        again(monkeypatch, trained, topic, folder=tmp_path)
