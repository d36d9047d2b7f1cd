"""Minimal pairs as they come: a folder, a file, an archive; and what is wrong with a line."""

import io
import json
import tarfile
import zipfile

import pytest

from fairseq_lambda.commands.minimal_pairs import read_paradigms


def line(good, bad, **more):
    return json.dumps({"sentence_good": good, "sentence_bad": bad, **more}) + "\n"


FILES = {
    "data/b.jsonl": line("It runs.", "It run.", UID="agreement", linguistics_term="subject_verb_agreement") * 2,
    "data/a.jsonl": "\ufeff" + line("A cat sat.", "A sat cat.") + "\n",
    "data/sub/c.jsonl": line("She slept.", "Rocks slept.", UID="animate", linguistics_term="s-selection"),
    "data/._b.jsonl": "\0",
    "README.md": "not data",
}


def write(folder, kind):
    if kind == "folder":
        for name, text in FILES.items():
            if "._" not in name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
        return folder
    path = folder / f"pairs.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in FILES.items():
                archive.writestr(name, text)
        return path
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.xz", "tar.gz"])
def test_paradigms_are_read(tmp_path, kind):
    a, agreement, animate = read_paradigms(write(tmp_path, kind))
    assert a[:3] == ("a", "", [("A cat sat.", "A sat cat.")])
    assert agreement[:3] == ("agreement", "subject_verb_agreement", [("It runs.", "It run.")] * 2)
    assert animate[:2] == ("animate", "argument_structure")
    assert len({p.sha256 for p in (a, agreement, animate)}) == 3


def test_a_single_file(tmp_path):
    (tmp_path / "mine.jsonl").write_text(line("a b", "b a"))
    (paradigm,) = read_paradigms(tmp_path / "mine.jsonl")
    assert paradigm.name == "mine" and paradigm.pairs == [("a b", "b a")]


def test_a_line_ends_nowhere_but_at_its_end(tmp_path):
    pair = '{"sentence_good": "a\u2028b\x85", "sentence_bad": "b a"}\r\n'
    (tmp_path / "mine.jsonl").write_bytes(pair.encode() * 2)
    (paradigm,) = read_paradigms(tmp_path / "mine.jsonl")
    assert paradigm.pairs == [("a\u2028b\x85", "b a")] * 2


@pytest.mark.parametrize("text,message", [
    (line("a", "b") + '{"sentence_good": "a"}', r"x.jsonl, line 2: expected .* \(no 'sentence_bad'\)"),
    ("nonsense", r"x.jsonl, line 1: expected an object with sentence_good and sentence_bad"),
    ("[1]", r"x.jsonl, line 1: "),
    (line("a", " "), r"x.jsonl, line 1: .* \(a sentence is empty or not text\)"),
    (line("a", 3), r"x.jsonl, line 1: "),
    ("\n", r"x.jsonl is empty"),
    (line("a", "b", UID="../../out"), r"x.jsonl, line 1: the UID '../../out' cannot be the name of a file: rename it"),
    (line("a", "b") + line("a", "b", UID="c" * 300), r"x.jsonl, line 2: the UID 'c+' cannot"),
    (line("a", "b", UID=""), r"x.jsonl, line 1: the UID '' cannot"),
])  # fmt: skip
def test_what_is_wrong_with_a_line(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_paradigms(tmp_path)


def test_what_is_wrong_with_a_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder"):
        read_paradigms(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"holds no \.jsonl file"):
        read_paradigms(tmp_path)
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="is neither"):
        read_paradigms(tmp_path / "text")
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(line("a", "b", UID="same"))
    with pytest.raises(ValueError, match=r"the paradigm same twice, the second time in two\.jsonl"):
        read_paradigms(tmp_path)
