"""Two runs in one folder: the second ends in a line that names the first; dead runs hold no lock."""

import contextlib
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from processes import environment
from test_recovery import content, refused
from training import train

from fairseq_lambda.checkpointing import fairseq_hooks, lock
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


def test_of_two_that_start_at_once_one_goes_on(tmp_path, monkeypatch):
    """Both look before either has written: the second must not remove the lock of the first as if it were dead."""
    path, theirs, look = tmp_path / lock.NAME, json.dumps({"host": "elsewhere", "process": 7, "since": "today"}), []

    def looking(path):
        if not look.append(path) and len(look) == 1:
            path.write_text(theirs)
            return None
        return owner(path)

    owner = lock._owner
    monkeypatch.setattr(lock, "_owner", looking)
    with pytest.raises(CheckpointError, match="process 7 on elsewhere since today"):
        lock.take(tmp_path)
    assert path.read_text() == theirs


def test_the_first_ones_lock_is_not_taken_for_the_dead_one_that_both_found(tmp_path, monkeypatch):
    path, theirs = tmp_path / lock.NAME, json.dumps({"host": "elsewhere", "process": 7, "since": "today"})
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "yesterday"}))
    os.utime(path, (0, 0))
    remove = lock._remove
    monkeypatch.setattr(lock, "_remove", lambda path, dead: (path.write_text(theirs), remove(path, dead)))
    monkeypatch.setattr(lock, "SETTLE", 0)
    with pytest.raises(CheckpointError, match="process 7 on elsewhere since today"):
        lock.take(tmp_path)
    assert path.read_text() == theirs and os.listdir(tmp_path) == [lock.NAME]


def test_a_suspended_owner_on_this_machine_keeps_its_lock(holder, tmp_path):
    holder.send_signal(signal.SIGSTOP)
    os.utime(tmp_path / lock.NAME, (0, 0))  # no sign of life for long
    with pytest.raises(CheckpointError, match=f"process {holder.pid} on") as refusal:
        lock.take(tmp_path)
    assert "expires" not in str(refusal.value)


@pytest.mark.parametrize("zombie", [False, True])
def test_a_process_number_that_is_in_use_again_or_ended_holds_nothing(zombie, holder, tmp_path):
    path = tmp_path / lock.NAME
    if zombie:
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked for its exit status
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1}))
    lock.take(tmp_path)
    lock.release(tmp_path)


@pytest.mark.parametrize("age,held", [(60, True), (130, False)])
def test_a_lock_of_an_older_version_has_no_start(age, held, holder, tmp_path):
    path = tmp_path / lock.NAME
    path.write_text(json.dumps({"host": socket.gethostname(), "process": holder.pid, "since": "today"}))
    os.utime(path, (time.time() - age,) * 2)
    with pytest.raises(CheckpointError) if held else contextlib.nullcontext():
        lock.take(tmp_path)
        lock.release(tmp_path)


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open", lambda path, mode: path.touch() or Full())
    with pytest.raises(OSError, match=r"run.lock cannot be written: No space left on device; free some space"):
        lock.take(tmp_path)
    assert os.listdir(tmp_path) == []


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


@pytest.mark.parametrize("at", ["save_whole", "copy_whole"])
def test_a_run_whose_lock_was_taken_over_ends_without_saving(at, toy_data, tmp_path, monkeypatch):
    """Whether it finds out at the first file of a save or at a copy of it."""
    train(toy_data, tmp_path, 4, "--save-interval-updates", 4, of=40)
    path, check = tmp_path / lock.NAME, fairseq_hooks.lock.check
    theirs = json.dumps({"host": "elsewhere", "process": 7, "since": "today"})
    before, checks = content(tmp_path), []

    def takeover(folder):
        if not checks.append(folder) and len(checks) == 1 + (at == "copy_whole"):
            path.write_text(theirs)
        check(folder)

    monkeypatch.setattr(fairseq_hooks.lock, "check", takeover)
    with pytest.raises(SystemExit, match=r"^error: .*run\.lock now belongs to process 7 on elsewhere.*without saving"):
        train(toy_data, tmp_path, 8, "--save-interval-updates", 4, of=40)
    after = content(tmp_path)
    assert after.pop(lock.NAME) == theirs.encode()
    if at == "copy_whole":
        assert after.pop("checkpoint_1_8.pt")
    assert after == before


def test_a_lock_that_was_removed_by_hand_stops_nothing(tmp_path):
    lock.take(tmp_path)
    (tmp_path / lock.NAME).unlink()
    lock.check(tmp_path)
    lock.release(tmp_path)


def test_a_held_lock_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    lock.take(tmp_path)
    os.utime(tmp_path / lock.NAME, (0, 0))
    deadline = time.time() + 10
    while (tmp_path / lock.NAME).stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert time.time() - (tmp_path / lock.NAME).stat().st_mtime < 10
    lock.release(tmp_path)
