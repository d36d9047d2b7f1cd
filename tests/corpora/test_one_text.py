"""One text without splits, a file or standard input: a fraction of its documents is held out."""

import gzip
import io
import json
import os
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
from preparing import as_text, only_error, plain_documents, prepare

from fairseq_lambda.corpora import batches
from fairseq_lambda.corpora.prepared_folder import REPORT, outputs


def report_of(folder):
    return json.loads((folder / REPORT).read_text())


def standard_input(monkeypatch, content):
    stream = io.BytesIO(content)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "my.text.txt"
    path.write_text(as_text(plain_documents(200)))
    return path


def test_a_fraction_of_the_documents_becomes_the_valid_split(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare(text, "--valid-fraction", 0.2) == 0
    folder = tmp_path / "data-bin" / "my.text"
    assert sorted(os.listdir(folder)) == sorted([*outputs(("train", "valid")), REPORT])
    splits = report_of(folder)["splits"]
    assert splits["train"]["documents"] + splits["valid"]["documents"] == 200
    assert 20 <= splits["valid"]["documents"] <= 60
    capsys.readouterr()
    assert prepare(text, "--valid-fraction", 0.2) == 0 and "up to date" in capsys.readouterr().out
    assert prepare(text) == 1
    assert "valid_fraction was 0.2, now 0.01" in only_error(capsys)


def test_without_a_fraction_it_is_one_percent_and_said(text, tmp_path, capsys):
    text.write_text(as_text(plain_documents(800)))
    assert prepare(text, "--dest", tmp_path / "out") == 0
    assert "1% of its documents become the valid split" in capsys.readouterr().err
    assert 1 <= report_of(tmp_path / "out")["splits"]["valid"]["documents"] <= 24


def test_a_fraction_of_less_than_a_document_is_one(text, tmp_path, capsys):
    assert prepare(text, "--dest", tmp_path / "out", "--valid-fraction", 1e-6) == 0
    assert "no document fell into --valid-fraction 1e-06: one is held out" in capsys.readouterr().err
    splits = report_of(tmp_path / "out")["splits"]
    assert splits["train"]["documents"] == 199 and splits["valid"]["documents"] == 1


def test_a_document_in_several_batches_is_held_out_if_its_first_part_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "SIZE", 100)
    monkeypatch.setattr(batches, "MOST", 200)
    for seed in range(8):  # with some of them, the whole documents would draw in another order than their first parts
        path = tmp_path / f"{seed}.txt"
        path.write_text(as_text([[*first, *second] for first, second in pairwise(plain_documents(12, seed))]))
        assert prepare(path, "--dest", tmp_path / f"out{seed}", "--valid-fraction", 1e-9) == 0
        splits = report_of(tmp_path / f"out{seed}")["splits"]
        assert (splits["train"]["documents"], splits["valid"]["documents"]) == (10, 1)


def test_with_a_fraction_of_0_all_is_train(text, tmp_path):
    assert prepare(text, "--dest", tmp_path / "out", "--valid-fraction", 0) == 0
    assert list(report_of(tmp_path / "out")["splits"]) == ["train"]
    assert not (tmp_path / "out" / "valid.bin").exists()


def test_a_folder_of_train_alone_and_standard_input_give_the_same(text, tmp_path, monkeypatch, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.txt").write_bytes(text.read_bytes())
    fraction = ["--valid-fraction", 0.1]
    assert prepare(text, "--dest", tmp_path / "a", *fraction) == 0
    assert prepare(tmp_path / "corpus", "--dest", tmp_path / "b", *fraction) == 0
    packed = gzip.compress(text.read_bytes())
    standard_input(monkeypatch, packed)
    assert prepare("-", "--dest", tmp_path / "c", *fraction) == 0
    reports = [report_of(tmp_path / name) for name in "abc"]
    assert reports[0]["outputs"] == reports[1]["outputs"] == reports[2]["outputs"]
    assert reports[2]["inputs"]["train"]["name"] == "standard input"
    capsys.readouterr()
    for content, code, said in ((packed, 0, "is up to date"), (packed + packed, 1, "the source's files have changed")):
        standard_input(monkeypatch, content)
        assert prepare("-", "--dest", tmp_path / "c", *fraction) == code
        assert said in "".join(capsys.readouterr())
    standard_input(monkeypatch, b'{"text": "One. Two."}\n{"text": "Three. Four."}\n' * 20)
    assert prepare("-", "--dest", tmp_path / "d", "--valid-fraction", 0, "--vocab-size", 20) == 0
    assert report_of(tmp_path / "d")["splits"]["train"]["documents"] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "corpus", "d", "my.text.txt"]


