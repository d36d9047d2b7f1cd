"""One version: of the package, the checkpoints that it writes and the cards of what is made of them."""

import json
import re
from pathlib import Path

from processes import ROOT
from training import load

from fairseq_lambda import __version__
from fairseq_lambda.commands.export import export


def test_checkpoint_and_card_say_which_version_trained(toy_run, tmp_path):
    assert load(toy_run)["extra_state"]["version"] == __version__
    export(toy_run, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "again")  # of what the first one says
    for name in ("model", "again"):
        assert json.loads((tmp_path / name / "config.json").read_text())["version"] == __version__
        assert f"| trained with | fairseq_lambda {__version__} |" in (tmp_path / name / "README.md").read_text()


def test_a_checkpoint_from_before_versions_were_stored(tmp_path):
    export(ROOT / "tests/checkpointing/version_0_1_0/exported", tmp_path / "old")
    assert "| trained with | fairseq_lambda of unknown version |" in (tmp_path / "old/README.md").read_text()


def test_the_version_is_written_once():
    sources = [ROOT / "setup.py", *(ROOT / "fairseq_lambda").rglob("*.py")]
    said = [path for path in sources if re.search(rf'"{re.escape(__version__)}"', path.read_text())]
    assert said == [Path(ROOT / "fairseq_lambda/version.py")]
