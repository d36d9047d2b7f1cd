"""A run that was stopped and resumed is the uninterrupted run, to the bit: weights, optimizer, logged losses."""

import logging

import pytest
from training import differences, logged, state_of_training, train

from fairseq_lambda.checkpointing.position import _same

UPDATES, EPOCH = 30, 21  # an epoch has 21 batches
NOISE = ["--dropout", ".1", "--encoder-layerdrop", ".3", "--log-interval", "4"]


PACKED = "--pack-documents --sentence-objective none --tokens-per-sample 64 --batch-size 1".split()
PACKED += "--lambda-layers 0 --attention-rotary --checkpoint-activations --absolute-positions none".split()


# each pair of workers and update frequency, each norm, and both places to stop
@pytest.mark.parametrize("norm,workers,update_freq,stop,more", [
    ("layer", 0, 1, EPOCH, []), ("rms", 2, 1, 13, []), ("none", 0, 2, 13, []), ("batch", 2, 2, 13, []),
    ("layer", 2, 1, 13, PACKED),
])  # fmt: skip
def test_resumed_run_is_the_uninterrupted_one(toy_data, tmp_path, caplog, norm, workers, update_freq, stop, more):
    caplog.set_level(logging.INFO)
    flags = ["--lambda-norm", norm, "--num-workers", workers, "--update-freq", update_freq, *NOISE, *more]
    flags += ["--save-interval-updates", stop]  # the uninterrupted run validates there too
    train(toy_data, tmp_path / "whole", UPDATES, *flags)
    expected = [line for line in logged(caplog) if line[0] != "valid"]

    train(toy_data, tmp_path / "parts", stop, *flags, of=UPDATES)
    first = [line for line in logged(caplog) if line[0] == "train_inner"]
    train(toy_data, tmp_path / "parts", UPDATES, *flags)
    second = [line for line in logged(caplog) if line[0] != "valid"]
    assert not differences(state_of_training(tmp_path / "whole"), state_of_training(tmp_path / "parts"))
    assert all(line in expected for line in first + second)
    assert len([n for n, _ in first + second if n == "train_inner"]) == [n for n, _ in expected].count("train_inner")


@pytest.mark.parametrize(
    ("flags", "warned"), [([], None), (["--batch-size", 8, "--seed", 2], "--seed 1, now 2, --batch-size 4, now 8")]
)
def test_other_batches_in_the_middle_of_an_epoch_are_no_secret(flags, warned, toy_data, tmp_path, caplog):
    train(toy_data, tmp_path, 6, of=UPDATES)
    caplog.clear()
    train(toy_data, tmp_path, 8, *flags, of=UPDATES)
    lines = [line for line in caplog.messages if "seen twice" in line]
    assert len(lines) == bool(warned)
    assert warned is None or f"was saved after 6 batches of an epoch with {warned}: until the end" in lines[0]


def test_other_batches_at_the_end_of_an_epoch_are_no_matter(toy_data, tmp_path, caplog):
    train(toy_data, tmp_path, EPOCH, of=UPDATES)
    train(toy_data, tmp_path, EPOCH + 1, "--batch-size", 8, of=UPDATES)
    assert "seen twice" not in caplog.text


def test_a_data_folder_that_was_moved_is_the_same(tmp_path, monkeypatch):
    old, new, other = (str(tmp_path / name) for name in ("old/data", "new/data", "new/others"))
    monkeypatch.chdir(tmp_path)
    for folder in (new, other):
        (tmp_path / folder).mkdir(parents=True)
    assert _same("data", old, new) and _same("data", f"{old}:{other}", f"{new}:new/others")
    assert not any(_same("data", *pair) for pair in ((old, other), (old, f"{old}:{new}"), (new, other)))
    (tmp_path / old).mkdir(parents=True)
    assert not _same("data", old, new)
