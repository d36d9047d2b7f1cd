"""The questions of common knowledge: there are a hundred, counting is right, and they are looked up in the text."""

import json
from collections import Counter

import facts
import pytest
from conftest import write_split
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.models import LambdaBertModel

TOY = """
rivers:
  - [the river runs <mask>., north]
  - [its people built many <mask>., bridges]
towns:
  - [a small town and its <mask>., people]
"""


def test_there_are_a_hundred_each_with_one_mask_and_another_text():
    read = facts.read_facts(facts.FACTS)
    assert Counter(fact.category for fact in read) == dict.fromkeys(
        ("capitals", "months", "opposites", "currencies", "family"), 20
    )
    assert len({fact.text for fact in read}) == 100
    assert all(fact.text.endswith(".") and fact.answer.isalpha() for fact in read)
    assert all(fact.answer.lower() not in fact.text.lower().rstrip(".").split() for fact in read)


def test_accuracy_is_counted_by_category():
    asked = [facts.Fact("a", "x <mask>", "one"), facts.Fact("a", "y <mask>", "two"), facts.Fact("b", "z <mask>", "six")]
    predictions = [["one", "two", "t", "u", "v"], ["x", "y", "##two", "z", "two"], ["##six", "a", "b", "c", "d"]]
    accuracy = facts.result(asked, predictions)["accuracy"]
    assert accuracy == {
        "a": {"at 1": 50.0, "at 5": 100.0},
        "b": {"at 1": 0.0, "at 5": 0.0},
        "all": {"at 1": 33.3, "at 5": 66.7},
    }


@pytest.fixture
def data(trained, tmp_path):  # noqa: F811
    """A data folder with the toy model's vocabulary; its text contains one of the sentences."""
    bert = LambdaBertModel.from_pretrained(trained)
    dictionary = bert.task.source_dictionary
    text = [[bert.encode(line)[1:-1].tolist() for line in ("in spring the river runs north, and", "many bridges.")]]
    write_split(tmp_path, "train", text)
    ids = Counter(i for document in text for line in document for i in line)
    rows = [f"{symbol} {ids[index]}\n" for index, symbol in enumerate(dictionary.symbols)]
    (tmp_path / "dict.txt").write_text("".join(rows[dictionary.nspecial : -1]))
    (tmp_path / "toy.yaml").write_text(TOY)
    return tmp_path


def test_models_and_the_unigram_distribution_are_asked(trained, data, capsys):  # noqa: F811
    for _ in range(2):  # the second time, the lines are replaced
        facts.main([str(trained), "--data", str(data), "--facts", str(data / "toy.yaml"), "--out", str(data / "out")])
    unigram, model = map(json.loads, (data / "out/facts.jsonl").read_text().splitlines())
    assert unigram["model"] == f"unigram distribution of {data.name}" and model["model"] == trained.name
    counts = {line.split()[0]: int(line.split()[1]) for line in (data / "dict.txt").read_text().splitlines()}
    best = sorted(counts.values(), reverse=True)[:5]
    for line in (unigram, model):
        assert [p[:2] for p in line["predictions"]] == [
            ["the river runs <mask>.", "north"],
            ["its people built many <mask>.", "bridges"],
            ["a small town and its <mask>.", "people"],
        ]
        assert line["setting"]["torch"] and set(line["accuracy"]) == {"rivers", "towns", "all"}
    shown = unigram["predictions"][0][2]
    assert [counts[p[2:] if p.startswith("##") else f"\u2581{p}"] for p in shown] == best
    bert = LambdaBertModel.from_pretrained(trained)
    for text, _, found in model["predictions"]:
        assert [p.removeprefix("##") for p in found] == [p.token for p in bert.fill_mask(text)]
        joined = [p.startswith("##") for p in found]
        assert joined == [p.text != text.replace("<mask>", p.token) for p in bert.fill_mask(text)]
    assert model["in several pieces"] == sorted(a for a in ("north", "bridges", "people") if f"\u2581{a}" not in counts)
    out = capsys.readouterr().out
    assert f"word for word in {data.name}: the river runs north.\n" in out and f"| {trained.name} | " in out


def test_what_is_wrong_is_one_line(trained, data):  # noqa: F811
    arguments = [str(trained), "--data", str(data), "--out", str(data), "--facts", str(data / "toy.yaml")]
    (data / "toy.yaml").write_text("a:\n  - [no mask., x]\n")
    with pytest.raises(SystemExit, match=r"^error: \S+toy.yaml: 'no mask.' needs one <mask>$"):
        facts.main(arguments)
    (data / "toy.yaml").write_text(TOY)
    with pytest.raises(SystemExit, match=f"^error: several models are called {trained.name}, .*: rename one$"):
        facts.main(["elsewhere/" + trained.name, *arguments])
    (data / "dict.txt").write_text("\u2581other 3\n")
    with pytest.raises(SystemExit, match="^error: .* was trained with another vocabulary than --data's: [^\n]*$"):
        facts.main(arguments)
