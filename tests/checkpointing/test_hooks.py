"""fairseq's handling of checkpoints is replaced for our models, under any task, and for no others."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import make_dictionary, make_model, write_split
from test_recovery import LAST, refused, tear
from training import differences, load, state_of_training, train

from fairseq_lambda.checkpointing import fairseq_hooks
from fairseq_lambda.commands import export
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.lambda_bert import _check_format

OWN_TASK = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", "--num-classes", 2]
OWN_TASK += ["--max-positions", 32, "--best-checkpoint-metric", "loss"]


def test_import_patches_nothing_and_sets_no_log_level():
    code = """
import logging
from fairseq import checkpoint_utils
before, levels = dict(vars(checkpoint_utils)), {n: logging.getLogger(n).level for n in ("", "fairseq")}
handlers = list(logging.getLogger().handlers)
import fairseq_lambda, fairseq_lambda.commands, fairseq_lambda.commands.__main__
assert vars(checkpoint_utils) == before, {k for k in before if vars(checkpoint_utils)[k] is not before[k]}
assert levels == {n: logging.getLogger(n).level for n in levels} and handlers == logging.getLogger().handlers
from conftest import make_model
make_model()
assert checkpoint_utils.PathManager is not before["PathManager"]
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
    code = "import logging, fairseq_lambda; assert logging.root.level == logging.WARNING and not logging.root.handlers"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_other_models_load_as_they_did(monkeypatch):
    make_model()
    calls = []
    monkeypatch.setattr(fairseq_hooks, "prepare", lambda *_: pytest.fail("not ours"))
    other = type("Trainer", (), {"get_model": lambda self: torch.nn.Linear(1, 1)})()
    loading = fairseq_hooks._loading(lambda cfg, trainer: calls.append(trainer), lambda t: False)
    loading(None, other)
    assert calls == [other]


@pytest.fixture(scope="module")
def labelled_data(tmp_path_factory):
    """Binarised texts whose first word determines the label, as fairseq's sentence_prediction reads them."""
    folder = tmp_path_factory.mktemp("labelled")
    make_dictionary().save(str(make_folder(folder, "input0") / "dict.txt"))
    labels = make_dictionary(2)
    labels.save(str(make_folder(folder, "label") / "dict.txt"))
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 40), ("valid", 8)):
        texts = torch.randint(4, 50, (count, 9), generator=generator).tolist()
        write_split(folder / "input0", split, [texts])
        write_split(folder / "label", split, [[[4 + text[0] % 2] for text in texts]])
    return folder


def make_folder(parent, name):
    (parent / name).mkdir()
    return parent / name


def test_fine_tuning_under_fairseqs_own_task_resumes_recovers_and_refuses(
    toy_run, labelled_data, tmp_path, caplog, capsys
):
    caplog.set_level(logging.INFO)
    flags = [*OWN_TASK, "--save-interval-updates", 4, "--finetune-from-model", toy_run / "checkpoint_best.pt"]
    train(labelled_data, tmp_path / "whole", 12, *flags)
    train(labelled_data, tmp_path / "parts", 8, *flags, of=12)
    tear(tmp_path / "parts" / LAST)
    train(labelled_data, tmp_path / "parts", 12, *flags)
    assert "skipped" in caplog.text and "resuming from" in caplog.text
    assert not differences(state_of_training(tmp_path / "whole"), state_of_training(tmp_path / "parts"))

    caplog.clear()
    with pytest.raises(SystemExit, match="^0$"):
        train(labelled_data, tmp_path / "whole", 12, *flags)
    assert "nothing left to do" in caplog.text
    make_dictionary(49).save(str(labelled_data / "input0" / "dict.txt"))
    try:
        assert "another dictionary: 55 symbols" in refused(capsys, labelled_data, tmp_path / "whole", 20, *flags)
    finally:
        make_dictionary().save(str(labelled_data / "input0" / "dict.txt"))


