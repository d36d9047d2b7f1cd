"""An existing prepared folder: when it is left alone, and when it is rebuilt."""

import json
import os
import shutil

from preparing import only_error, prepare

from fairseq_lambda.corpora import prepare as command
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.prepared_folder import REPORT, is_up_to_date
from fairseq_lambda.files import sha256


def test_a_failure_leaves_the_earlier_result_as_it_was(corpus, prepared, tmp_path, capsys, monkeypatch):
    dest = tmp_path / "out"
    shutil.copytree(prepared, dest)
    before = {name: sha256(dest / name) for name in os.listdir(dest)}

    def fail(*_):
        raise PrepareError("broken on purpose")

    monkeypatch.setattr(command, "binarise", fail)
    assert prepare(corpus, "--dest", dest, "--force") == 1
    assert only_error(capsys) == "error: broken on purpose"
    assert {name: sha256(dest / name) for name in os.listdir(dest)} == before
    assert sorted(os.listdir(tmp_path)) == ["corpus", "out"]


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
