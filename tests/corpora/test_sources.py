"""Sources of a corpus: WikiText in a local folder."""

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
    assert found.provide(tmp_path)["valid"] == [folder / "wiki.valid.raw"]
    assert found.identity["kind"] == "folder"


def test_one_wikitext_is_not_taken_for_the_other(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split in SPLITS:
        (folder / f"wiki.{split}.raw").write_text(split)
    for place in (tmp_path, folder):
        with pytest.raises(PrepareError, match="WIKITEXT_DIR has no wikitext-103"):
            sources.find_source("wikitext-103", "auto", tmp_path, environ={"WIKITEXT_DIR": str(place)})
