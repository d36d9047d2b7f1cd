"""The learning rate of a fine-tuning reaches 0 at its end, and not before."""

import pytest
from fine_tunings import run, sentences, topic, topics, write_tsv  # noqa: F401  a fixture
from test_hub_interface import trained  # noqa: F401  a fixture
from training import load


def write_words(path, count):
    texts = ("\n".join(f"{w} {t}" for w, t in zip(*s, strict=True)) for s in sentences(count))
    path.write_text("\n\n".join(texts) + "\n")
    return path


@pytest.mark.parametrize("flags", [
    ["--max-length", 10],  # of words: more samples than texts
    ["--max-sentences", 5], ["--max-sentences=5", "--update-freq", 3], ["--max-tokens", 40], ["--max-update", 3],
])  # fmt: skip
def test_the_decay_ends_with_the_training(trained, tmp_path, monkeypatch, flags):  # noqa: F811
    words = "--max-length" in flags
    train = write_words(tmp_path / "a.conll", 40) if words else write_tsv(tmp_path / "a.tsv", topics(40))
    run(monkeypatch, trained, tmp_path / "run", "--train", train, "--max-epoch", 2, "--valid", train, *flags)
    state = load(tmp_path / "run")
    total = state["cfg"]["lr_scheduler"]["total_num_update"]
    assert state["optimizer_history"][-1]["num_updates"] == total
    assert total > 2 * 40 / 8 or "--update-freq" in flags or total == 3  # texts alone would give ten
