"""``lambda-bert blimp``: accuracies as counted by hand, resumed where it stopped, one line for what is wrong."""

import json

import pytest
from pages import Page, lines_of
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.commands import blimp
from fairseq_lambda.models import LambdaBertModel

PARADIGMS = {
    "order": ("island_effects", [("the river runs north.", "river the runs north."), ("a town.", "town a.")]),
    "same": ("island_effects", [("many bridges", "many bridges")]),
    "words": ("s-selection", [("its people built a town", "its town built people a")] * 3),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blimp")
    for name, (term, pairs) in PARADIGMS.items():
        lines = [
            json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": name, "linguistics_term": term})
            for good, bad in pairs
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def run(*arguments):
    blimp.main([str(argument) for argument in arguments])


def test_accuracies_are_of_the_hubs_scores(trained, data, tmp_path, capsys):  # noqa: F811
    run(trained, data, "--dest", tmp_path / "out", "--precision", "float32")
    out = capsys.readouterr()
    bert = LambdaBertModel.from_pretrained(trained)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    for name, (_, pairs) in PARADIGMS.items():
        made = json.loads((tmp_path / f"out/paradigms/{name}.json").read_text())
        for method in ("original", "word_l2r"):
            expected = [bert.score(pair, method) for pair in pairs]
            accuracy = 100 * sum(good > bad for good, bad in expected) / len(pairs)
            assert scores["paradigms"][name][method] == made["accuracy"][method] == accuracy
            assert made["ties"][method] == (name == "same")
            assert sum(made["scores"][method], []) == pytest.approx(sum(expected, []), abs=1e-3)
    one, two, three = (scores["paradigms"][name]["original"] for name in PARADIGMS)
    assert two == 0 and scores["overall"]["original"] == pytest.approx((one + two + three) / 3)
    phenomena = {name: row["original"] for name, row in scores["phenomena"].items()}
    assert phenomena == pytest.approx({"argument_structure": three, "island_effects": (one + two) / 2})
    assert f"| **all 3** | {scores['overall']['original']:.1f} |" in out.out and "| same | 0.0 | 0.0 |" in out.out
    assert len(out.err.splitlines()) == 3 and "[3/3] words: " in out.err and " pairs/s, 0.0 minutes left" in out.err


def test_it_resumes(trained, data, tmp_path, capsys, monkeypatch):  # noqa: F811
    score, scored = blimp.score_paradigm, []

    def stopping(hub, scorer, pairs):
        if scored[-1:] == ["two"]:
            raise KeyboardInterrupt
        scored.append({1: "one", 2: "two"}[len(scored) + 1])
        return score(hub, scorer, pairs)

    monkeypatch.setattr(blimp, "score_paradigm", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(trained, data, "--dest", tmp_path)
    assert sorted(p.name for p in (tmp_path / "paradigms").iterdir()) == ["order.json", "same.json"]
    monkeypatch.setattr(blimp, "score_paradigm", score)
    before = (tmp_path / "paradigms/order.json").read_bytes()
    capsys.readouterr()
    run(trained, data, "--dest", tmp_path)
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith("2 of 3 paradigms are already in") and len(err) == 2 and "[3/3] words" in err[1]
    assert (tmp_path / "paradigms/order.json").read_bytes() == before
    run(trained, data, "--dest", tmp_path)
    assert capsys.readouterr().err.startswith("3 of 3")


def test_results_of_other_settings_are_not_mixed(trained, data, tmp_path):  # noqa: F811
    run(trained, data, "--dest", tmp_path, "--limit", 1, "--paradigms", "words")
    with pytest.raises(ValueError, match="words.json was made with limit 1, now None: remove it, or choose another"):
        run(trained, data, "--dest", tmp_path)
    (tmp_path / "paradigms/words.json").write_text("{")
    with pytest.raises(ValueError, match="words.json is not a result of lambda-bert blimp"):
        run(trained, data, "--dest", tmp_path)


@pytest.mark.parametrize("flags,message", [
    (["--methods", "l2r"], "--methods l2r: choose from original,word_l2r"),
    (["--limit", "0"], "--limit 0: must be at least 1"),
    (["--paradigms", "order,none"], "--paradigms none: not in the data; it has 3"),
])  # fmt: skip
def test_wrong_flags_are_one_line(trained, data, flags, message, capsys):  # noqa: F811
    with pytest.raises((SystemExit, ValueError)) as error:
        run(trained, data, *flags)
    assert message in f"{error.value} {capsys.readouterr().err}"


def test_the_results_have_the_models_name(trained, data, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    run(trained, data, "--methods", "word_l2r", "--paradigms", "order")
    assert (tmp_path / "outputs/blimp" / trained.name / "scores.json").is_file()
    assert "| paradigms | word_l2r |" in capsys.readouterr().out


def test_what_docs_scoring_md_shows_runs(trained, data, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "lambda_bert_mini-enwiki").symlink_to(trained)
    (tmp_path / "blimp").mkdir()
    (tmp_path / "blimp/data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    page = Page("docs/scoring.md")
    scope = page.python(tmp_path)
    assert scope["vectors"].shape == (3, 4 * 8) and len(scope["features"]) == len(scope["scores"]) == 3
    assert len(scope["fillings"]) == 2 and len(scope["fillings"][1]) == 2
    assert all(value < 0 for _, value in scope["pieces"])

    commands = [words for block in page.commands() for words in lines_of(block)]
    assert len(commands) == 2
    for script, *arguments in commands:
        assert script == "scripts/blimp.sh"  # whose --help test_end_to_end.py runs
        run(*arguments)
    for name in ("lambda_bert_mini-enwiki", "look"):
        assert (tmp_path / "outputs/blimp" / name / "scores.json").is_file()
