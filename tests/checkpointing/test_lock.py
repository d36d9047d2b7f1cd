"""Two runs in one folder: the second ends in a line that names the first; dead runs hold no lock."""

import json
import os
import subprocess
import sys
import time

import pytest
from processes import environment
from test_recovery import refused

from fairseq_lambda.checkpointing import lock
from fairseq_lambda.checkpointing.reading import CheckpointError

HOLD = "import sys; from pathlib import Path; from fairseq_lambda.checkpointing import lock; "
HOLD += "lock.take(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_names_the_first_and_a_finished_one_leaves_nothing(holder, toy_data, tmp_path, capsys):
    message = refused(capsys, toy_data, tmp_path, 4)
    assert f"process {holder.pid} on" in message and "another --save-dir" in message
    holder.communicate("")  # it ends by itself
    assert not (tmp_path / lock.NAME).exists()
    lock.take(tmp_path)
    lock.take(tmp_path)  # its own
    lock.release(tmp_path)
    assert not (tmp_path / lock.NAME).exists()


def test_a_killed_owner_on_this_machine_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / lock.NAME).exists()
    lock.take(tmp_path)
    lock.release(tmp_path)


@pytest.mark.parametrize("age,held", [(60, True), (130, False)])
def test_an_owner_elsewhere_is_dead_without_a_sign_of_life(age, held, tmp_path):
    path = tmp_path / lock.NAME
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026-11-27 09:00:00"}))
    os.utime(path, (time.time() - age,) * 2)
    if held:
        with pytest.raises(CheckpointError, match="process 1 on elsewhere since 2026-11-27 09:00:00"):
            lock.take(tmp_path)
    else:
        lock.take(tmp_path)
        lock.release(tmp_path)


def test_of_two_that_find_a_dead_lock_one_goes_on(tmp_path, monkeypatch):
    """The second removes the first one's lock, and writes its own, before the first one looks again."""
    path, theirs = tmp_path / lock.NAME, json.dumps({"host": "elsewhere", "process": 7, "since": "today"})
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "yesterday"}))
    os.utime(path, (0, 0))
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: path.write_text(theirs))
    with pytest.raises(CheckpointError, match="process 7 on elsewhere since today"):
        lock.take(tmp_path)
    assert path.read_text() == theirs


def test_a_run_whose_lock_was_taken_over_says_so_and_leaves_it_alone(tmp_path, monkeypatch, caplog):
    """As after a night in which the machine was asleep."""
    monkeypatch.setattr(lock, "BEAT", 0.02)
    lock.take(tmp_path)
    (tmp_path / lock.NAME).write_text("theirs")
    deadline = time.time() + 10
    while not caplog.text and time.time() < deadline:
        time.sleep(0.01)
    assert "no longer belongs to this run" in caplog.text
    lock.release(tmp_path)
    assert (tmp_path / lock.NAME).read_text() == "theirs"


def test_a_held_lock_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    lock.take(tmp_path)
    os.utime(tmp_path / lock.NAME, (0, 0))
    deadline = time.time() + 10
    while (tmp_path / lock.NAME).stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert time.time() - (tmp_path / lock.NAME).stat().st_mtime < 10
    lock.release(tmp_path)
