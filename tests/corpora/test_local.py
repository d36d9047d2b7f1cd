"""The files of a corpus: several per split, compressed, JSON lines, and missing ones."""

import gzip
import json
import lzma

import pytest
from preparing import as_text, only_error, plain_documents, prepare

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.json_lines import is_json_lines
from fairseq_lambda.corpora.local import find_splits
from fairseq_lambda.corpora.prepared_folder import REPORT
from fairseq_lambda.corpora.sources import find_source


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    return folder


def found(folder, form="auto", splits=("train", "valid", "test")):
    files = find_splits([folder], form, folder, splits)
    return [[str(path.relative_to(folder)) for path in files[split]] for split in splits]


@pytest.mark.parametrize(
    ("names", "train"),
    [
        (["train.txt"], ["train.txt"]),
        (["train.txt.xz"], ["train.txt.xz"]),
        (["train.txt", "train.txt.xz", "train.old.txt", "train-2.txt"], ["train.txt"]),
        (["train.jsonl.zst"], ["train.jsonl.zst"]),
        (["train.txt.bz2"], ["train.txt.bz2"]),
        (["train.TXT"], ["train.TXT"]),
        (["train.TXT", "train.txt"], ["train.txt"]),
        (["train-0.TXT.GZ", "train-1.JSONL"], ["train-0.TXT.GZ", "train-1.JSONL"]),
        (["train-10.txt", "train-9.txt.gz", "train-2.jsonl"], ["train-2.jsonl", "train-9.txt.gz", "train-10.txt"]),
        (["train.part1.ndjson", "train_0.txt", "trainer.txt", "train.csv"], ["train.part1.ndjson", "train_0.txt"]),
        (["train-0.txt", "train-0.txt.gz", "train-1.txt.gz"], ["train-0.txt", "train-1.txt.gz"]),
        (["train/b.txt", "train/a.jsonl.gz", "train/README.md"], ["train/a.jsonl.gz", "train/b.txt"]),
    ],
)
def test_files_of_a_split(tmp_path, names, train):
    make(tmp_path, "valid.txt", "test.txt.gz", *names)
    assert found(tmp_path) == [train, ["valid.txt"], ["test.txt.gz"]]


def test_wikitexts_files_come_first_and_may_be_packed(tmp_path):
    make(tmp_path, "train.txt", "valid.txt", "test.txt", "wiki.train.raw.xz", "wiki.valid.raw", "wiki.test.raw")
    assert found(tmp_path)[0] == ["wiki.train.raw.xz"]
    with pytest.raises(PrepareError, match=r"has no wiki\.\{train,valid,test\}\.tokens$"):
        found(tmp_path, form="tokens")


def test_a_missing_split_is_named_with_the_remedy(tmp_path):
    make(tmp_path, "train.txt", "test.txt")
    with pytest.raises(PrepareError, match=r"valid\.txt is missing.*--valid-fraction"):
        found(tmp_path)
    assert found(tmp_path, splits=("train",)) == [["train.txt"]]


@pytest.mark.parametrize(
    ("names", "texts", "others"),
    [
        (
            ["a.txt", "B.TXT", "d.md", "sub/c.txt", ".hidden"],
            ["B.TXT", "a.txt"],
            "1 files and 1 subfolders are left out",
        ),
        (["wiki_00.txt", "wiki_01.txt"], ["wiki_00.txt", "wiki_01.txt"], None),
        (["tests.txt", "wikitext.txt"], ["tests.txt", "wikitext.txt"], None),
        (["a.txt", "a.txt.GZ"], ["a.txt"], "a.txt.GZ is left out, because"),
    ],
)
def test_a_folder_of_texts_is_read_whole_or_what_is_left_out_is_said(tmp_path, capsys, names, texts, others):
    source = find_source(str(make(tmp_path, *names)), "auto", tmp_path)
    assert [path.name for path in source.provide(tmp_path)["train"]] == texts
    said = capsys.readouterr().err
    assert said.count("\n") == bool(others) and (not others or others in said)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ["notes.txt", "test_results.txt"],
            r"train\.txt is missing, but test_results\.txt is taken for the test split: add it, or rename test_results",
        ),
        (
            ["a.txt", "train_times.txt"],
            "valid.txt is missing, but train_times.txt .* --valid-fraction, or rename train_t",
        ),
        (["a.txt", "train/b.txt"], r"but train/b\.txt is taken for the train split"),
        (["a.txt", "test.py"], r"has no wiki.*; test\.py in it looks like .*: rename it if the folder is one text"),
        (["a.txt", "wikitext-2/b"], "has no wiki.*; wikitext-2 in it looks like"),
        (["train.TXT"], r"valid\.txt is missing, but train\.TXT .* with --valid-fraction$"),
    ],
)
def test_a_name_that_is_taken_for_a_split_is_in_the_message(tmp_path, names, reason):
    with pytest.raises(PrepareError, match=reason):
        find_source(str(make(tmp_path, *names)), "auto", tmp_path)


