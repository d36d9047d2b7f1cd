"""After a kill the run resumes from the newest whole checkpoint, and says what it skipped; else nothing is touched."""

import logging
import shutil
from dataclasses import fields

import pytest
import torch
from test_reading import Evil
from training import differences, load, state_of_training, train, write_data

from fairseq_lambda.checkpointing import recovery, writing
from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.checkpointing.recovery import recover
from fairseq_lambda.files import UNFINISHED
from fairseq_lambda.modules.lambda_bert_options import HARMLESS, LambdaBertOptions
from fairseq_lambda.tasks import MaskedLMSOPTask

LAST = "checkpoint_last.pt"


@pytest.fixture
def folder(toy_run, tmp_path):
    return shutil.copytree(toy_run, tmp_path / "run")


def updates(folder, name=LAST):
    return load(folder, name)["optimizer_history"][-1]["num_updates"]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_whole_folder_is_left_as_it_is(folder):
    before = content(folder)
    newest, done = recover(folder)
    assert (newest.path.name, newest.updates, done) == (LAST, 10, []) and content(folder) == before


def test_no_folder_and_an_empty_one_are_a_new_run(tmp_path):
    assert recover(tmp_path) == recover(tmp_path / "absent") == (None, [])


def test_a_torn_last_one_is_put_aside_and_an_older_one_serves(folder):
    tear(folder / LAST)
    tear(folder / "checkpoint_best.pt")
    torn, eight = (folder / LAST).read_bytes(), (folder / "checkpoint_1_8.pt").read_bytes()
    newest, done = recover(folder)
    assert (newest.path.name, newest.updates) == (LAST, 8)
    after = content(folder)
    assert after[LAST] == eight and after[LAST + recovery.ASIDE] == torn
    assert any("skipped" in line and LAST in line and "torn" in line for line in done)
    assert recover(folder) == (newest, [])  # all done


@pytest.mark.parametrize("kept", ["checkpoint_best.pt", "checkpoint_1_4.pt"])
def test_any_one_that_is_whole_will_do(folder, kept):
    expected = updates(folder, kept)
    for path in folder.iterdir():
        if path.name != kept:
            tear(path)
    newest, _ = recover(folder)
    assert newest.updates == expected == updates(folder)


def test_newest_is_told_by_the_updates_in_it_not_by_its_date(folder):
    (folder / "checkpoint_1_4.pt").touch()
    assert recover(folder)[0].updates == 10


@pytest.mark.parametrize("better", [True, False])
def test_a_save_cut_short_between_its_copies_is_completed(folder, better):
    """The new file is whole, but not yet copied to the best and the last one; a worse one does not become the best."""
    state = load(folder)
    state["optimizer_history"][-1]["num_updates"] = 12
    state["extra_state"]["best"] = state["extra_state"]["val_loss"] - (not better)
    torch.save(state, folder / "checkpoint_1_12.pt")
    before = content(folder)
    newest, done = recover(folder)
    after, new = content(folder), before["checkpoint_1_12.pt"]
    assert newest.updates == 12 and len(done) == 1 + better and after[LAST] == new
    assert after["checkpoint_best.pt"] == (new if better else before["checkpoint_best.pt"])


def test_unfinished_writes_are_removed_and_other_files_are_not(folder):
    (folder / f"checkpoint_1_12.pt{UNFINISHED}").write_bytes(b"half")
    (folder / f"checkpoint_mine.pt{UNFINISHED}").write_bytes(b"mine")
    _, done = recover(folder)
    assert len(done) == 1 and "an unfinished write" in done[0]
    assert "checkpoint_1_12.pt.tmp" not in content(folder) and "checkpoint_mine.pt.tmp" in content(folder)


def test_nothing_whole_is_refused_and_nothing_touched(folder):
    for path in folder.iterdir():
        tear(path)
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"no whole checkpoint to resume from.*another --save-dir"):
        recover(folder)
    assert content(folder) == before


def test_a_copy_that_fails_leaves_the_old_file(folder, monkeypatch):
    before = content(folder)

    def half(source, part):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.shutil, "copyfile", half)
    monkeypatch.setattr(writing, "PAUSE", 0)
    with pytest.raises(OSError, match="No space left on device; free some space"):
        writing.copy_whole(folder / "checkpoint_1_4.pt", folder / LAST)
    assert content(folder) == before


def test_a_save_that_fails_once_is_whole_the_second_time(folder, monkeypatch):
    """fairseq appends the second attempt to the first, and replaces the good file with both."""
    save, calls = torch.save, []

    def failing(state, file):
        calls.append(1)
        if len(calls) == 1:
            file.write_bytes(b"half")
            raise OSError(5, "Input/output error")
        save(state, file)

    monkeypatch.setattr(torch, "save", failing)
    monkeypatch.setattr(writing, "PAUSE", 0)
    writing.save_whole({"a": torch.ones(2)}, folder / LAST)
    assert len(calls) == 2 and torch.equal(load(folder)["a"], torch.ones(2))


def test_a_copy_that_fails_twice_is_whole_the_third_time(folder, monkeypatch):
    copy, calls = shutil.copyfile, []

    def failing(source, part):
        if not calls.append(part) and len(calls) < 3:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        copy(source, part)

    monkeypatch.setattr(writing.shutil, "copyfile", failing)
    monkeypatch.setattr(writing, "PAUSE", 0)
    writing.copy_whole(folder / "checkpoint_1_4.pt", folder / LAST)
    assert len(calls) == 3 and content(folder)[LAST] == content(folder)["checkpoint_1_4.pt"]


