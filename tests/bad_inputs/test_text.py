"""Bad text: for each, the exit code, the message and the state of the output folder that the table states."""

import os
import random

import pytest

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora.prepared_folder import OUTPUTS, REPORT

MADE, ABSENT = "made", "absent"


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


def remove(split):
    return lambda corpus: (corpus / f"{split}.txt").unlink()


def folder_instead(corpus):
    (corpus / "valid.txt").unlink()
    (corpus / "valid.txt").mkdir()


def dangling_link(corpus):
    (corpus / "valid.txt").unlink()
    (corpus / "valid.txt").symlink_to("nowhere")


TABLE = {
    "Latin-1": (edit(lambda t: t + "Café\n".encode("latin-1")), 1, "not UTF-8", ABSENT),
    "UTF-16": (edit(lambda t: t.decode().encode("utf-16")), 1, "not UTF-8", ABSENT),
    "half a character at the end": (edit(lambda t: t + "é".encode()[:1]), 1, "not UTF-8", ABSENT),
    "surrogates": (edit(lambda t: t + b"\xed\xa0\x80\n"), 1, "not UTF-8", ABSENT),
    "random bytes": (edit(lambda t: random.Random(0).randbytes(5000)), 1, "not UTF-8", ABSENT),
    "empty train": (edit(lambda t: b""), 1, "train.txt is empty", ABSENT),
    "empty valid": (edit(lambda t: b"", "valid"), 1, "valid.txt is empty", ABSENT),
    "white space only": (edit(lambda t: b" \n\t\n \n", "test"), 1, "holds no sentence", ABSENT),
    "no train": (remove("train"), 1, "train.txt is missing", ABSENT),
    "no test": (remove("test"), 1, "test.txt is missing", ABSENT),
    "a folder for a file": (folder_instead, 1, "valid.txt", ABSENT),
    "a link to nowhere": (dangling_link, 1, "valid.txt", ABSENT),
    "no blank lines": (edit(lambda t: t.replace(b"\n\n", b"\n")), 1, "single document", ABSENT),
    "one word": (edit(lambda t: b"Ba.\n"), 1, "--vocab-size", ABSENT),
    "valid in another script": (edit(lambda t: "漢字。\n\n仮名。\n".encode(), "valid"), 1, "is unknown", ABSENT),
    "valid is train": (
        lambda c: (c / "valid.txt").write_bytes((c / "train.txt").read_bytes()),
        1,
        "is the train",
        ABSENT,
    ),
    "blank lines everywhere": (edit(lambda t: b"\n\n\n" + t.replace(b"\n", b"\n\n\n") + b"\n\n"), 0, "ready", MADE),
    "line ends of DOS": (edit(lambda t: t.replace(b"\n", b"\r\n")), 0, "ready", MADE),
    "a byte order mark": (edit(lambda t: b"\xef\xbb\xbf" + t), 0, "ready", MADE),
    "no line end at the end": (edit(lambda t: t.rstrip()), 0, "ready", MADE),
    "NUL bytes": (edit(lambda t: t + b"Ba\0ke li mo. \0\n"), 0, "ready", MADE),
    "lines of one word": (edit(lambda t: t + b"\n" + b"Ba.\n\nKe.\n\n" * 50), 0, "ready", MADE),
    "a line of a million words": (edit(lambda t: t + b"\n" + b"ba ke " * 500_000 + b".\n"), 0, "ready", MADE),
    "literal special symbols": (edit(lambda t: t + b"\n<s> </s> <pad> <mask> <unk> ba.\n"), 1, "is unknown", ABSENT),
    "separators of Unicode": (edit(lambda t: t + "\nBa\u2028ke\u2029li\u0085mo\u00a0nu.\n".encode()), 0, "ready", MADE),
}


@pytest.mark.parametrize("row", TABLE)
def test_text(row, tmp_path, capsys):
    spoil, code, message, state = TABLE[row]
    corpus, dest = tmp_path / "a corpus, ä 漢", tmp_path / "out put ü" / "data"
    corpus.mkdir()
    for seed, split in enumerate(("train", "valid", "test")):
        (corpus / f"{split}.txt").write_text(plain(12 if split == "train" else 3, seed), encoding="utf-8")
    spoil(corpus)
    before = {p.name: p.read_bytes() for p in corpus.iterdir() if p.is_file()}
    got = command.main([str(corpus), "--dest", str(dest), "--vocab-size", "48", "--workers", "1"])
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert got == code, err
    assert message in (errors[0] if code else out) and len(errors) == code and "Traceback" not in err
    assert (sorted(os.listdir(dest)) if state == MADE else os.listdir(dest.parent) if dest.parent.exists() else []) == (
        sorted([*OUTPUTS, REPORT]) if state == MADE else []
    )
    assert {p.name: p.read_bytes() for p in corpus.iterdir() if p.is_file()} == before
