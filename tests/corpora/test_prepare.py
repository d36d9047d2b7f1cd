"""Preparation from end to end: a small corpus through the command line to fairseq's files."""

import hashlib
import itertools
import json
import os

import numpy as np
import pytest
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset
from preparing import DOCUMENTS, only_error, prepare, write_paragraphs

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.prepared_folder import OUTPUTS, REPORT
from fairseq_lambda.symbols import MASK, WORD_START


def refuse_to_build(*_):
    raise AssertionError("built although the result was up to date")


def test_a_corpus_becomes_a_data_folder_and_is_left_alone_afterwards(corpus, tmp_path, capsys, monkeypatch):
    dest = tmp_path / "data-bin" / "small"
    assert prepare(corpus, "--dest", dest) == 0
    printed = capsys.readouterr().out
    assert "licence: that of the text" in printed and "documents" in printed
    assert sorted(os.listdir(dest)) == sorted([*OUTPUTS, REPORT])
    assert os.listdir(dest.parent) == ["small"]

    report = json.loads((dest / REPORT).read_text())
    for split, documents in DOCUMENTS.items():
        counts = report["splits"][split]
        assert (counts["documents"], counts["sentences"]) == (documents, documents * 4)
        assert counts["literal_unknowns"] == documents * 2
        assert counts["encoder_unknowns"] == 0
        dataset = MMapIndexedDataset(str(dest / split))
        sizes = np.array(dataset.sizes)
        assert (sizes == 1).sum() == documents - 1
        assert sizes[0] > 1 and sizes[-1] > 1
        assert sizes.sum() == counts["tokens"] + len(sizes)
        assert sizes.max() == counts["longest_sentence"] + 1
        source = (corpus / f"wiki.{split}.tokens").read_bytes()
        assert report["inputs"][split]["sha256"] == hashlib.sha256(source).hexdigest()

    dictionary = Dictionary.load(str(dest / "dict.txt"))
    assert dictionary.symbols[dictionary.nspecial :] == PieceEncoder(dest / "sentencepiece.model").pieces
    assert MASK not in dictionary.symbols
    first = dictionary.string(MMapIndexedDataset(str(dest / "valid"))[0])
    text = first.replace(" ", "").replace(WORD_START, " ").strip()
    assert text.endswith("<unk>.") and " ," not in text and "=" not in text

    # again, with the same settings, with others, with a damaged file
    monkeypatch.setattr(command, "build", refuse_to_build)
    assert prepare(corpus, "--dest", dest) == 0
    assert "up to date" in capsys.readouterr().out
    assert prepare(corpus, "--dest", dest, "--vocab-size", 60) == 1
    assert "vocab_size was 64, now 60" in (message := only_error(capsys)) and "--force" in message
    with (corpus / "wiki.test.tokens").open("a") as file:
        file.write(" \n ba ke . \n")
    assert prepare(corpus, "--dest", dest) == 1
    assert "source's files have changed" in only_error(capsys)
    monkeypatch.undo()
    assert prepare(corpus, "--dest", dest, "--force") == 0
    after = json.loads((dest / REPORT).read_text())
    assert after["outputs"]["train.bin"] == report["outputs"]["train.bin"]
    assert after["outputs"]["test.bin"] != report["outputs"]["test.bin"]
    assert os.listdir(dest.parent) == ["small"]


def test_a_folder_of_texts_is_a_document_each(tmp_path, capsys):
    folder, dest = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    for number, order in zip(range(30), itertools.permutations("ba ke li mo nu ra".split()), strict=False):
        (folder / f"{number}.txt").write_text("\n\n".join(f"{start} {' '.join(order)}." for start in ("A", "Si", "To")))
    arguments = [folder, "--dest", dest, "--vocab-size", 30, "--valid-fraction", 0.2]
    assert prepare(*arguments) == 0
    assert "1.0 sentences per document" in (said := capsys.readouterr().out) and "pass --documents files" in said
    assert prepare(*arguments, "--documents", "files") == 1 and "documents was" in only_error(capsys)
    assert prepare(*arguments, "--documents", "files", "--force") == 0
    splits = json.loads((dest / REPORT).read_text())["splits"]
    assert sum(split["documents"] for split in splits.values()) == 30
    assert sum(split["sentences"] for split in splits.values()) == 90
    printed = capsys.readouterr()
    assert "documents: each file is one" in printed.out and "sentences per document" not in printed.out
    assert "documents: each file is one (--documents files)" in printed.err
    one = ["--dest", tmp_path / "one", "--documents", "files", "--valid-fraction", 0, "--vocab-size", 19]
    (folder / "all.txt").write_text("Ba ke li.\n\nMo nu ra!\n")
    assert prepare(folder / "all.txt", *one) == 1
    assert "a single document" in (error := only_error(capsys)) and "(each file is one)" in error