def test_the_hub_loads_what_was_saved_under_fairseqs_own_task(toy_run, labelled_data, tmp_path):
    """With its symbols and labels; for a checkpoint from before they were stored, the caller gives them."""
    train(labelled_data, tmp_path, 4, *OWN_TASK, "--finetune-from-model", toy_run / "checkpoint_best.pt")
    bert = LambdaBertModel.from_pretrained(tmp_path)
    names = ["\u2581w0", "\u2581w1"]
    assert bert.labels.names == names and bert.task.max_positions() == 32
    assert bert.task.source_dictionary.symbols[-1] == "<mask>" and bert.bpe is None
    tokens = torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]])
    rows = bert._text_rows(tokens)
    assert rows == pytest.approx(bert.predict("sentence_classification_head", tokens).exp().detach().numpy(), abs=1e-6)
    export.main([str(tmp_path), "--dest", str(tmp_path / "model")])
    assert (LambdaBertModel.from_pretrained(tmp_path / "model")._text_rows(tokens) == rows).all()

    state = load(tmp_path) | {"task_state": {}}
    torch.save(state, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"has no dictionary .*give the dict.txt of its data as dictionary="):
        LambdaBertModel.from_pretrained(tmp_path / "old.pt")
    dictionary = labelled_data / "input0" / "dict.txt"
    with pytest.raises(ValueError, match="labels= has 3 names, but the checkpoint has 2 classes"):
        LambdaBertModel.from_pretrained(tmp_path / "old.pt", dictionary=dictionary, labels=["a", "b", "c"])
    old = LambdaBertModel.from_pretrained(tmp_path / "old.pt", dictionary=str(dictionary), labels=["no", "yes"])
    assert old.labels.names == ["no", "yes"] and (old._text_rows(tokens) == rows).all()


def test_fairseqs_own_task_with_another_number_of_classes(labelled_data, tmp_path):
    with pytest.raises(ValueError, match="--num-classes 3: the data has 2 labels .*: use that number"):
        train(labelled_data, tmp_path, 2, *OWN_TASK, "--num-classes", 3)


@pytest.mark.parametrize("flag", ["--init-token", "--separator-token"])
def test_texts_are_joined_as_in_pretraining_or_not_at_all(flag, labelled_data, tmp_path):
    with pytest.raises(ValueError, match=f"{flag} 3: must be . .leave the flag out.*<s> A </s> </s> B </s>"):
        train(labelled_data, tmp_path, 2, *OWN_TASK, flag, 3)
    task = SimpleNamespace(
        source_dictionary=make_dictionary(), cfg=SimpleNamespace(init_token=None, separator_token=None)
    )
    _check_format(task)
    assert (task.cfg.init_token, task.cfg.separator_token) == (0, 2)


def test_a_file_that_does_not_exist_ends_fine_tuning_too(labelled_data, tmp_path, capsys):
    absent = ("--restore-file", tmp_path / "nosuch.pt")
    assert "nosuch.pt does not exist" in refused(capsys, labelled_data, tmp_path, 2, *OWN_TASK, *absent)


def test_a_run_without_its_optimizer_is_not_resumed(toy_data, tmp_path, capsys):
    train(toy_data, tmp_path, 4, "--no-save-optimizer-state", of=40)
    message = refused(capsys, toy_data, tmp_path, 8, "--no-save-optimizer-state")
    assert "--no-save-optimizer-state" in message and "--finetune-from-model" in message
    with pytest.raises(SystemExit) as finished:
        train(toy_data, tmp_path, 4, "--no-save-optimizer-state", of=40)
    assert finished.value.code == 0
    train(toy_data, tmp_path / "new", 2, "--finetune-from-model", tmp_path / LAST)


def test_patience_counts_on_over_a_restart_and_a_stopped_run_stays_stopped(toy_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    flags = ["--patience", 3, "--validate-interval-updates", 2, "--lr", 1e-9, "--maximize-best-checkpoint-metric"]
    flags += ["--best-checkpoint-metric", "sop_acc"]  # which does not change
    train(toy_data, tmp_path / "whole", 40, *flags)
    stopped = load(tmp_path / "whole")
    train(toy_data, tmp_path / "parts", 4, *flags, of=40)
    train(toy_data, tmp_path / "parts", 40, *flags)
    number = lambda state: state["optimizer_history"][-1]["num_updates"]  # noqa: E731
    assert number(load(tmp_path / "parts")) == number(stopped) < 40
    caplog.clear()
    with pytest.raises(SystemExit, match="^0$"):
        train(toy_data, tmp_path / "whole", 40, *flags)
    assert "has stopped early, nothing left to do" in caplog.text


def test_the_backend_is_not_stored(toy_data, tmp_path):
    train(toy_data, tmp_path, 2, "--lambda-backend", "reference")
    assert load(tmp_path)["cfg"]["model"]["lambda_backend"] == "auto"
