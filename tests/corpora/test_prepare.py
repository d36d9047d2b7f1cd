"""Preparation from end to end: a small corpus through the command line to fairseq's files."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora import sources
from fairseq_lambda.corpora.download import Archive
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.prepared_folder import OUTPUTS, REPORT, is_up_to_date
from fairseq_lambda.corpora.vocabulary import PieceEncoder
from fairseq_lambda.files import sha256
from fairseq_lambda.symbols import MASK, WORD_START

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "preprocess_wikitext.sh"
WORDS = ["ba", "ke", "li", "mo", "nu", "ra", "si", "to"]
DOCUMENTS = {"train": 30, "valid": 4, "test": 3}


def moses_text(split, seed=0):
    draw = random.Random(f"{seed}-{split}")
    lines = [" "]
    for number in range(DOCUMENTS[split]):
        lines += [f" = Title {number} = ", " "]
        for _ in range(2):
            words = ["".join(draw.choices(WORDS, k=draw.randint(1, 3))) for _ in range(8)]
            lines.append(" " + " ".join(words) + " , <unk> . " + " ".join(words[::-1]) + " . ")
        lines += [" ", " = = Section = = ", " "]
    return "\n".join(lines) + "\n"


def write_corpus(folder):
    folder.mkdir()
    for split in DOCUMENTS:
        (folder / f"wiki.{split}.tokens").write_text(moses_text(split), encoding="utf-8")
    return folder


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared corpus, to be read only."""
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare(write_corpus(folder / "corpus"), "--dest", folder / "out") == 0
    return folder / "out"


def prepare(*arguments):
    return command.main([str(a) for a in ("--vocab-size", 64, "--workers", 1, *arguments)])


def only_error(capsys):
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 1 and errors[0] == lines[-1]
    assert "Traceback" not in "\n".join(lines)
    return errors[0]


def refuse_to_build(*_):
    raise AssertionError("built although the result was up to date")


def test_a_corpus_becomes_a_data_folder_and_is_left_alone_afterwards(corpus, tmp_path, capsys, monkeypatch):
    dest = tmp_path / "data-bin" / "small"
    assert prepare(corpus, "--dest", dest) == 0
    printed = capsys.readouterr().out
    assert "CC BY-SA" in printed and "documents" in printed
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

    # again: the same settings, others, a damaged file
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


def test_plain_text_files_and_keep_moses(tmp_path, capsys):
    for split, documents in DOCUMENTS.items():
        text = "Ba ke li. Mo nu ra!\nSi to ba.\n\n" * (documents - 1) + "Ba ke li. Si to.\n"
        (tmp_path / f"{split}.txt").write_text(text)
    dest = tmp_path / "out"
    assert prepare(tmp_path, "--dest", dest, "--vocab-size", 30, "--keep-moses") == 0
    report = json.loads((dest / REPORT).read_text())
    assert not report["layout"]["has_titles"] and not report["layout"]["is_moses"]
    assert report["splits"]["valid"]["sentences"] == 3 * 3 + 2
    printed = capsys.readouterr()
    assert "plain text" in printed.out and "warning" not in printed.out
    assert "documents: blank lines divide them (0 of 30 blocks of text follow a heading" in printed.err
    assert report["splits"]["valid"]["paragraphs"] == 3 * 2 + 1
    assert report["splits"]["valid"]["sentences_per_paragraph"] == round(11 / 7, 2)


def write_paragraphs(folder, sentences, separator=" ", count=40):
    folder.mkdir()
    for split in DOCUMENTS:
        draw = random.Random(split)
        numbered = ([s.replace("N", str(draw.randrange(10**6))) for s in sentences] for _ in range(count))
        (folder / f"{split}.txt").write_text("\n\n".join(map(separator.join, numbered)) + "\n", encoding="utf-8")
    return folder


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
    assert warned == (per_paragraph == 1) == bool(report["warnings"])


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