@pytest.mark.parametrize("fraction", [0, 0.1])
def test_a_test_split_stays_one_beside_what_is_held_out(text, tmp_path, fraction):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.txt").write_bytes(text.read_bytes())
    (folder / "test.txt").write_text(as_text(plain_documents(30, seed=1)))
    for path, dest in ((text, "without"), (folder, "with")):
        assert prepare(path, "--dest", tmp_path / dest, "--valid-fraction", fraction) == 0
    without, having = report_of(tmp_path / "without"), report_of(tmp_path / "with")
    assert list(having["splits"]) == (["train", "valid", "test"] if fraction else ["train", "test"])
    assert having["splits"]["test"]["documents"] == 30
    assert having["outputs"] | without["outputs"] == having["outputs"]  # the other splits are the same


def test_a_folder_of_texts_is_one_text(tmp_path, capsys):
    documents = plain_documents(200)
    (tmp_path / "notes").mkdir()
    for number in (2, 10):
        half = documents[:100] if number == 2 else documents[100:]
        (tmp_path / f"notes/letters{number}.txt").write_text(as_text(half))
    (tmp_path / "notes/picture.png").touch()
    (tmp_path / "all.txt").write_text(as_text(documents))
    for corpus in ("notes", "all.txt"):
        assert prepare(tmp_path / corpus, "--dest", tmp_path / f"{corpus}-out", "--valid-fraction", 0.1) == 0
    reports = [report_of(tmp_path / f"{corpus}-out") for corpus in ("notes", "all.txt")]
    assert [file["name"] for file in reports[0]["inputs"]["train"]] == ["letters2.txt", "letters10.txt"]
    assert reports[0]["outputs"] == reports[1]["outputs"]
    capsys.readouterr()
    (tmp_path / "notes/train.txt").touch()  # from here on it is a folder of splits
    assert prepare(tmp_path / "notes", "--dest", tmp_path / "x") == 1
    assert "valid.txt is missing" in only_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["{text}", "--valid-fraction", 1], 2, "--valid-fraction is 1.0; it must be at least 0 and below 1"),
        (["{text}", "--valid-fraction", -0.1], 2, "--valid-fraction is -0.1"),
        (["{single}", "--valid-fraction", 0.2], 1, "1 document cannot be divided into train, which needs"),
        (["{single}", "--valid-fraction", 0.999], 1, "1 document cannot be divided into train, which needs"),
        (["{same}", "--valid-fraction", 0.001], 1, "the 40 documents have the same text"),
        (["{same}", "--valid-fraction", 0.999], 1, "the 40 documents have the same text"),
        (["{text}", "--valid-fraction", 0.999999], 1, "no document is left for train: lower --valid-fraction"),
        (["-"], 2, "choose a folder for the result, such as --dest"),
        (["{corpus}", "--valid-fraction", 0.1], 1, "is a valid split already: leave --valid-fraction out"),
        (["wikitext-2", "--valid-fraction", 0.1], 1, "wikitext-2 has its own valid split"),
        (["{empty}", "--dest", "x"], 1, "empty.txt is empty"),
    ],
)
def test_what_does_not_go_together(text, corpus, tmp_path, monkeypatch, capsys, arguments, code, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "single.txt").write_text("\n".join(f"Ba li{i} mo. Ke nu ba." for i in range(40)))
    (tmp_path / "same.txt").write_text("Ba li mo. Ke nu ba.\n\n" * 40)
    places = {
        "{same}": tmp_path / "same.txt",
        "{single}": tmp_path / "single.txt",
        "{text}": text,
        "{corpus}": corpus,
        "{empty}": tmp_path / "empty.txt",
    }
    standard_input(monkeypatch, b"")
    try:
        got = prepare(*(places.get(argument, argument) for argument in arguments))
    except SystemExit as exit_:
        got = exit_.code
    assert got == code and reason in only_error(capsys)


def test_empty_standard_input_is_refused_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    standard_input(monkeypatch, b"")
    assert prepare("-", "--dest", tmp_path / "out") == 1
    assert "standard input is empty" in only_error(capsys)
    assert os.listdir(tmp_path) == []
