"""Bad data folders, flags and disks for a training: the exit code, one line that says what, and no checkpoint."""

import ctypes
import os
import re
import runpy
import shutil

import pytest
from training import arguments, load

from fairseq_lambda.checkpointing import lock, writing
from fairseq_lambda.commands import fairseq_train as command


def run(monkeypatch, capsys, data, save_dir, *flags, updates=2):
    """Run the training command as the script does; return the exit code and the error lines."""
    monkeypatch.setattr("sys.argv", arguments(data, save_dir, updates, *flags))
    code, message = 0, ""
    try:
        runpy.run_module(command.__name__, run_name="__main__")
    except SystemExit as end:  # with a message, which Python prints, or a number
        code, message = (1, end.code) if isinstance(end.code, str) else (end.code or 0, "")
    lock.release(save_dir)
    lines = (capsys.readouterr().err + message).splitlines()
    return code, [line for line in lines if re.search(r"\berror: ", line)]


def refused(folder):
    """Return whether nothing was written to the folder."""
    return not folder.exists() or not os.listdir(folder)


def cut(name, size):
    def spoil(data):
        path = data / name
        path.write_bytes(path.read_bytes()[: size if size >= 0 else path.stat().st_size + size])

    return spoil


def change(name, edit):
    return lambda data: (data / name).write_bytes(edit((data / name).read_bytes()))


FOLDERS = {
    "no folder": (shutil.rmtree, "there is no data folder"),
    "no dictionary": (lambda d: (d / "dict.txt").unlink(), "dict.txt is missing"),
    "a word twice": (change("dict.txt", lambda t: t + t.splitlines()[0] + b"\n"), "is not a fairseq dictionary"),
    "a word without a count": (change("dict.txt", lambda t: b"one\n" + t), "is not a fairseq dictionary"),
    "a count that is no number": (change("dict.txt", lambda t: b"one x\n" + t), "is not a fairseq dictionary"),
    "a dictionary in Latin-1": (change("dict.txt", lambda t: b"caf\xe9 1\n" + t), "is not a fairseq dictionary"),
    "an empty dictionary": (change("dict.txt", lambda t: b""), "special symbols only"),
    # the missing id is that of <mask> now
    "a word missing": (change("dict.txt", lambda t: t[: t.rindex(b"\n", 0, -1) + 1]), "contains token 53"),
    "no train.idx": (lambda d: (d / "train.idx").unlink(), "train.idx is missing"),
    "no train.bin": (lambda d: (d / "train.bin").unlink(), "train.bin is missing"),
    "no valid split": (lambda d: [(d / f"valid.{e}").unlink() for e in ("idx", "bin")], "valid.idx is missing"),
    "an empty index": (cut("train.idx", 0), "is damaged"),
    "an index cut in its header": (cut("train.idx", 20), "is damaged"),
    "an index cut in its sizes": (cut("train.idx", -100), "is damaged"),
    "an index of another format": (change("train.idx", lambda t: b"TNTIDX\0\0" + t[8:]), "not from fairseq-preprocess"),
    "the index of another split": (lambda d: shutil.copy(d / "valid.idx", d / "train.idx"), "but its .idx says"),
    "tokens cut": (cut("train.bin", -2), "but its .idx says"),
    "no tokens": (cut("train.bin", 0), "but its .idx says"),
    "tokens of another kind": (change("train.bin", lambda t: b"\xff" * len(t)), "another dictionary"),
    "padding in the text": (change("train.bin", lambda t: b"\1\0" + t[2:]), "contains padding"),
    "no ends of lines": (change("train.bin", lambda t: t.replace(b"\2\0", b"\5\0")), "end with </s>"),
    "splits in parts": (lambda d: shutil.copy(d / "train.idx", d / "train1.idx"), "numbered parts"),
}


@pytest.fixture
def data(toy_data, tmp_path):
    return shutil.copytree(toy_data, tmp_path / "dätä with spaces 漢")


@pytest.mark.parametrize("row", FOLDERS)
def test_folder(row, data, tmp_path, monkeypatch, capsys):
    spoil, message = FOLDERS[row]
    spoil(data)
    code, errors = run(monkeypatch, capsys, data, tmp_path / "run")
    assert code == 1 and len(errors) == 1 and message in errors[0]
    assert refused(tmp_path / "run")


