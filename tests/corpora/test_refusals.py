"""What preparation refuses: with one line that says what to do, and without leaving anything on the disk."""

import os
import re

import pytest
from preparing import moses_text, only_error, prepare


@pytest.mark.parametrize(
    ("split", "text", "reason"),
    [
        ("valid", " \n = T = \n \n", "wiki.valid.tokens contains no sentence"),
        ("train", " \n = T = \n \n <unk> \n \n = U = \n \n <unk> \n", "no text to learn a vocabulary from"),
        ("train", moses_text("train").replace(" \n", "\n").replace("\n\n", "\n"), "blank lines divide them"),
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
    except SystemExit as exit_:  # from argparse
        got = exit_.code
    assert got == code
    assert reason in only_error(capsys)
    assert sorted(path.name for path in corpus.iterdir()) == before
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new") == []