def test_texts_of_ones_own_need_no_test_split(tmp_path):
    documents = plain_documents(80)
    for split, part in {"train": documents[10:], "valid": documents[:10]}.items():
        (tmp_path / f"{split}.txt").write_text(as_text(part))
    assert prepare(tmp_path, "--dest", tmp_path / "out") == prepare(tmp_path, "--dest", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert list(report["splits"]) == ["train", "valid"] and not (tmp_path / "out/test.bin").exists()
    make(tmp_path, "wiki.train.raw", "wiki.valid.raw")
    with pytest.raises(PrepareError, match=r"wiki\.test\.raw is missing"):
        found(tmp_path, form="raw")


def test_packed_parts_and_json_lines_give_the_data_of_one_text(tmp_path):
    documents = {split: plain_documents(n, seed=n) for split, n in {"train": 60, "valid": 8, "test": 7}.items()}
    one, parts, records = tmp_path / "one", tmp_path / "parts", tmp_path / "records"
    for folder in (one, parts, records):
        folder.mkdir()
    for split, found in documents.items():
        (one / f"{split}.txt").write_text(as_text(found))
        (parts / f"{split}-1.txt.xz").write_bytes(lzma.compress(as_text(found[:3]).encode()))
        (parts / f"{split}-2.txt").write_text("\n" + as_text(found[3:5]))
        (parts / f"{split}-10.txt.gz").write_bytes(gzip.compress(as_text(found[5:]).encode()))
        lines = [json.dumps({"title": f"T{i}", "body": "\n\n".join(d)}) for i, d in enumerate(found)]
        (records / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    assert prepare(one, "--dest", tmp_path / "a") == prepare(parts, "--dest", tmp_path / "b") == 0
    assert prepare(records, "--dest", tmp_path / "c", "--text-field", "body") == 0
    reports = [json.loads((tmp_path / name / REPORT).read_text()) for name in "abc"]
    assert reports[0]["outputs"] == reports[1]["outputs"] == reports[2]["outputs"]
    assert [file["name"] for file in reports[1]["inputs"]["train"]] == [
        "train-1.txt.xz",
        "train-2.txt",
        "train-10.txt.gz",
    ]
    assert reports[2]["layout"]["evidence"].startswith("JSON lines")


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        ('{"text": "One. Two."}\n{"text": 3}\n', [], "line 2: no text in the field 'text'; --text-field"),
        ('{"text": "One."}\n[1]\n', [], "line 2: no object; every line has to be an object (`jq -c '.[]'`"),
        ('{"text": "One."}\n\n{"text": \n', [], "line 3: not JSON"),
        ('{"text": "One."}\n\n{"text": ' + "[" * 10**5 + "\n", [], "line 3: not JSON"),
        (
            '{"text": "One."}\n{"text": "Caf\udce9."}\n',
            [],
            "line 2: not UTF-8 (invalid continuation byte at byte 13); if",
        ),
        ('{"text": "One. Two."}\n', ["--text-field", "body"], "line 1: no text in the field 'body'"),
        ('{"text": "One. Two."}\n', ["--documents", "headings"], "every line is a document"),
        ('{"text": "One. Two."}\n', ["--documents", "files"], "--documents files: in JSON lines every line is"),
        ('{"text": "One. Two."}\n', [], "valid.txt is not: use one of the two"),
    ],
)
def test_json_lines_that_are_wrong_are_named_with_file_and_line(tmp_path, capsys, text, arguments, reason):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text(text, errors="surrogateescape")
    if "valid.txt" in reason:
        (tmp_path / "valid.jsonl").unlink()
        (tmp_path / "valid.txt").write_text("One. Two.\n")
    assert prepare(tmp_path, "--dest", tmp_path / "out", *arguments) == 1
    assert reason in only_error(capsys)


RECORDS = [json.dumps({"content": paragraph, "id": i}) for i, (paragraph, *_) in enumerate(plain_documents(40))]


@pytest.mark.parametrize("lines", [RECORDS, ["", " ", *RECORDS], ["\ufeff" + RECORDS[0], *RECORDS[1:]]])
def test_json_lines_are_known_by_their_content_or_the_field_is_asked_for(tmp_path, capsys, lines):
    path = tmp_path / "dump.json.txt"
    path.write_text("\n".join(lines))
    assert prepare(path, "--dest", tmp_path / "out") == 1
    assert "dump.json.txt: JSON lines without the field 'text'; --text-field names" in only_error(capsys)
    assert prepare(path, "--dest", tmp_path / "out", "--text-field", "content", "--valid-fraction", 0) == 0
    assert json.loads((tmp_path / "out" / REPORT).read_text())["splits"]["train"]["documents"] == 40


@pytest.mark.parametrize("form", ["[%s]", "[\n%s\n]", "[\n  {%s]", " \n[ %s"])
def test_a_json_array_is_not_taken_for_prose(tmp_path, capsys, form):
    path = tmp_path / "dump"
    records = ",\n".join(RECORDS)
    path.write_text(form % (records.replace("{", "\n    ", 1) if "{" in form else records))
    assert prepare(path, "--dest", tmp_path / "out") == 1
    assert "dump: a JSON array; every line has to be an object (`jq -c '.[]'" in only_error(capsys)


@pytest.mark.parametrize("first", ["{}", "{a} is a set.", "[{{cite}}] is a mark.", "[1]", '{"Who?"} she said.'])
def test_prose_that_starts_with_a_bracket_is_still_prose(tmp_path, first):
    path = tmp_path / "text"
    path.write_text(f"{first}\nMore.\n")
    assert not is_json_lines(path)
