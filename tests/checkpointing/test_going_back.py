"""After going back to an older state, nothing brings the abandoned one back, and no file of it is lost."""

import shutil

import pytest
from test_recovery import LAST, content, tear, updates
from training import load, train

from fairseq_lambda.checkpointing import fairseq_hooks, recovery
from fairseq_lambda.checkpointing.recovery import SUPERSEDED, recover

FLAGS = ["--save-interval-updates", 4, "--no-epoch-checkpoints"]


class Killed(BaseException):
    pass


def killed(*_):
    raise Killed


@pytest.fixture
def folder(toy_run, tmp_path):
    return shutil.copytree(toy_run, tmp_path / "run")


@pytest.fixture
def four(folder, tmp_path):
    """A copy of the state at 4 updates, outside the folder."""
    return shutil.copy(folder / "checkpoint_1_4.pt", tmp_path / "four.pt")


def rates(path):
    return load(path)["cfg"]["optimization"]["lr"]


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_killed_in_the_first_save_the_run_resumes_from_that_save(where, toy_data, folder, four, monkeypatch):
    before = content(folder)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fairseq_hooks, "copy_whole", killed)  # the interval file is there, its copies are not
        back = folder / "checkpoint_1_4.pt" if where == "inside" else four
        train(toy_data, folder, 8, *FLAGS, "--restore-file", back, "--lr", 1e-3, of=40)
    assert recover(folder)[0].updates == 8 and rates(folder) == [1e-3]
    assert before.keys() - {"checkpoint_1_4.pt"} == {
        name.removesuffix(SUPERSEDED) for name in content(folder) if name.endswith(SUPERSEDED)
    }
    assert set(before.values()) <= set(content(folder).values())  # nothing was lost


def test_killed_before_the_first_save_the_run_resumes_from_where_it_went_back_to(toy_data, folder, four):
    (folder / "checkpoint_1_4.pt").unlink()
    for _ in range(2):  # the second time it is there already
        recovery.go_back(folder, four, 4)
        assert recover(folder)[0].updates == 4 and sorted(content(folder)) == [
            "checkpoint_1_8.pt.superseded", "checkpoint_best.pt", "checkpoint_best.pt.superseded", LAST,
            f"{LAST}.superseded",
        ]  # fmt: skip


@pytest.mark.parametrize("step", range(5))
def test_killed_while_going_back(step, folder, four, monkeypatch):
    """Before the last one is replaced the run has not gone back; after that it has, and recovery does the rest."""
    before, steps = content(folder), []

    def until(function):
        def call(*arguments):
            if len(steps) == step:
                raise Killed
            steps.append(function)
            return function(*arguments)

        return call

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recovery, "copy_whole", until(recovery.copy_whole))
        patch.setattr(recovery, "rename", until(recovery.rename))
        recovery.go_back(folder, four, 4)
        killed()
    newest, _ = recover(folder)
    assert newest.updates == (10 if step < 2 else 4)
    tear(folder / LAST)
    assert recover(folder)[0].updates == newest.updates
    assert set(before.values()) <= set(content(folder).values())


def test_the_new_files_are_kept_and_the_old_ones_are_not_the_newest(toy_data, folder, four):
    """fairseq sorts them by the updates in their names."""
    flags = ["--save-interval-updates", 3, "--keep-interval-updates", 1, "--restore-file", four]
    train(toy_data, folder, 7, *flags, of=40)
    assert (folder / "checkpoint_1_6.pt").is_file() and not (folder / "checkpoint_1_8.pt").exists()
    for name in (LAST, "checkpoint_best.pt"):
        tear(folder / name)
    assert recover(folder)[0].updates == 6


def test_a_run_with_a_new_optimizer_counts_as_newer(toy_data, folder, monkeypatch):
    before = content(folder)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fairseq_hooks, "copy_whole", killed)
        train(toy_data, folder, 8, *FLAGS, "--reset-optimizer", "--reset-lr-scheduler", "--lr", 1e-3, of=40)
    assert updates(folder) == 10
    assert recover(folder)[0].updates == 4 and rates(folder) == [1e-3]
    assert set(before.values()) <= set(content(folder).values())


def test_a_copy_of_an_older_file_over_the_last_one_goes_back_too(folder):
    shutil.copy(folder / "checkpoint_1_4.pt", folder / LAST)
    newest, done = recover(folder)
    assert newest.updates == 4 and "checkpoint_1_8.pt" in done[0] and "since the run goes on from 4 updates" in done[0]
    tear(folder / LAST)
    assert recover(folder)[0].updates == 4
