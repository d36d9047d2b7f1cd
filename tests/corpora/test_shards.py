"""Shards of a corpus, prepared separately with one vocabulary: together they are the whole."""

import json

import numpy as np
import pytest
from fairseq.data.indexed_dataset import MMapIndexedDataset
from preparing import as_text, only_error, plain_documents, prepare

from fairseq_lambda.commands import train as train_command
from fairseq_lambda.corpora.prepared_folder import REPORT
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPConfig, MaskedLMSOPTask

SUMS = ("documents", "paragraphs", "sentences", "tokens", "literal_unknowns", "encoder_unknowns")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The folders of the whole and of three shards; the vocabulary was learned on the first shard."""
    folder = tmp_path_factory.mktemp("shards")
    documents = plain_documents(300)
    for document in documents[250:280]:  # the last shard has characters that the first one lacks
        document[0] += " \u00e9t\u00e9 <unk>."
    for name, part in {"whole": documents, "0": documents[:120], "1": documents[120:200], "2": documents[200:]}.items():
        (folder / f"{name}.txt").write_text(as_text(part))
    assert prepare(folder / "0.txt", "--dest", folder / "part-0", "--valid-fraction", 0.1) == 0
    given = ["--vocabulary-from", folder / "part-0"]
    for name, fraction in {"1": 0.1, "2": 0.1, "whole": 0.1}.items():
        dest = folder / (f"part-{name}" if name != "whole" else name)
        assert prepare(folder / f"{name}.txt", "--dest", dest, "--valid-fraction", fraction, *given) == 0
    return folder


def test_three_shards_have_the_sentences_documents_and_unknown_rate_of_the_whole(shards):
    reports = {p.name: json.loads((p / REPORT).read_text()) for p in shards.iterdir() if p.is_dir()}
    whole = reports.pop("whole")
    assert whole["splits"]["train"]["encoder_unknowns"] > 0 and whole["splits"]["train"]["literal_unknowns"] > 0
    for split in ("train", "valid"):
        for key in SUMS:
            assert sum(r["splits"][split][key] for r in reports.values()) == whole["splits"][split][key]
        rates = [r["splits"][split]["encoder_unknown_rate"] * r["splits"][split]["tokens"] for r in reports.values()]
        assert whole["splits"][split]["encoder_unknown_rate"] == pytest.approx(
            sum(rates) / whole["splits"][split]["tokens"], abs=2e-6
        )
    # and every token of it
    tokens = lambda name: [line.tolist() for line in MMapIndexedDataset(str(shards / name / "train"))]  # noqa: E731
    parts = [tokens(f"part-{i}") for i in range(3)]
    assert tokens("whole") == [*parts[0], [2], *parts[1], [2], *parts[2]]


def test_they_have_one_vocabulary_and_train_as_folders_joined_by_colons(shards):
    folders = [shards / f"part-{i}" for i in range(3)]
    assert len({(folder / "sentencepiece.model").read_bytes() for folder in folders}) == 1
    joined = ":".join(map(str, folders))
    cfg = MaskedLMSOPConfig(data=joined, tokens_per_sample=32)
    cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple = 1, "train", 1
    task = MaskedLMSOPTask.setup_task(cfg)
    sentences = []
    for epoch in range(1, 5):
        task.load_dataset("train", epoch=epoch)
        sentences.append(task.dataset("train").corpus.num_sentences)
    reports = [json.loads((folder / REPORT).read_text()) for folder in folders]
    assert sentences == [r["splits"]["train"]["sentences"] for r in (*reports, reports[0])]


def test_the_train_command_takes_them_and_names_the_one_that_is_missing(shards, capsys):
    joined = f"{shards / 'part-0'}:{shards / 'part-1'}"
    train_command.main(["tiny", joined, "--dry-run"])
    command = capsys.readouterr().out
    assert joined in command and "checkpoints/lambda_bert_tiny-part-0+1" in command
    with pytest.raises(SystemExit):
        train_command.main(["tiny", f"{joined}:nowhere", "--dry-run"])
    assert "error: nowhere is not a folder" in capsys.readouterr().err


def test_counts_in_dict_txt_are_of_the_shard(shards):
    lines = [(shards / f"part-{i}" / "dict.txt").read_text().splitlines() for i in range(2)]
    symbols, counts = zip(*(zip(*(line.rsplit(" ", 1) for line in part), strict=True) for part in lines), strict=True)
    assert symbols[0] == symbols[1] and counts[0] != counts[1]
    report = json.loads((shards / "part-1" / REPORT).read_text())["splits"]["train"]
    unknown = report["literal_unknowns"] + report["encoder_unknowns"]
    assert np.sum([int(n) for n in counts[1]]) == report["tokens"] - unknown


@pytest.mark.parametrize(
    ("origin", "more", "code", "reason"),
    [
        ("nowhere", [], 1, "--vocabulary-from nowhere: not a folder with sentencepiece.model and dict.txt"),
        ("part-0", ["--vocab-size", 100], 2, "--vocab-size is for a new vocabulary"),
        ("part-0", ["--no-byte-fallback"], 2, "--byte-fallback is for a new vocabulary"),
        ("damaged", [], 1, "its sentencepiece.model: it is not a SentencePiece model"),
        ("mixed", [], 1, "its dictionary lacks"),
        ("part-0", [], 1, "of the train split is unknown to the vocabulary, more than 5.0%"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused(shards, tmp_path, monkeypatch, capsys, origin, more, code, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\u6f22\u5b57\u3002\n\n" * 9)
    dictionary = (shards / "part-0" / "dict.txt").read_text()
    for name, model, symbols in (
        ("part-0", (shards / "part-0" / "sentencepiece.model").read_bytes(), dictionary),
        ("damaged", b"not a model", dictionary),
        ("mixed", (shards / "part-0" / "sentencepiece.model").read_bytes(), "a 1\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sentencepiece.model").write_bytes(model)
        (tmp_path / name / "dict.txt").write_text(symbols)
    try:
        got = prepare("text.txt", "--valid-fraction", 0, "--vocabulary-from", origin, *more)
    except SystemExit as exit_:
        got = exit_.code
    assert got == code and reason in only_error(capsys)