def test_plain_text_files_and_keep_moses(tmp_path, capsys):
    for split, documents in DOCUMENTS.items():
        text = "Ba ke li. Mo nu ra!\nSi to ba.\n\n" * (documents - 1) + "Ba ke li. Si to.\n"
        (tmp_path / f"{split}.txt").write_text(text)
    dest = tmp_path / "out"
    assert prepare(tmp_path, "--dest", dest, "--vocab-size", 30, "--keep-moses") == 0
    report = json.loads((dest / REPORT).read_text())
    assert report["layout"]["divider"] == "blank-lines" and not report["layout"]["is_moses"]
    assert report["splits"]["valid"]["sentences"] == 3 * 3 + 2
    printed = capsys.readouterr()
    assert "plain text" in printed.out and "warning" not in printed.out
    assert "documents: blank lines divide them (0 of 30 blocks of text follow a heading" in printed.err
    assert report["splits"]["valid"]["paragraphs"] == 3 * 2 + 1
    assert report["splits"]["valid"]["sentences_per_paragraph"] == round(11 / 7, 2)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_gets_the_result(corpus, tmp_path, is_there):
    folder, link = tmp_path / "large disk" / "data", tmp_path / "link"
    (folder if is_there else folder.parent).mkdir(parents=True)
    link.symlink_to(folder)
    assert prepare(corpus, "--dest", link) == 0
    assert link.is_symlink() and (folder / REPORT).is_file()
    assert os.listdir(folder.parent) == ["data"] and sorted(os.listdir(tmp_path)) == ["corpus", "large disk", "link"]


@pytest.mark.parametrize(
    ("sentences", "separator", "options", "per_paragraph"),
    [
        (["昨天N开展行动。", "人员N觉得蹊跷。", "院内发现N原料。"], "", [], 3),
        (["ฉันกลับบ้าน N", "เธออยู่ที่นั่น N"], " ", [], 1),
        (["Am 3. Oktober kam er N.", "Sie blieb N da."], " ", ["--language", "de"], 2),
        (["Am 3. Oktober kam er N.", "Sie blieb N da."], " ", [], 3),
    ],
)
def test_the_report_says_how_many_sentences_a_paragraph_has(
    tmp_path, capsys, sentences, separator, options, per_paragraph
):
    corpus, dest = write_paragraphs(tmp_path / "corpus", sentences, separator), tmp_path / "out"
    assert prepare(corpus, "--dest", dest, *options) == 0
    report, printed = json.loads((dest / REPORT).read_text()), capsys.readouterr().out
    counts = report["splits"]["train"]
    assert (counts["paragraphs"], counts["sentences"]) == (40, 40 * per_paragraph)
    assert counts["sentences_per_paragraph"] == per_paragraph
    warned = "warning: 1.00 sentences per paragraph" in printed and "Thai and Lao mark none" in printed
    assert warned == (per_paragraph == 1)
    short = f"warning: {per_paragraph:.1f} sentences per document: blank lines divide documents" in printed
    assert short == (per_paragraph < 2.5) and len(report["warnings"]) == warned + short


def test_a_line_like_a_title_does_not_make_articles_of_a_corpus(tmp_path, capsys):
    corpus, dest = write_paragraphs(tmp_path / "corpus", ["He came N.", "She left N."]), tmp_path / "out"
    with (corpus / "train.txt").open("a") as file:
        file.write("\n= Early life =\n")
    assert prepare(corpus, "--dest", dest) == 0
    assert json.loads((dest / REPORT).read_text())["splits"]["train"]["documents"] == 40
    assert "warning: 1 lines such as `= Title =`" in capsys.readouterr().out
    assert prepare(corpus, "--dest", dest, "--documents", "headings") == 1
    assert 'documents was "auto", now "headings"' in only_error(capsys)
    assert prepare(corpus, "--dest", dest, "--documents", "headings", "--force") == 1
    assert "single document" in only_error(capsys)


def test_characters_of_a_later_split_are_bytes_on_request(tmp_path, capsys):
    corpus, dest = write_paragraphs(tmp_path / "corpus", ["He came N.", "She left N."]), tmp_path / "out"
    (corpus / "valid.txt").write_text("漢字。\n\n仮名 <unk>。\n", encoding="utf-8")
    assert prepare(corpus, "--dest", dest, "--vocab-size", 120) == 1
    assert "is unknown to the vocabulary" in (message := only_error(capsys)) and "pass --byte-fallback" in message
    assert prepare(corpus, "--dest", dest, "--vocab-size", 350, "--byte-fallback") == 0
    report = json.loads((dest / REPORT).read_text())
    assert report["byte_fallback"] and report["splits"]["valid"]["encoder_unknown_rate"] == 0
    assert report["splits"]["valid"]["literal_unknowns"] == 1
    dictionary = Dictionary.load(str(dest / "dict.txt"))
    pieces = dictionary.string(MMapIndexedDataset(str(dest / "valid"))[0])
    assert "<0xE6> <0xBC> <0xA2>" in pieces
    assert PieceEncoder(dest / "sentencepiece.model").processor.decode_pieces(pieces.split()) == "漢字。"


def test_a_vocabulary_smaller_than_asked_for_is_reported(corpus, tmp_path, capsys):
    assert prepare(corpus, "--dest", tmp_path / "out", "--vocab-size", 50_000) == 1
    most = int(only_error(capsys).rpartition("--vocab-size ")[2].split()[0])
    for asked, said in ((most, ";"), (most + 1, f" (not {most + 1}: the text has no more useful ones);")):
        assert prepare(corpus, "--dest", tmp_path / f"{asked}", "--vocab-size", asked) == 0
        assert f"vocabulary: {most} pieces with special symbols{said}" in capsys.readouterr().out
