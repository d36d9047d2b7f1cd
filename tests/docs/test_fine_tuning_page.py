"""The commands and the Python of docs/fine-tuning.md run as they stand."""

import pytest
from fine_tunings import sentences, topics, write_tsv
from pages import Page, bash
from test_hub_interface import trained  # noqa: F401  a fixture

PAGE = Page("docs/fine-tuning.md")
SHORT = {"finetune": "--max-epoch 1 --batch-size 16 --cpu"}


@pytest.mark.slow
def test_everything_on_the_page_runs(trained, tmp_path):  # noqa: F811
    (tmp_path / "lambda_bert_mini-enwiki").symlink_to(trained)
    for folder in ("topics", "cola"):
        (tmp_path / folder).mkdir()
    for name, seed in (("train", 0), ("test", 1)):
        write_tsv(tmp_path / f"topics/{name}.tsv", topics(60, seed))
    for name, seed in (("train", 0), ("dev", 1)):
        rows = [("gj04", label != "a", "", text) for label, text in topics(60, seed)]
        write_tsv(tmp_path / f"cola/{name}.tsv", rows[1:], rows[0])
    (tmp_path / "new.txt").write_text("the river\n\nthe town\n")
    tagged = "\n\n".join("\n".join(f"{w} {t}" for w, t in zip(*s, strict=True)) for s in sentences(40))
    (tmp_path / "tags.conll").write_text(tagged + "\n")

    commands = PAGE.commands()
    assert sum(command.count("lambda-bert") for command in commands) == 7
    for command in commands:
        bash(command, tmp_path, SHORT)
    assert len((tmp_path / "labels.tsv").read_text().splitlines()) == 1 + 3
    assert "mean (deviation)" not in (tmp_path / "my-topics/README.md").read_text()

    scope = PAGE.python(tmp_path)
    assert len(scope["tagger"].tag("They won.")) == 3