FLAGS = {
    "--tokens-per-sample 7": 1, "--tokens-per-sample -5": 1, "--tokens-per-sample x": 2, "--mask-prob 0": 1,
    "--mask-prob -1": 1, "--mask-prob 1": 1, "--mask-prob nan": 1, "--random-token-prob -2": 1,
    "--leave-unmasked-prob -0.1": 1, "--leave-unmasked-prob 0.95": 1,  # and 0.1 of random tokens
    "--short-sample-prob 1.1": 1, "--sentence-objective sos": 2, "--sentence-loss-weight -1": 1,
    "--sentence-loss-weight nan": 1, "--sentence-loss-weight inf": 1,
    "--encoder-layers 0": 1, "--encoder-layers -3": 1, "--encoder-embed-dim 0": 1, "--encoder-attention-heads 3": 1,
    "--encoder-attention-heads 0": 1, "--required-seq-len-multiple 0": 1, "--lambda-key-depth 0": 1,
    "--lambda-intra-depth -1": 1, "--lambda-local-context 4": 1, "--lambda-local-context -1": 1,
    "--lambda-layers 5-1": 1, "--lambda-layers 9": 1, "--lambda-layers x": 1, "--lambda-norm group": 2,
    "--dropout 1": 1, "--dropout -0.1": 1, "--encoder-layerdrop 1": 1, "--max-positions 8": 1, "--autocast int4": 2,
    "--max-tokens 10": 1, "--update-freq 0": 1, "--log-interval 0": 1, "--total-num-update 0": 1,
    "--total-num-update -3": 1, "--num-workers -1": 1, "--seed -1": 1, "--seed 4294967296": 1,
    "--optimizer composite": 1, "--adam-betas x": 1, "--adam-betas (0.9,": 1, "--adam-betas 0.9": 1,
    "--adam-betas (0.9,2)": 1, "--adam-betas (0.9,0.98,1)": 1, "--adam-betas ('a','b')": 1,
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
def test_flag(flag, toy_data, tmp_path, monkeypatch, capsys):
    """argparse exits with 2 if a value is not a number or none of the choices."""
    name, value = flag.split()
    code, errors = run(monkeypatch, capsys, toy_data, tmp_path / "run", f"{name}={value}")
    assert code == FLAGS[flag] and len(errors) == 1
    assert name in errors[0] and value.lstrip("-") in errors[0]
    assert refused(tmp_path / "run")


@pytest.mark.parametrize("flags,message", [
    (["--sentence-objective", "sop"], "--pack-documents with --sentence-objective sop: .*add --sentence-objective n"),
    (["--sentence-objective", "nsp"], "--pack-documents with --sentence-objective nsp: .*or leave out --pack"),
    (["--sentence-objective", "none", "--short-sample-prob", ".1"], "--pack-documents with --short-sample-prob 0.1: "),
])  # fmt: skip
def test_what_does_not_go_with_packed_documents(flags, message, toy_data, tmp_path, monkeypatch, capsys):
    code, errors = run(monkeypatch, capsys, toy_data, tmp_path / "run", "--pack-documents", *flags)
    assert code == 1 and len(errors) == 1 and re.search(message, errors[0])
    assert refused(tmp_path / "run")


def test_flags_that_the_device_or_the_scores_do_not_have(toy_data, tmp_path, monkeypatch, capsys):
    code, errors = run(monkeypatch, capsys, toy_data, tmp_path / "half", "--fp16")
    assert code == 1 and len(errors) == 1 and "--fp16 needs a GPU" in errors[0]
    metric = ("--best-checkpoint-metric", "nosuch")
    code, errors = run(monkeypatch, capsys, toy_data, tmp_path / "metric", *metric)
    assert code == 1 and len(errors) == 1 and "--best-checkpoint-metric nosuch: is not among the scores" in errors[0]


@pytest.mark.parametrize("error", [KeyError("nosuch"), ZeroDivisionError("float division by zero")])
def test_a_fault_that_only_looks_like_a_flags_keeps_its_traceback(error, toy_data, tmp_path, monkeypatch, capsys):
    fairseq = {"__name__": "fairseq.trainer", "error": error}  # where it is raised
    exec("def broken(*arguments, **options): raise error", fairseq)
    monkeypatch.setattr("fairseq.trainer.Trainer.get_train_iterator", fairseq["broken"])
    with pytest.raises(type(error)):
        run(monkeypatch, capsys, toy_data, tmp_path / "run", "--update-freq", 2)


@pytest.fixture
def disk(tmp_path):
    """Return a function that mounts a tmpfs of the given size in bytes."""
    libc, folder = ctypes.CDLL(None, use_errno=True), tmp_path / "disk"
    folder.mkdir()

    def mount(size, flags=0):
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()):
            pytest.skip(f"no tmpfs may be mounted here: {os.strerror(ctypes.get_errno())}")
        return folder

    yield mount
    libc.umount2(os.fsencode(folder), 2)


def test_a_full_disk_ends_the_training_and_spares_what_was_saved(toy_data, disk, monkeypatch, capsys):
    monkeypatch.setattr(writing, "PAUSE", 0)
    folder = disk(600_000)  # three checkpoints of 150 kB, and not a fourth and fifth
    flags = ["--save-interval-updates", "2"]
    code, errors = run(monkeypatch, capsys, toy_data, folder, *flags, updates=20)
    assert code == 1 and len(errors) == 1
    assert "No space left on device; free some space and run again" in errors[0]
    assert not list(folder.glob("*.tmp"))
    for path in folder.glob("*.pt"):
        load(folder, path.name)
    assert load(folder)["optimizer_history"][-1]["num_updates"] >= 2
    for path in folder.glob("checkpoint_1_*.pt"):
        path.unlink()
    code, errors = run(monkeypatch, capsys, toy_data, folder, updates=6)  # space was freed: it resumes
    assert (code, errors) == (0, []) and load(folder)["optimizer_history"][-1]["num_updates"] == 6


def test_a_read_only_disk_is_refused_before_the_training(toy_data, disk, monkeypatch, capsys):
    code, errors = run(monkeypatch, capsys, toy_data, disk(600_000, flags=1), updates=2)
    assert code == 1 and len(errors) == 1 and "Read-only file system" in errors[0]


def test_a_file_in_place_of_the_folder(toy_data, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").write_text("mine")
    code, errors = run(monkeypatch, capsys, toy_data, tmp_path / "run")
    assert code == 1 and len(errors) == 1 and (tmp_path / "run").read_text() == "mine"