@pytest.mark.parametrize(
    ("split", "text", "reason"),
    [
        ("valid", " \n = T = \n \n", "wiki.valid.tokens holds no sentence"),
        ("train", moses_text("train").replace(" \n", "\n").replace("\n\n", "\n"), "a blank line divides them"),
        ("train", re.sub(" = Title [1-9].* = ", "", moses_text("train")), "= Title = ` between blank lines starts one"),
    ],
)
def test_titled_text_without_documents_is_refused_and_leaves_nothing(corpus, tmp_path, capsys, split, text, reason):
    (corpus / f"wiki.{split}.tokens").write_text(text)
    assert prepare(corpus, "--dest", tmp_path / "new" / "out") == 1
    assert reason in only_error(capsys)
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["no-such-corpus"], 1, "no-such-corpus is neither a corpus nor a folder"),
        (["{empty}"], 1, "has no wiki.{train,valid,test}.raw"),
        (["{corpus}", "--vocab-size", "0"], 2, "--vocab-size is 0"),
        (["{corpus}", "--vocab-size", "-5"], 2, "--vocab-size is -5"),
        (["{corpus}", "--vocab-size", "many"], 2, "invalid int value"),
        (["{corpus}", "--vocab-size", "9" * 12], 2, "the maximum is"),
        (["{corpus}", "--vocab-size", "50000"], 1, "far too large"),
        (["{corpus}", "--character-coverage", "0"], 2, "--character-coverage is 0.0"),
        (["{corpus}", "--character-coverage", "nan"], 2, "--character-coverage is nan"),
        (
            ["{corpus}", "--vocab-size", "200", "--byte-fallback"],
            1,
            "cannot hold the characters of this text, and 256 bytes",
        ),
        (["{corpus}", "--language", "german"], 1, "--language 'german' is not a language code"),
        (["{corpus}", "--documents", "lines"], 2, "invalid choice: 'lines'"),
        (["{corpus}", "--workers", "0"], 2, "--workers is 0"),
        (["{corpus}", "--raw"], 1, "has no wiki.{train,valid,test}.raw"),
        (["{corpus}", "--dest", "{corpus}"], 1, "did not write; choose another --dest"),
        (["{corpus}", "--force", "--dest", "{corpus}"], 1, "did not write"),
        (["{corpus}", "--dest", "{corpus}/wiki.test.tokens"], 1, "is a file"),
        (["{corpus}", "--dest", "{corpus}/wiki.test.tokens/x"], 1, "choose another --dest"),
        ([], 2, "required: {wikitext-2"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(corpus, tmp_path, capsys, arguments, code, reason):
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in corpus.iterdir())
    places = {"{corpus}": corpus, "{empty}": tmp_path / "empty"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    if "--dest" not in arguments:
        arguments += ["--dest", str(tmp_path / "new" / "out")]
    try:
        got = prepare(*arguments)
    except SystemExit as exit_:  # argparse's way out
        got = exit_.code
    assert got == code
    assert reason in only_error(capsys)
    assert sorted(path.name for path in corpus.iterdir()) == before
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []


def test_a_failure_leaves_the_earlier_result_as_it_was(corpus, prepared, tmp_path, capsys, monkeypatch):
    dest = tmp_path / "out"
    shutil.copytree(prepared, dest)
    before = {name: sha256(dest / name) for name in os.listdir(dest)}

    def fail(*_):
        raise PrepareError("broken on purpose")

    monkeypatch.setattr(command, "binarise", fail)
    assert prepare(corpus, "--dest", dest, "--force") == 1
    assert only_error(capsys) == "error: broken on purpose"
    assert {name: sha256(dest / name) for name in os.listdir(dest)} == before
    assert sorted(os.listdir(tmp_path)) == ["corpus", "out"]


def test_a_downloaded_archive_is_prepared_and_kept(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    archive = served / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for split in DOCUMENTS:
            zipped.writestr(f"wikitext-2-raw/wiki.{split}.raw", moses_text(split))
    known = Archive(archive.name, sha256(archive), archive.stat().st_size, ())
    monkeypatch.setitem(sources._ARCHIVES, ("wikitext-2", "raw"), known)
    monkeypatch.delenv("WIKITEXT_DIR", raising=False)

    mirror, dest = served.as_uri(), tmp_path / "data-bin" / "wikitext-2"
    assert prepare("wikitext-2", "--dest", dest, "--mirror", mirror) == 0
    assert sorted(os.listdir(dest.parent)) == ["downloads", "wikitext-2"]
    assert os.listdir(dest.parent / "downloads") == [archive.name]
    archive.unlink()  # neither an up-to-date result nor a rebuild needs a second download
    assert prepare("wikitext-2", "--dest", dest, "--mirror", mirror) == 0
    found = sources.find_source("wikitext-2", "raw", dest.parent / "downloads", (mirror,))
    assert set(found.provide(tmp_path)) == set(DOCUMENTS)


def run_script(*arguments, **environment):
    command, environment = [SCRIPT, *map(str, arguments)], os.environ | {"PYTHON": sys.executable} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_help_and_a_missing_python(capsys):
    with pytest.raises(SystemExit, match="0"):
        prepare("--help")
    assert "usage:" in (shown := capsys.readouterr().out) and "vital" in shown
    assert run_script("vital", PYTHON="no-such-python").stderr.startswith("error: no Python")


@pytest.mark.slow
def test_the_script_prepares_a_corpus_and_passes_errors_on(corpus, tmp_path):
    done = run_script(corpus, "--vocab-size", 64, "--dest", tmp_path / "out", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "train.bin").stat().st_size > 0
    refused = run_script()
    assert refused.returncode == 2 and "error: the following arguments are required: {wikitext-2|" in refused.stderr


def test_a_damaged_or_unfinished_result_is_built_again(prepared, tmp_path, capsys):
    dest = tmp_path / "out"
    shutil.copytree(prepared, dest)
    settings = json.loads((dest / REPORT).read_text())["settings"]
    assert is_up_to_date(dest, settings, force=False)
    (dest / "valid.bin").write_bytes(b"")
    assert not is_up_to_date(dest, settings, force=False)
    assert "valid.bin is missing or damaged" in capsys.readouterr().err
    (dest / REPORT).write_text("{")
    assert not is_up_to_date(dest, settings, force=False)
    assert "no usable report.json" in capsys.readouterr().err
