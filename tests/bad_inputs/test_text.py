"""Bad text: what is refused with a message and leaves nothing, and what is accepted."""

import io
import os
import random
import shutil
import tarfile

import pytest

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora.prepared_folder import OUTPUTS, REPORT


def plain(documents=12, seed=0):
    draw = random.Random(seed)
    word = lambda: "".join(draw.choices(["ba", "ke", "li", "mo", "nu"], k=2))  # noqa: E731
    sentence = lambda: " ".join(word() for _ in range(6)).capitalize() + "."  # noqa: E731
    return "\n\n".join(f"{sentence()} {sentence()}\n{sentence()}" for _ in range(documents)) + "\n"


def edit(change, split="train"):
    """Return a function that rewrites the bytes of a split."""

    def spoil(corpus):
        path = corpus / f"{split}.txt"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def archive(text):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        member = tarfile.TarInfo("train.txt")
        member.size = len(text)
        packed.addfile(member, io.BytesIO(text))
    return file.getvalue()


def replace(split, put=lambda path: None):
    """Return a function that removes a split and puts something in its place, or nothing."""

    def spoil(corpus):
        path = corpus / f"{split}.txt"
        path.unlink()
        put(path)

    return spoil


REFUSED = {
    "Latin-1": (edit(lambda t: t + "Café\n".encode("latin-1")), "iconv -f WINDOWS-1252 -t UTF-8"),
    "UTF-16": (edit(lambda t: t.decode().encode("utf-16")), "iconv -f UTF-16 -t UTF-8"),
    "UTF-16 without its mark": (edit(lambda t: t.decode().encode("utf-16-le")), "iconv -f UTF-16LE -t UTF-8"),
    "UTF-16, big-endian": (
        edit(lambda t: t.decode().encode("utf-16-be")),
        "iconv -f UTF-16BE -t UTF-8",
    ),
    "NUL bytes": (edit(lambda t: t + b"Ba\0ke li mo. \0\n"), "line 36: contains NUL bytes"),
    "an archive": (edit(archive), "contains NUL bytes: UTF-16 (`iconv -f UTF-16LE"),
    "half a character at the end": (edit(lambda t: t + "é".encode()[:1]), "not UTF-8"),
    "surrogates": (edit(lambda t: t + b"\xed\xa0\x80\n"), "not UTF-8"),
    "random bytes": (edit(lambda t: random.Random(0).randbytes(5000)), "not UTF-8"),
    "empty train": (edit(lambda t: b""), "train.txt is empty"),
    "empty valid": (edit(lambda t: b"", "valid"), "valid.txt is empty"),
    "white space only": (edit(lambda t: b" \n\t\n \n", "test"), "contains no sentence"),
    "no train": (replace("train"), "train.txt is missing"),
    "no valid": (replace("valid"), "valid.txt is missing"),
    "a folder for a file": (replace("valid", lambda path: path.mkdir()), "valid.txt"),
    "a link to nowhere": (replace("valid", lambda path: path.symlink_to("nowhere")), "valid.txt"),
    "no blank lines": (edit(lambda t: t.replace(b"\n\n", b"\n")), "single document"),
    "one word": (edit(lambda t: b"Ba.\n"), "--vocab-size"),
    "valid in another script": (edit(lambda t: "漢字。\n\n仮名。\n".encode(), "valid"), "is unknown"),
    "valid is train": (lambda c: shutil.copy(c / "train.txt", c / "valid.txt"), "is the train"),
    "literal special symbols": (edit(lambda t: t + b"\n<s> </s> <pad> <mask> <unk> ba.\n"), "is unknown"),
}
ACCEPTED = {
    "blank lines everywhere": edit(lambda t: b"\n\n\n" + t.replace(b"\n", b"\n\n\n") + b"\n\n"),
    "line ends of DOS": edit(lambda t: t.replace(b"\n", b"\r\n")),
    "a byte order mark": edit(lambda t: b"\xef\xbb\xbf" + t),
    "no line end at the end": edit(lambda t: t.rstrip()),
    "lines of one word": edit(lambda t: t + b"\n" + b"Ba.\n\nKe.\n\n" * 50),
    "a line of a million words": edit(lambda t: t + b"\n" + b"ba ke " * 500_000 + b".\n"),
    "a line like a title": edit(lambda t: t + b"\n= Early life =\n"),
    "a line of 50,000 Chinese sentences": edit(lambda t: t + b"\n" + "漢字。".encode() * 50_000 + b"\n"),
    "non-joiners": edit(lambda t: t + "\nBa\u200cke li\u200cmo.\n".encode()),
    "separators of Unicode": edit(lambda t: t + "\nBa\u2028ke\u2029li\u0085mo\u00a0nu.\n".encode()),
}


@pytest.mark.parametrize("row", [*REFUSED, *ACCEPTED])
def test_text(row, tmp_path, capsys):
    spoil, message = REFUSED.get(row) or (ACCEPTED[row], None)
    corpus, dest = tmp_path / "a corpus, ä 漢", tmp_path / "out put ü" / "data"
    corpus.mkdir()
    for seed, split in enumerate(("train", "valid", "test")):
        (corpus / f"{split}.txt").write_text(plain(12 if split == "train" else 3, seed), encoding="utf-8")
    spoil(corpus)
    before = {p.name: p.read_bytes() for p in corpus.iterdir() if p.is_file()}
    code = command.main([str(corpus), "--dest", str(dest), "--vocab-size", "48", "--workers", "1"])
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    if message:
        assert code == 1 and len(errors) == 1 and message in errors[0], err
        assert not dest.parent.exists() or not os.listdir(dest.parent)
    else:
        assert (code, errors) == (0, []) and "ready" in out
        assert sorted(os.listdir(dest)) == sorted([*OUTPUTS, REPORT])
    assert {p.name: p.read_bytes() for p in corpus.iterdir() if p.is_file()} == before
