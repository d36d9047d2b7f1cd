"""From texts to sentences: batches and processes do not change the result; documents are held out for validation."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import as_text, plain_documents

from fairseq_lambda.corpora import batches
from fairseq_lambda.corpora.documents import BLANK_LINES, DIVIDERS, FILES, Layout
from fairseq_lambda.corpora.splitting import Splitting, split_files

RULES = [*DIVIDERS]
LINES = ["", " ", "\u200b", "= T =", "\u200b= T =", "= = S = =", "One. Two.", "Three.", "Four. Five? Six.", "<unk>"]


def split(files, folder, divider=BLANK_LINES, fraction=None, workers=0):
    how = Splitting(Layout(divider, False), False, "en", "text", fraction)
    found = split_files(files, how, Path(folder), workers)
    sentences = {name: file.path.read_text(encoding="utf-8") for name, file in found.items()}
    return sentences, {n: (f.paragraphs, f.headings, f.statistics, f.draws) for n, f in found.items()}


def documents(text):
    return [block.splitlines() for block in text.split("\n\n")] if text else []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=30), st.sampled_from(RULES), st.integers(1, 60), st.integers(0, 60))
def test_batches_change_nothing(lines, divider, size, more):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "train.txt")
        path.write_text("\n".join(lines), encoding="utf-8")
        whole = split({"train": [path]}, folder, divider)
        patch.setattr(batches, "SIZE", size)
        patch.setattr(batches, "MOST", size + more)
        assert split({"train": [path]}, folder, divider) == whole


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_processes_change_nothing(tmp_path, monkeypatch, fraction):
    monkeypatch.setattr(batches, "SIZE", 500)
    path = tmp_path / "train.txt"
    path.write_text(as_text(plain_documents(100)))
    assert split({"train": [path]}, tmp_path, fraction=fraction, workers=3) == split(
        {"train": [path]}, tmp_path, fraction=fraction
    )


def test_a_document_ends_with_its_file(tmp_path):
    for name, text in {"a": "One.\nTwo.\n", "b": "Three.\n\nFour.", "c": "\n\nFive.\n"}.items():
        (tmp_path / name).write_text(text)
    files = {"train": [tmp_path / name for name in "abc"], "valid": [tmp_path / "a"]}
    sentences, counts = split(files, tmp_path)
    assert documents(sentences["train"]) == [["One.", "Two."], ["Three."], ["Four."], ["Five."]]
    assert counts["train"][0] == 5 and sentences["valid"] == "One.\nTwo.\n"


@pytest.mark.parametrize("size", [1 << 20, 10])
def test_each_file_is_a_document_with_all_its_paragraphs(tmp_path, monkeypatch, size):
    monkeypatch.setattr(batches, "SIZE", size)
    monkeypatch.setattr(batches, "MOST", 2 * size)
    for name, text in {"a": "One.\n\nTwo.\n\n= T =\n\n\nThree.\n", "b": "\n\n", "c": "\nFour.\n\n\nFive."}.items():
        (tmp_path / name).write_text(text)
    sentences, counts = split({"train": [tmp_path / name for name in "abc"]}, tmp_path, FILES)
    assert documents(sentences["train"]) == [["One.", "Two.", "Three."], ["Four.", "Five."]]
    assert counts["train"][:2] == (5, 1)


@pytest.mark.parametrize("size", [1 << 20, 100])
def test_documents_are_held_out_by_their_text_alone(tmp_path, monkeypatch, size):
    monkeypatch.setattr(batches, "SIZE", size)
    monkeypatch.setattr(batches, "MOST", 10 * size)
    written = plain_documents(400)
    written += written[:50]  # duplicates: both copies are on the same side
    path, shuffled = tmp_path / "train.txt", tmp_path / "shuffled.txt"
    path.write_text(as_text(written))
    sentences, counts = split({"train": [path]}, tmp_path, fraction=0.25)
    train, valid = (documents(sentences[name]) for name in ("train", "valid"))
    assert len(train) + len(valid) == 450 and 80 <= len(valid) <= 145
    assert not {tuple(d) for d in train} & {tuple(d) for d in valid}
    assert counts["train"][0] + counts["valid"][0] == sum(map(len, written))
    assert counts["train"][2].lines == sum(map(len, train))
    shuffled.write_text(as_text(random.Random(0).sample(written, len(written))))
    again, _ = split({"train": [shuffled]}, tmp_path, fraction=0.25)
    assert sorted(documents(again["valid"])) == sorted(valid)


def test_a_long_document_is_held_out_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "SIZE", 50)
    monkeypatch.setattr(batches, "MOST", 100)
    written = [[f"Sentence {d} {i}." for i in range(40)] for d in range(30)]
    (tmp_path / "train.txt").write_text(as_text(written))
    sentences, counts = split({"train": [tmp_path / "train.txt"]}, tmp_path, fraction=0.4)
    found = [documents(sentences[name]) for name in ("train", "valid")]
    assert all(found) and sorted(sum(found, [])) == sorted(written)
    draws = counts["train"][3], counts["valid"][3]
    assert [d.documents for d in draws] == list(map(len, found))
    assert draws[1].least <= draws[1].greatest < 0.4 <= draws[0].least <= draws[0].greatest


def test_a_record_of_json_lines_is_a_document(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "SIZE", 64)
    records = [
        {"text": "One. Two.\n\n\nThree.", "id": 1},
        {"text": ""},
        {"text": "Four.\r\n"},
        {"text": "\u00e9 \ud800."},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    sentences, counts = split({"train": [path]}, tmp_path)
    assert documents(sentences["train"]) == [["One.", "Two.", "Three."], ["Four."], ["\u00e9 ?."]]
    assert counts["train"][0] == 4
