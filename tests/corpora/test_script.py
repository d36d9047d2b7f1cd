"""scripts/preprocess_wikitext.sh, and a corpus downloaded from a server."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from preparing import DOCUMENTS, moses_text, prepare

from fairseq_lambda.corpora import sources
from fairseq_lambda.corpora.download import Archive
from fairseq_lambda.files import sha256

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "preprocess_wikitext.sh"


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