def test_training_resumes_by_itself_and_ends_as_if_nothing_had_been(toy_data, folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(toy_data, tmp_path / "whole", 16, "--save-interval-updates", 4, of=40)
    tear(folder / LAST)
    tear(folder / "checkpoint_best.pt")
    train(toy_data, folder, 16, "--save-interval-updates", 4, of=40)
    assert "skipped" in caplog.text and "resuming from" in caplog.text and "at 8 updates" in caplog.text
    for name in (LAST, "checkpoint_best.pt", "checkpoint_1_16.pt"):
        whole, again = state_of_training(tmp_path / "whole", name), state_of_training(folder, name)
        assert not differences(whole, again), name


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        train(*arguments)
    error = capsys.readouterr().err.strip().splitlines()
    error = [line for line in error if line.startswith("error: ")]
    assert caught.value.code == 1 and len(error) == 1
    return error[0]


OTHER = {
    "width": (["--encoder-embed-dim", 24], "--encoder-embed-dim 16, and this run has 24"),
    "layers": (["--encoder-layers", 3], "--encoder-layers 2, and this run has 3"),
    "norm": (["--lambda-norm", "none"], "--lambda-norm layer, and this run has none"),
    "softmax": (["--lambda-layers", "none"], "--lambda-layers 0,1, and this run has none"),
    "objective": (["--sentence-objective", "none"], "--sentence-objective sop, and this run has none"),
    "other labels": (["--sentence-objective", "nsp"], "--sentence-objective sop, and this run has nsp"),
    "order of norms": (["--post-norm"], "--post-norm False, and this run has True"),
    "activation": (["--activation-fn", "relu"], "--activation-fn gelu, and this run has relu"),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_architecture_is_refused(name, toy_data, folder, capsys):
    flags, message = OTHER[name]
    before = content(folder)
    assert message in refused(capsys, toy_data, folder, 20, *flags)
    assert content(folder) == before


@pytest.mark.parametrize("before,after,message", [
    (["--lambda-layers", 0, "--attention-rotary"], ["--lambda-layers", 0], "--attention-rotary True, and this run has"),
    (["--absolute-positions", "sinusoidal"], ["--absolute-positions", "none"], "--absolute-positions sinusoidal, and"),
])  # fmt: skip
def test_options_that_no_shape_shows_are_compared(before, after, message, toy_data, tmp_path, capsys):
    train(toy_data, tmp_path, 2, *before, of=40)
    assert message in refused(capsys, toy_data, tmp_path, 4, *after)


def test_every_option_is_compared_or_listed_as_harmless(toy_run):
    """A new option that nobody thought of is compared."""
    options = {f.name for f in fields(LambdaBertOptions)}
    assert options - HARMLESS == LambdaBertOptions(lambda_layers="none").meaning().keys()
    state = load(toy_run)
    assert MaskedLMSOPTask.HARMLESS_OPTIONS | {"sentence_objective"} == state["cfg"]["task"].keys()


def test_another_dictionary_of_the_same_size_is_refused(toy_data, folder, capsys, tmp_path):
    """fairseq resumes with it without a warning."""
    other = shutil.copytree(toy_data, tmp_path / "other")
    words = (toy_data / "dict.txt").read_text().splitlines()
    (other / "dict.txt").write_text("\n".join(words[::-1]) + "\n")
    before = content(folder)
    assert "another dictionary" in refused(capsys, other, folder, 20)
    assert content(folder) == before


def test_code_is_refused_even_beside_whole_checkpoints(toy_data, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"cfg": Evil()}, folder / LAST)
    before = content(folder)
    assert "could run code; none of it was run" in refused(capsys, toy_data, folder, 20)
    assert content(folder) == before and not (tmp_path / "evil-was-here").exists()


def test_files_named_by_flags_are_checked_too(toy_data, folder, capsys, tmp_path):
    torn = tmp_path / "torn.pt"
    shutil.copy(folder / LAST, torn)
    tear(torn)
    for flag, file, message in (
        ("--restore-file", torn, "torn"),
        ("--restore-file", tmp_path / "absent.pt", "does not exist"),
        ("--finetune-from-model", torn, "torn"),
    ):
        assert message in refused(capsys, toy_data, tmp_path / "new", 20, flag, file)
    train(toy_data, tmp_path / "new", 2, "--finetune-from-model", folder / LAST)
    assert updates(tmp_path / "new") == 2


@pytest.mark.parametrize("flags", [[], ["--finetune-from-model", LAST]])
def test_a_finished_run_is_left_alone(toy_data, folder, caplog, monkeypatch, flags):
    """fairseq would make one more update. Also with --finetune-from-model, since a run resumes if it can."""
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(folder)
    before = content(folder)
    with pytest.raises(SystemExit) as caught:
        train(toy_data, folder, 10, *flags, of=40)
    assert caught.value.code == 0 and "nothing left to do" in caplog.text and content(folder) == before


def test_another_data_folder_of_the_same_dictionary_is_welcome(folder, tmp_path):
    train(write_data(tmp_path / "more", documents=50), folder, 12, of=40)
    assert updates(folder) == 12


def test_a_run_with_one_of_the_older_optimizers_resumes(toy_data, tmp_path):
    """fairseq keeps their options in a Namespace, which weights_only refuses by itself."""
    train(toy_data, tmp_path / "run", 3, "--optimizer", "sgd", of=6)
    train(toy_data, tmp_path / "run", 6, "--optimizer", "sgd")
    assert updates(tmp_path / "run") == 6
