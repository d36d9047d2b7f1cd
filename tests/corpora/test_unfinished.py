"""An interrupted or killed preparation: run again, it resumes or starts over, and gives the uninterrupted result."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from preparing import as_text, only_error, plain_documents, prepare
from processes import environment

from fairseq_lambda import files
from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora import unfinished
from fairseq_lambda.corpora.prepared_folder import REPORT
from fairseq_lambda.corpora.unfinished import Unfinished


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a corpus and its result."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "corpus").mkdir()
    for split, count in {"train": 60, "valid": 9, "test": 8}.items():
        (folder / "corpus" / f"{split}.txt").write_text(as_text(plain_documents(count, count)))
    assert prepare(folder / "corpus", "--dest", folder / "whole") == 0
    return folder


def outputs_of(path):
    return json.loads((path / REPORT).read_text())["outputs"]


def interrupt(monkeypatch, name, call, how=KeyboardInterrupt):
    """Make the ``call``-th call of a function in prepare.py raise."""
    original, calls = getattr(command, name), 0

    def wrapped(*arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            raise how
        return original(*arguments)

    monkeypatch.setattr(command, name, wrapped)


@pytest.mark.parametrize(
    ("name", "call", "kept"),
    [
        ("split_files", 1, None),
        ("_learn", 1, ["sentences"]),
        ("binarise", 1, ["sentences", "vocabulary"]),
        ("binarise", 3, ["sentences", "vocabulary", "train", "valid"]),
        ("write_report", 1, ["sentences", "vocabulary", "train", "valid", "test"]),
    ],
)
def test_an_interrupted_run_resumes_behind_the_stages_that_are_done(
    folder, tmp_path, monkeypatch, capsys, name, call, kept
):
    dest = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, name, call)
        assert prepare(folder / "corpus", "--dest", dest) == 130
    assert "error: interrupted; the same command resumes" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ([".out.unfinished"] if kept else [])
    assert prepare(folder / "corpus", "--dest", dest, "--workers", 2) == 0
    said = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if "interrupted run" in line]
    assert said == (kept or [])
    assert outputs_of(dest) == outputs_of(folder / "whole") and os.listdir(tmp_path) == ["out"]


def test_what_another_version_left_is_begun_again(folder, tmp_path, monkeypatch, capsys):
    dest = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "__version__", "0.0.1")
        interrupt(patch, "binarise", 1)
        assert prepare(folder / "corpus", "--dest", dest) == 130
    sentences = tmp_path / ".out.unfinished" / "sentences.json"
    sentences.write_text("{}")  # nothing that this version could read
    assert prepare(folder / "corpus", "--dest", dest) == 0
    assert "interrupted run" not in capsys.readouterr().err and outputs_of(dest) == outputs_of(folder / "whole")


@pytest.mark.parametrize("has_links", [True, False])
def test_interrupted_while_the_result_is_synced_it_resumes_behind_all_stages(
    folder, tmp_path, monkeypatch, capsys, has_links
):
    dest, sync = tmp_path / "out", files._sync

    def interrupted(path):
        if path.name == "valid.bin":  # synced only as part of the result
            raise KeyboardInterrupt
        sync(path)

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync", interrupted)
        assert prepare(folder / "corpus", "--dest", dest) == 130
    assert os.listdir(tmp_path) == [".out.unfinished"]
    capsys.readouterr()
    assert prepare(folder / "corpus", "--dest", dest) == 0
    assert capsys.readouterr().err.count("done by the interrupted run") == 5
    assert outputs_of(dest) == outputs_of(folder / "whole") and os.listdir(tmp_path) == ["out"]


def test_killed_after_the_last_rename_a_forced_run_does_not_write_into_the_result(folder, tmp_path, monkeypatch):
    dest = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed before the clean-up
        assert prepare(folder / "corpus", "--dest", dest) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "outputs", 2)  # all is written, and the result not yet replaced
        assert prepare(folder / "corpus", "--dest", dest, "--force") == 130
    for name in (REPORT, "dict.txt"):
        assert not (tmp_path / ".out.unfinished" / name).samefile(dest / name)


def test_with_other_settings_or_after_an_error_it_begins_cleanly(folder, tmp_path, monkeypatch, capsys):
    dest = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, "binarise", 1)
        assert prepare(folder / "corpus", "--dest", dest) == 130
    assert prepare(folder / "corpus", "--dest", dest, "--vocab-size", 70) == 0
    assert "interrupted run" not in capsys.readouterr().err
    assert outputs_of(dest) != outputs_of(folder / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, "binarise", 1, OSError(28, "No space left on device"))
        assert prepare(folder / "corpus", "--dest", dest, "--force") == 1
    assert "No space left on device; free some space" in only_error(capsys)
    assert os.listdir(tmp_path) == ["out"]


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(folder, tmp_path, capsys):
    dest = tmp_path / "out"
    with Unfinished(dest):
        assert prepare(folder / "corpus", "--dest", dest) == 1
        assert "another process is preparing" in only_error(capsys)
    assert prepare(folder / "corpus", "--dest", dest) == 0


def test_what_was_left_beside_a_complete_result_is_removed_unless_a_process_uses_it(folder, tmp_path):
    arguments = (folder / "corpus", "--dest", tmp_path / "out")
    assert prepare(*arguments) == 0
    with Unfinished(tmp_path / "out") as work:
        work.begin({})
        assert prepare(*arguments) == 0 and work.path.is_dir()
        shutil.copytree(work.path, tmp_path / "left")
    (tmp_path / "left").rename(work.path)  # as a kill leaves it
    assert prepare(*arguments) == 0
    assert os.listdir(tmp_path) == ["out"]


def test_what_was_left_between_the_last_two_renames_is_put_right(folder, tmp_path):
    dest = tmp_path / "out"
    for name, had in {".out.abcd_123.tmp": "new", ".out.abcd_124.tmp": "old"}.items():
        (tmp_path / name / had).mkdir(parents=True)
        (tmp_path / name / had / "dict.txt").touch()
    (tmp_path / ".other.abcd_123.tmp").mkdir()
    with Unfinished(dest):
        assert (dest / "dict.txt").exists()
    assert sorted(os.listdir(tmp_path)) == [".other.abcd_123.tmp", "out"]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_never_was(folder, tmp_path):
    script = (
        "import sys; from fairseq_lambda.corpora import prepare; prepare._SMALL = 0; print('up', flush=True);"
        "sys.exit(prepare.main())"
    )
    arguments = [folder / "corpus", "--dest", tmp_path / "out", "--vocab-size", 64, "--workers", 2]
    run = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    draw, kills = random.Random(0), 0
    for sign in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), start_new_session=True
        )
        process.stdout.readline()
        time.sleep(draw.random() * 1.2)
        process.send_signal(sign)
        kills += process.wait(60) != 0
        assert process.stderr.read().count(b"Traceback") == 0
        process.stdout.close(), process.stderr.close()
    assert kills
    subprocess.run(run, check=True, env=environment(), capture_output=True, timeout=60)
    assert outputs_of(tmp_path / "out") == outputs_of(folder / "whole") and os.listdir(tmp_path) == ["out"]
