"""Files in all formats and encodings that are read."""

import bz2
import gzip
import io
import lzma
import random
import sys

import pytest

from fairseq_lambda.finetuning.examples import Source
from fairseq_lambda.finetuning.lines import Lines
from fairseq_lambda.finetuning.tables import Table


def read(path, **options):
    return [(e.label, e.texts or e.words) for e in Source(path, **options)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_quotes_and_odd_line_ends_are_text_in_tsv(tmp_path):
    path = written(tmp_path, "a.tsv", '\ufefflabel\ttext\r\nx\t"She said\r\ny\ta\u2028b "c"\x85\r\n')
    assert read(path) == [("x", ('"She said',)), ("y", ('a\u2028b "c"\x85',))]


def test_columns_by_number_in_a_file_without_header(tmp_path):
    path = written(tmp_path, "a.tsv", "gj04\t1\t\tOne.\ngj05\t0\t*\tTwo.\n")
    assert read(path, text=("4",), label=("2",)) == [("1", ("One.",)), ("0", ("Two.",))]


def test_columns_by_number_in_a_file_with_header(tmp_path):
    path = written(tmp_path, "a.tsv", "sentence\tlabel\nOne.\t1\n")
    assert read(path, text=("1",), label=("2",)) == [("1", ("One.",))]
    assert read(path, text=("1",), label=("2",), header="no") == [("label", ("sentence",)), ("1", ("One.",))]


def test_a_header_with_capitals(tmp_path):
    path = written(tmp_path, "a.csv", "Sentence,Label\nOne.,x\n")
    assert read(path) == read(path, text=("1",), label=("2",)) == [("x", ("One.",))]
    path = written(tmp_path, "b.jsonl", '{"Text": "no", "text": "one", "LABEL": "x"}\n')
    assert read(path) == [("x", ("one",))]


def test_names_with_signs_and_pairs(tmp_path):
    path = written(tmp_path, "mrpc.txt", '\ufeffQuality\t#1 String\t#2 String\n1\tHe said "x\tShe y"\n')
    assert read(path, text=("#1 String", "#2 String"), label=("Quality",)) == [("1", ('He said "x', 'She y"'))]
    path = written(tmp_path, "rte.tsv", "sentence1\tsentence2\tlabel\tidx\nA\tB\t0\t7\n")
    assert read(path) == [("0", ("A", "B"))]


def test_csv(tmp_path):
    path = written(tmp_path, "a.csv", 'text,label\n"one, ""two""\nthree",x\nfour,y\n')
    assert read(path) == [("x", ('one, "two"\nthree',)), ("y", ("four",))]
    path = written(tmp_path, "b.csv", "text;label\none;x\n")
    assert read(path) == [("x", ("one",))]


def test_json_lines(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "one", "label": 3}\n\n{"text": "two", "label": true}\n')
    assert read(path) == [("3", ("one",)), ("True", ("two",))]
    path = written(tmp_path, "b.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}\n')
    assert read(path) == [(["O", "B-X"], ["a", "b"])]


def test_several_labels(tmp_path):
    path = written(tmp_path, "a.tsv", "text\tlabels\none\tx, y\ntwo\t\n")
    assert read(path, separator=",") == [(["x", "y"], ("one",)), ([], ("two",))]
    path = written(tmp_path, "b.csv", "text,toxic,rude\none,1,0\ntwo,1,1\n")
    assert read(path, label=("toxic", "rude")) == [(["toxic"], ("one",)), (["toxic", "rude"], ("two",))]
    path = written(tmp_path, "c.jsonl", '{"text": "one", "labels": ["x", "y"]}\n')
    assert read(path) == [(["x", "y"], ("one",))]


CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t_\t_\t_\t_
2\tn't\tnot\tPART\t_\t_\t_\t_\t_\t_
2.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_

# two sentences, no empty line at the end
1\t#\t#\tSYM\tX\t_\t_\t_\t_\t_
"""


def test_conllu_leaves_out_what_is_no_word(tmp_path):
    path = written(tmp_path, "a.conllu", CONLLU)
    assert read(path) == [(["AUX", "PART"], ["do", "n't"]), (["SYM"], ["#"])]
    assert read(path, label=("5",))[1] == (["X"], ["#"])


def test_conll_takes_the_last_column(tmp_path):
    path = written(tmp_path, "a.conll", "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\n")
    assert read(path) == [(["B-ORG", "O"], ["EU", "rejects"]), (["B-PER"], ["Peter"])]


def test_trec_in_another_encoding(tmp_path):
    path = written(tmp_path, "train.txt", b"0 Who was Ren\xe9 ?\n5 How far ?\n")
    source = Source(path)
    assert [(e.label, e.texts) for e in source] == [("0", ("Who was René ?",)), ("5", ("How far ?",))]
    assert source.notes() == [f"{path}: 1 line is not UTF-8 (line 1) and read as Windows-1252"]


def zstd(text):
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(text)


PACKERS = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix,pack", PACKERS.items(), ids=PACKERS)
def test_compressed(tmp_path, suffix, pack):
    path = written(tmp_path, f"a.tsv{suffix}", pack(b"label\ttext\nx\tone\n"))
    assert read(path) == [("x", ("one",))]
    path.write_bytes(pack(b"label\ttext\nx\tone\n" * 9)[:-9])
    with pytest.raises(ValueError, match="is damaged or cut short"):
        read(path)
    path = written(tmp_path, f"b.tsv{suffix.upper()}", pack(b"label\ttext\n" + random.Random(0).randbytes(9999)))
    content = bytearray(path.read_bytes())
    content[3000:3100] = content[5000:5100]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="b.tsv.* is damaged or cut short"):
        list(Lines(path))


def test_standard_input_may_be_compressed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(b"one\ntwo\n")))))
    assert [line for _, line in Lines("-")] == ["one\n", "two\n"]


def test_without_its_package_zstd_is_an_error_that_names_it(tmp_path, monkeypatch):
    path = written(tmp_path, "a.tsv.zst", b"\x28\xb5\x2f\xfd....")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match="a.tsv.zst is compressed with zstd.*pip install zstandard"):
        list(Lines(path))


def test_utf_16(tmp_path):
    path = written(tmp_path, "a.tsv", "label\ttext\r\nx\té\r\n".encode("utf-16"))
    assert read(path) == [("x", ("é",))]


def test_empty_texts_are_read_and_counted(tmp_path):
    source = Source(written(tmp_path, "a.tsv", "label\ttext\nx\tone\ny\t\nz\t \n"))
    assert [e.texts for e in source] == [("one",), ("",), (" ",)]
    assert source.notes() == [f"{source.name}: 2 texts are empty (line 3), and read as such"]


def test_a_text_per_line(tmp_path):
    path = written(tmp_path, "a.txt", "one\n\ntwo\n")
    assert [e.texts for e in Source(path, labelled=False)] == [("one",), ("",), ("two",)]
    path = written(tmp_path, "b.txt", "one\ttwo\n")
    for options in ({}, {"format": "text"}):
        assert [e.texts for e in Source(path, labelled=False, **options)] == [("one", "two")]
    assert [e.texts for e in Source(path, labelled=False, text=("2",))] == [("two",)]
    path = written(tmp_path, "c.txt", "label\ttext\nx\tone\n")
    assert [e.texts for e in Source(path, labelled=False)] == [("one",)]
    path = written(tmp_path, "d.txt", "quality\tfirst\nx\tone\n")
    assert [e.texts for e in Source(path, labelled=False, text=("first",))] == [("one",)]


@pytest.mark.parametrize("name,content,options,message", [
    ("a.tsv", "label\ttext\nx\tone\n", {"text": ("txt",)}, "has no column 'txt' (--text): it has 'label', 'text'"),
    ("a.tsv", "label\ttext\nx\ty\n", {"text": ("3",), "header": "yes"}, "has no column '3' (--text)"),
    ("a.tsv", "label\ttext\nx\tone\ttwo\n", {}, "line 2: has 3 columns, but the first line has 2"),
    ("a.tsv", "a\tb\n", {}, "Name it with --text, and that of the labels with --label, by number if the file has"),
    ("a.tsv", "a\tb\n", {"label": ("1",)}, "which column is meant? Name it with --text, by number if the file has no"),
    ("a.tsv", "a\tb\n", {"text": ("2",)}, "which column is meant? Name it with --label, by number if the file has no"),
    ("a.csv", 'text,label\none,x\n"two,y\nthree,z\n', {}, "line 3: a quote opens in the record that starts there"),
    ("a.csv", 'text,label\n"two" or,y\n', {}, "line 2: a quote opens"),
    ("a.jsonl", '{"text": 1\n', {}, "line 1: is not JSON"),
    ("a.jsonl", '{"text": ' + "[" * 10**5 + "\n", {}, "line 1: is not JSON"),
    ("a.jsonl", "[1]\n", {}, "line 1: is not a JSON object"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', {}, "line 2 has no 'label'"),
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', {}, "line 1: 2 words have 1 labels: one per word is needed"),
    ("a.conll", "EU B-ORG\nrejects\n", {}, "line 2: has 1 columns instead of 2: a word without a label?"),
    ("a.conll", "EU\nrejects\n", {}, "column '1' cannot be both text and label (columns: 1): name the right"),
    ("a.conllu", "EU B-ORG\n", {}, "line 1: is not CoNLL-U"),
    ("a.tsv", "label\ttext\n \tone\n", {}, "line 2: the label is empty"),
    ("a.csv", "text,x,y\none,1,maybe\n", {"label": ("x", "y")}, "line 2: y is 'maybe': 0 or 1 is needed"),
    ("a.dat", "", {}, "a.dat: unknown ending: add --format"),
])  # fmt: skip
def test_errors_name_file_line_and_remedy(tmp_path, name, content, options, message):
    path = written(tmp_path, name, content)
    with pytest.raises(ValueError) as error:
        read(path, **options)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_memory_is_flat(tmp_path):
    """A quote that never closes ends after ten megabytes, not at the end of the file."""
    path = written(tmp_path, "a.csv", 'text,label\n"' + "word word\n" * 1_200_000)
    read_lines = 0

    class Counting(Lines):
        def __iter__(self):
            nonlocal read_lines
            for line in super().__iter__():
                read_lines += 1
                yield line

    table = Table(path)
    table.lines = Counting(path)
    with pytest.raises(ValueError, match="line 2: a quote opens"):
        list(table)
    assert read_lines < 1_100_000
