"""Files and folders appear whole or not at all, and are synced before and after they get their name."""

import contextlib
import errno
import hashlib
import os
import stat

import pytest

from fairseq_lambda import files


@pytest.fixture
def steps(monkeypatch):
    """The syncs and renames, as (function, name of what it is given), in order."""
    done, opened = [], {}

    def spy(name):
        function = getattr(os, name)

        def call(target, *more, **named):
            result = function(target, *more, **named)
            if name == "open":
                opened[result] = target
            else:
                done.append((name, opened.get(target, target).name))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "fsync", "replace", "rename"):
        spy(name)
    return done


def fill(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("new")


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path, steps):
    with files.whole(tmp_path / "file") as path:
        path.write_text("new")
        assert path == tmp_path / "file.tmp" and not steps
    assert steps == [("fsync", "file.tmp"), ("replace", "file.tmp"), ("fsync", tmp_path.name)]
    assert content(tmp_path) == {"file": "new"}


def test_of_a_users_link_the_target_is_replaced(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("old", "absent"):
        (tmp_path / name).symlink_to(f"inner/{name}")
    (tmp_path / "inner/old").write_text("old")
    for name in ("old", "absent"):
        with files.output(tmp_path / name) as path:
            path.write_text("new")
        assert (tmp_path / name).is_symlink()
    assert content(tmp_path / "inner") == {"old": "new", "absent": "new"}


def test_a_users_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path, steps):
    with files.output(tmp_path / "file") as path:
        path.write_text("new")
        assert not steps
    assert steps == [("fsync", "file"), ("replace", "file"), ("fsync", tmp_path.name)]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("works", [True, False])
def test_no_other_file_of_the_user_is_touched(tmp_path, works):
    for name in ("file", "file.tmp", ".file.tmp"):
        (tmp_path / name).write_text("old")
    with contextlib.suppress(KeyboardInterrupt), files.output(tmp_path / "file") as path:
        path.write_text("new")
        if not works:
            raise KeyboardInterrupt
    assert content(tmp_path) == {"file": "new" if works else "old", "file.tmp": "old", ".file.tmp": "old"}


def test_a_users_file_keeps_its_permissions_and_a_new_one_has_the_usual(tmp_path):
    (tmp_path / "private").touch(0o600)
    before = os.umask(0o027)
    try:
        for name in ("private", "new"):
            with files.output(tmp_path / name) as path:
                path.write_text("new")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "new")}
    assert modes == {"private": 0o600, "new": 0o640}


def test_a_pipe_and_standard_output_are_written_to(tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in (tmp_path / "pipe", "/dev/stdout"):
        with files.output(name) as path:
            path.write_text("new")
    assert os.read(reader, 9) == b"new" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(reader)
    assert capfd.readouterr().out == "new" and os.listdir(tmp_path) == ["pipe"]


def test_all_of_a_folder_is_synced_before_it_gets_its_name(tmp_path, steps):
    with files.whole_folder(tmp_path / "out") as folder:
        fill(folder)
    assert {("fsync", "inner"), ("fsync", "file")} == set(steps[:2])
    assert steps[2:] == [("fsync", "new"), ("rename", "new"), ("fsync", tmp_path.name)]
    assert content(tmp_path) == {"out/inner/file": "new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("step", ["body", "open", "fsync", "replace"])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, monkeypatch, step, error):
    def fail(*_):
        raise error

    (tmp_path / "file").write_text("old")
    with pytest.raises(error), files.whole(tmp_path / "file") as path:
        path.write_text("new")
        if step == "body":
            fail()
        monkeypatch.setattr(os, step, fail)
    monkeypatch.undo()
    assert content(tmp_path) == {"file": "old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("at", ["body", ("fsync", 0), ("fsync", 2), ("rename", 0), ("rename", 1)])
@pytest.mark.parametrize("link", [False, True])
def test_an_interrupted_folder_leaves_the_old_one(tmp_path, monkeypatch, at, error, link):
    """``at`` is a function and how many of its calls succeed; the old folder may be a relative link."""
    old = tmp_path / "out"
    (tmp_path / "elsewhere" if link else old).mkdir()
    if link:
        old.symlink_to("elsewhere")
    (old / "file").write_text("old")
    before = content(tmp_path)

    def fail_after(function, calls):
        def call(*arguments):
            nonlocal calls
            calls -= 1
            if calls == -1:
                raise error
            return function(*arguments)

        return call

    with pytest.raises(error), files.whole_folder(old) as folder:
        fill(folder)
        if at == "body":
            raise error
        monkeypatch.setattr(os, at[0], fail_after(getattr(os, at[0]), at[1]))
    monkeypatch.undo()
    assert content(tmp_path) == before and content(old) == {"file": "old"} and old.is_symlink() == link
    assert sorted(os.listdir(tmp_path)) == (["elsewhere", "out"] if link else ["out"])


def test_a_folder_takes_the_place_of_a_folder_but_not_of_a_file(tmp_path):
    for _ in range(2):
        with files.whole_folder(tmp_path / "out") as folder:
            fill(folder)
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError), files.whole_folder(tmp_path / "file") as folder:
        fill(folder)
    assert content(tmp_path) == {"out/inner/file": "new", "file": "old"}


@pytest.mark.parametrize(("mask", "of_file", "of_folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_permissions_are_those_of_ordinary_files(tmp_path, mask, of_file, of_folder):
    before = os.umask(mask)
    try:
        with files.whole(tmp_path / "file") as path:
            path.write_text("new")
        with files.whole_folder(tmp_path / "out") as folder:
            fill(folder)
    finally:
        os.umask(before)
    names = {"file": of_file, "out": of_folder, "out/inner": of_folder, "out/inner/file": of_file}
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names} == names


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileNotFoundError), files.whole(tmp_path / "file"):
        pass
    assert content(tmp_path) == {"file": "old"}


@pytest.mark.parametrize(("number", "is_error"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_a_file_system_that_cannot_sync_is_forgiven(tmp_path, monkeypatch, number, is_error):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) if is_error else pytest.MonkeyPatch.context(), files.whole(tmp_path / "file") as path:
        path.write_text("new")
    assert (tmp_path / "file").exists() != is_error


def test_a_destination_is_replaced_only_if_forced_and_made_by_the_same(tmp_path):
    out = tmp_path / "out"
    files.check_destination(out, False, "mark")
    out.mkdir()
    with pytest.raises(FileExistsError, match="out already exists: choose another --to, or replace it with --force"):
        files.check_destination(out, False, "mark", "--to")
    files.check_destination(out, True, "mark")  # empty
    (out / "other").touch()
    with pytest.raises(FileExistsError, match="out is not a folder with mark, so --force leaves it"):
        files.check_destination(out, True, "mark")
    (out / "mark").touch()
    files.check_destination(out, True, "mark")
    with pytest.raises(FileExistsError, match="is what is to be converted"):
        files.check_destination(out, True, "mark", source=tmp_path / "." / "out")
    with pytest.raises(FileExistsError, match="is not a folder"):
        files.check_destination(out / "mark", True, "mark")


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 4000)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(bytes(range(256)) * 4000).hexdigest()
