"""Files cut at any byte, with any byte changed, or made to do harm: refused in one line, or read exactly as written."""

import io
import pickle
import random
import zipfile
from argparse import Namespace

import pytest
import torch
from training import differences

from fairseq_lambda.checkpointing.reading import (
    CheckpointError,
    DamagedCheckpoint,
    check_whole,
    read_header,
    weights_only,
)
from fairseq_lambda.models.loading import load_checkpoint


def read(path):
    state = read_header(path)
    check_whole(path)
    return state


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("evil-was-here",)


@pytest.fixture
def whole(toy_run):
    return (toy_run / "checkpoint_last.pt").read_bytes()


def test_cut_at_any_byte(whole, tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    lengths = {*range(32), *range(len(whole) - 64, len(whole)), *random.Random(0).sample(range(len(whole)), 150)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_any_byte_changed_is_noticed_or_means_nothing(whole, tmp_path):
    """Bytes of padding and unused fields of the format may be anything; all others are covered by a checksum."""
    path, rng = tmp_path / "checkpoint_last.pt", random.Random(1)
    path.write_bytes(whole)
    expected, refused, count = torch.load(path, weights_only=True), 0, 300
    for _ in range(count):
        changed = bytearray(whole)
        # half of them in the directory at the end, where the format's own fields are
        at = rng.randrange(len(whole)) if rng.random() < 0.5 else rng.randrange(len(whole) - 20_000, len(whole))
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            read(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert not differences(expected, torch.load(path, weights_only=True)), at
    assert refused > count / 2


def test_a_record_marked_as_a_folder_is_refused(whole, tmp_path):
    """torch takes it for empty and returns a tensor of whatever was in memory; no checksum covers the mark."""
    path = tmp_path / "checkpoint_last.pt"
    entry = whole.index(b"PK\x01\x02")
    changed = bytearray(whole)
    changed[entry + 38] ^= 0x10
    path.write_bytes(changed)
    with pytest.raises(CheckpointError, match="marked as a folder"):
        read(path)


def test_torch_alone_does_not_notice_a_changed_weight(whole, tmp_path):
    """The reason for checking checksums ourselves: this test will fail when torch does it."""
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        largest = max((e for e in archive.infolist() if "/data/" in e.filename), key=lambda entry: entry.file_size)
    changed = bytearray(whole)
    changed[largest.header_offset + 30 + len(largest.filename) + 100 + largest.file_size // 2] ^= 0x10
    path.write_bytes(changed)
    torch.load(path, weights_only=True)
    for reader in (read, load_checkpoint):
        with pytest.raises(ValueError, match="is not as it was written"):
            reader(path)


def zipped(pickled, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return buffer.getvalue()


def saved(obj, **options):
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def evil_state():
    keys = ("cfg", "model", "optimizer_history", "extra_state", "task_state")
    return {**{key: {"a": 1} for key in keys}, "optimizer_history": [{"num_updates": 3, "x": Evil()}]}


HOSTILE = {
    "code in a whole state": lambda: saved(evil_state()),
    "code at the top": lambda: saved(Evil()),
    "a bare pickle": lambda: pickle.dumps(Evil()),
    "a bare pickle in a zip": lambda: zipped(pickle.dumps(Evil(), 2)),
    "code in a namespace": lambda: saved({"args": Namespace(x=Evil())}),
    "the old format": lambda: saved(Evil(), _use_new_zipfile_serialization=False),
    "a compressed bomb": lambda: zipped(b"\0" * 10**7, zipfile.ZIP_DEFLATED),
    "an endless pickle": lambda: zipped(b"\x80\x02" + b"(" * 10**5),
    "memo out of range": lambda: zipped(b"\x80\x02j\xff\xff\xff\xff."),
    "a whole module": lambda: saved(torch.nn.Linear(2, 2)),
    "numpy's reconstruct": lambda: zipped(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n."),
    "builtins.eval": lambda: zipped(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."),
    "a dictionary of no use": lambda: saved({"a": torch.ones(2)}),
    "a list": lambda: saved([1, 2]),
    "no updates": lambda: saved({**evil_state(), "optimizer_history": [{"a": 1}]}),
    "lists for dictionaries": lambda: saved({key: [1] for key in evil_state()}),
    "a dictionary for a list": lambda: saved({key: {"a": 1} for key in evil_state()}),
    "an image": lambda: b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "text": lambda: b"not a checkpoint\n",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("override", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_foreign_files_run_nothing(name, override, tmp_path, monkeypatch):
    """Also where the environment turns torch's protection off, which it does for calls that do not insist on it."""
    monkeypatch.chdir(tmp_path)
    if override:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(HOSTILE[name]())
    for reader in (read, load_checkpoint):
        with pytest.raises(ValueError, match="cannot be read as a fairseq checkpoint") as caught:
            reader(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert "two options" not in str(caught.value)  # torch's advice to switch the protection off
    assert not (tmp_path / "evil-was-here").exists()


def test_weights_only_holds_within_and_the_environment_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Evil(), tmp_path / "x.pt")
    with weights_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pt")
    assert not (tmp_path / "evil-was-here").exists()
    with pytest.warns(UserWarning):
        torch.load(tmp_path / "x.pt")
    assert (tmp_path / "evil-was-here").exists()  # so the variable is a real danger, and is back
