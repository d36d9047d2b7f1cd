"""Which file a run resumes from, under every flag that matters for it, and from where in the epoch."""

import errno
import logging
import pickle
import shutil
import zipfile
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import CheckpointConfig
from test_reading import Evil
from test_recovery import LAST, content, refused, tear, updates
from training import load, train

from fairseq_lambda.checkpointing import fairseq_hooks
from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.checkpointing.recovery import recover


@pytest.fixture
def folder(toy_run, tmp_path):
    return shutil.copytree(toy_run, tmp_path / "run")


def test_who_goes_back_to_an_older_one_is_not_sent_forward_again(toy_data, folder, caplog):
    """The files of the abandoned updates have more updates than the last one."""
    caplog.set_level(logging.INFO)
    train(toy_data, folder, 6, "--restore-file", folder / "checkpoint_1_4.pt", of=40)
    train(toy_data, folder, 8, of=40)
    assert f"{folder / LAST} at 6 updates" in caplog.text and updates(folder) == 8

    shutil.copyfile(folder / "checkpoint_1_4.pt", folder / LAST)
    before = content(folder)
    newest, _ = recover(folder)
    assert (newest.path.name, newest.updates, updates(folder)) == (LAST, 4, 4)
    assert set(before.values()) <= set(content(folder).values())  # set aside, not removed


def test_a_best_one_named_by_its_score_serves_too(folder):
    name = "checkpoint.best_mlm_loss_3.2110.pt"  # of --keep-best-checkpoints
    (folder / "checkpoint_1_8.pt").rename(folder / name)
    (folder / f"{name}.tmp").write_bytes(b"half")
    tear(folder / LAST)
    tear(folder / "checkpoint_best.pt")
    assert recover(folder)[0].updates == 8 and not (folder / f"{name}.tmp").exists()


def test_a_disk_that_does_not_answer_is_no_damage(folder, monkeypatch):
    def testzip(self):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "testzip", testzip)
    before = content(folder)
    with pytest.raises(CheckpointError, match=f"{LAST} cannot be read: Input/output error"):
        recover(folder)
    assert content(folder) == before


def test_a_second_damaged_file_leaves_the_first(folder):
    for half in (b"one", b"two"):
        (folder / LAST).write_bytes(half)
        recover(folder)
    assert (folder / f"{LAST}.damaged").read_bytes() == b"one" and (folder / f"{LAST}.damaged2").read_bytes() == b"two"


CONTINUE_ONCE = pytest.mark.skipif(not hasattr(CheckpointConfig, "continue_once"), reason="ve-fairseq's alone")


@pytest.mark.parametrize("flags,name", [
    (["--no-last-checkpoints"], LAST),
    pytest.param(["--continue-once", "other.pt"], "other.pt", marks=CONTINUE_ONCE),
    (["--checkpoint-suffix", "a"], "checkpoint_lasta.pt"),
])  # fmt: skip
def test_no_flag_lets_a_file_run_code(flags, name, toy_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"cfg": Evil()}, name)
    if "--checkpoint-suffix" in flags:
        with pytest.raises(pickle.UnpicklingError):
            train(toy_data, tmp_path, 2, *flags)
    else:
        assert "could run code; none of it was run" in refused(capsys, toy_data, tmp_path, 2, *flags)
    assert not (tmp_path / "evil-was-here").exists()


def test_a_run_without_last_ones_is_given_none(toy_data, folder):
    (folder / LAST).unlink()
    before = content(folder)
    train(toy_data, folder, 2, "--no-last-checkpoints", "--no-save")
    assert content(folder) == before


def test_batches_of_all_processes_are_skipped(toy_data, folder):
    """As if three processes had written the file: four batches each of the 21 of the epoch."""
    state = load(folder, "checkpoint_1_4.pt")
    state["cfg"]["distributed_training"]["distributed_world_size"] = 3
    torch.save(state, folder / LAST)
    train(toy_data, folder, 6, of=40)
    assert load(folder)["extra_state"]["train_iterator"]["iterations_in_epoch"] == 3 * 4 + 2


def test_what_does_not_divide_by_the_processes_is_said(toy_data, folder, monkeypatch, caplog):
    trainers = []
    monkeypatch.setattr(fairseq_hooks, "check_ranks", trainers.append)
    train(toy_data, folder, 11, of=40)
    one = trainers[0]
    three = SimpleNamespace(task=one.task, get_model=one.get_model, cfg=one.cfg, data_parallel_world_size=3)
    cfg = CheckpointConfig(restore_file=str(folder / "checkpoint_1_4.pt"))
    assert fairseq_hooks.prepare(cfg, three) == (fairseq_hooks.GO_ON, 4)
    assert "by 1 processes, but 3 resume: 1 of the 4 batches of this epoch so far will be seen again" in caplog.text


def test_an_epoch_that_has_got_shorter_is_begun_again_on_request(toy_data, folder):
    before = content(folder)
    with pytest.raises(SystemExit, match="^error: the checkpoint is 10 batches into an epoch that now has fewer"):
        train(toy_data, folder, 12, "--batch-size", 12, of=40)
    assert content(folder) == before
    train(toy_data, folder, 12, "--batch-size", 12, "--reset-dataloader", of=40)
    assert updates(folder) == 12


def test_another_optimizer_is_refused_in_one_line(toy_data, folder):
    before = content(folder)
    with pytest.raises(SystemExit, match=r"^error: Optimizer does not match; .*--reset-optimizer"):
        train(toy_data, folder, 12, "--optimizer", "sgd", of=40)
    assert content(folder) == before
