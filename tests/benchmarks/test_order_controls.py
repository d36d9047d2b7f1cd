"""The controls of sentence order find what tells the order, and nothing where nothing does."""

import json

import order_controls
import pytest
from conftest import make_dictionary, random_documents, write_split

RULES = ("chance", *order_controls.RULES)


def accuracies(folder, documents_of, tmp_path):
    """Run the program on these documents and return the accuracy of each rule."""
    folder.mkdir()
    make_dictionary().save(str(folder / "dict.txt"))
    for seed, split in enumerate(("train", "valid")):
        write_split(folder, split, documents_of(seed))
    out = tmp_path / "controls.jsonl"
    order_controls.main([str(folder), "--tokens-per-sample", "32", "--pairs", "900", "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found = {line["rule"]: line for line in lines if line["data"] == folder.name}
    assert tuple(found) == RULES and all(line["training_pairs"] <= 900 for line in found.values())
    return {rule: line["accuracy"] for rule, line in found.items()}


def marked(seed):
    """Documents in which no word tells the order, but the first piece of a sentence does: 4 before 5."""
    return [[[4, 5, *middle, 9], [5, 4, *middle, 9]] for (middle, *_) in random_documents(400, seed)]


def test_what_tells_the_order_is_found(tmp_path):
    by_chance = accuracies(tmp_path / "random", lambda seed: random_documents(200, seed), tmp_path)
    assert all(40 < value < 60 for value in by_chance.values()), by_chance
    told = accuracies(tmp_path / "marked", marked, tmp_path)
    assert told["beginnings"] == told["words and beginnings"] == 100 and told["words"] < 60
    lines = (tmp_path / "controls.jsonl").read_text()
    assert lines.count('"data": "random"') == lines.count('"data": "marked"') == len(RULES)


def test_a_folder_that_is_no_data_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="error: .*dict.txt"):
        order_controls.main([str(tmp_path), "--out", str(tmp_path / "x")])
