"""The commands of docs/transformers.md, docs/inspection.md and docs/long-texts.md, on small models."""

import pytest
from pages import SHORT, Page, bash
from processes import ROOT
from test_hub_interface import trained  # noqa: F401  a fixture
from training import load

from fairseq_lambda.models import LambdaBertModel

pytestmark = pytest.mark.slow
NAME = "lambda_bert_mini-enwiki"  # a local folder of this name is used in place of the included model


def test_to_transformers_and_back(trained, prepared, tmp_path):  # noqa: F811
    pytest.importorskip("transformers", minversion="4.57")
    (tmp_path / NAME).symlink_to(trained)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data-bin").mkdir()
    (tmp_path / "data-bin/wikitext-2").symlink_to(prepared)
    there, example, back = Page("docs/transformers.md").commands()
    bash(there, tmp_path)
    bash(back, tmp_path)
    text = "a <mask> of"
    models = (LambdaBertModel.from_pretrained(folder) for folder in (trained, tmp_path / "my-bert-fairseq"))
    one, two = (model.fill_mask(text) for model in models)
    assert [p.token for p in one] == [p.token for p in two]
    bash(f"{example.rstrip()} --size tiny --cpu --updates 2\n", tmp_path)
    assert (tmp_path / "my-new-bert/model.safetensors").is_file()


def test_inspection(trained, tmp_path):  # noqa: F811
    (tmp_path / NAME).symlink_to(trained)
    (command,) = Page("docs/inspection.md").commands()
    bash(command, tmp_path)
    assert (tmp_path / "pictures/index.html").is_file()


def test_long_texts(prepared, tmp_path):
    (tmp_path / "data-bin").mkdir()
    (tmp_path / "data-bin/wikitext-103").symlink_to(prepared)
    bash("lambda-bert train mini data-bin/wikitext-103 --save-dir checkpoints/short", tmp_path, SHORT)
    for command in Page("docs/long-texts.md").commands():
        bash(command, tmp_path)
    for name in ("long", "longer"):
        assert load(tmp_path / f"checkpoints/{name}")["optimizer_history"][-1]["num_updates"] == 4
