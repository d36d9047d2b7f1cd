"""Features of texts and words, runs that resume, and the report."""

import re

import numpy as np
import probing
import probing_features
import probing_findings
import probing_report
import probing_rows
import pytest
import torch
from inspection_cores import ids, make_core
from made_up_probing import corpus, data, few_words  # noqa: F401  fixtures
from probing_classifiers import packed, unpacked
from probing_examples import Group

from fairseq_lambda.inspection.reader import Reader
from fairseq_lambda.symbols import WORD_START


def test_features_are_those_of_each_text_and_are_made_once(tmp_path, monkeypatch):
    core = make_core(dim_u=2, lambda_layers="0,2").eval()
    reads = Reader(core, None)
    group = Group("x", [ids(3 + 5 * i % 17, seed=i) for i in range(12)])
    group.texts = [text.tolist() for text in group.texts]
    folder = probing_features.features(reads, group, tmp_path, lambda message: None)
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    assert {n: a.shape for n, a in arrays.items()} == {
        "lambda": (12, 2, 32), "values": (12, 2, 16), "mean": (12, 4, 16), "first": (12, 4, 16), "offsets": (12,)
    }  # fmt: skip
    with torch.no_grad():
        for row, text in enumerate(group.texts):
            out = core(torch.tensor([text]), return_states=True, return_lambdas=True)
            close = {"atol": 5e-3, "rtol": 2e-3}
            np.testing.assert_allclose(arrays["lambda"][row, 1], out.lambdas[2].flatten(), **close)
            np.testing.assert_allclose(arrays["mean"][row, 3], out.states[3][0].mean(0), **close)
            np.testing.assert_allclose(arrays["first"][row, 1], out.states[1][0, 0], **close)
            read = core.encoder.layers[2].mixing_layer_norm(out.states[2])
            values = core.encoder.layers[2].mixing.projections(read)[2][0].mean(0).flatten()
            np.testing.assert_allclose(arrays["values"][row, 1], values, **close)
    monkeypatch.setattr(probing_features, "_read", None)
    assert probing_features.features(reads, group, tmp_path, print) == folder
    fresh = probing_features.untrained(reads, seed=1)
    assert probing_features.key_of(fresh, group) != probing_features.key_of(reads, group)
    assert probing_features.key_of(probing_features.untrained(reads, 1), group) == probing_features.key_of(fresh, group)


def test_features_of_words_are_the_mean_of_their_pieces(tmp_path):
    core = make_core().eval()
    pieces = {"long": [0, 7, 8, 9, 2], "short": [0, 5, 2], "": [0, 2]}
    reads = Reader(core, None, lambda word: torch.tensor(pieces[word]))
    group = Group("x", [["short", "long"], ["long", "", "short"]], per_token=True)
    folder = probing_features.features(reads, group, tmp_path, lambda message: None)
    states, offsets = np.load(folder / "states.npy"), np.load(folder / "offsets.npy")
    assert (
        states.shape == (5, 4, 16) and offsets.tolist() == [0, 2] and np.load(folder / "values.npy").shape == (5, 3, 8)
    )
    with torch.no_grad():
        top = core(torch.tensor([[0, 5, 7, 8, 9, 2]]), return_states=True).states[3][0]
    np.testing.assert_allclose(states[0, 3], top[1], atol=5e-3, rtol=2e-3)
    np.testing.assert_allclose(states[1, 3], top[2:5].mean(0), atol=5e-3, rtol=2e-3)
    assert not states[3].any()


@pytest.fixture
def run_probing(data, few_words, tmp_path, monkeypatch):  # noqa: F811
    """A function that runs probing.py in this process, on cores that stand for a model and its baseline."""

    def encode(*texts):
        words = [[0, *(4 + sum(map(ord, word)) % 50 for word in text.split()), 2] for text in texts]
        return torch.tensor([*words[0], *(i for more in words[1:] for i in (2, *more[1:]))])

    def open_model(folder):
        core = make_core(**({"lambda_layers": "none", "attention_rotary": True} if "rotary" in str(folder) else {}))
        return Reader(core.eval(), None, encode, lambda index: f"{WORD_START}w{index}")

    class Here:
        def __init__(self, workers, context, start, arguments):
            start(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        map = staticmethod(map)

    def seeded(folder):
        torch.manual_seed(3)
        return open_model(folder)

    monkeypatch.setattr(probing, "open_model", seeded)
    monkeypatch.setattr("probing_classifiers.MANY_CLASSES", 0)  # no hidden layer: it takes most of the time
    monkeypatch.setattr(probing.concurrent.futures, "ProcessPoolExecutor", Here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")

    def run(*flags):
        folders = ["--data", data, "--probing", data, "--work", tmp_path / "work", "--out", tmp_path / "probing.jsonl"]
        sizes = ["--train", "100", "--heldout", "40"]
        probing.main(["model", "--baseline", "rotary", *map(str, folders), *sizes, *flags])
        return tmp_path / "probing.jsonl"

    return run


def test_probing_resumes_and_its_report_has_tables_and_pictures(run_probing, tmp_path, capsys):
    tasks = ("--tasks", "tense", "bigram_shift", "part_of_speech", "order")
    path = run_probing(*tasks, "--seeds", "1")
    header, lines = probing.read_lines(path)
    assert header["names"] == {"model": "model", "baseline": "rotary"} and len(header["weights"]) == 3
    assert {line["task"] for line in lines} == {*tasks[1:]}
    of = {(line["task"], line["model"], line["feature"], line["layer"]) for line in lines}
    assert len(of) == len(lines)
    wanted = {("tense", "model", "lambda-small", 2), ("order", "untrained", "lambda", 0)}
    wanted |= {("tense", "baseline", "mean", 3), ("tense", "text", "bag of words", 0)}
    assert wanted | {("part_of_speech", "model", "states", 3)} <= of
    assert not any(task == "part_of_speech" and feature == "lambda" for task, _, feature, _ in of)
    dims = {line["feature"]: line["dim"] for line in lines if line["task"] == "tense" and line["model"] == "model"}
    assert dims == {
        "lambda": 32,
        "lambda-small": 16,
        "lambda-values": 8,
        "values": 8,
        "mean": 16,
        "mean-wide": 32,
        "first": 16,
    }
    bag = next(x for x in lines if (x["task"], x["feature"]) == ("tense", "bag of words"))
    assert bag["test"] > 90  # the form of the verb shows it

    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-7]) + '{"task": "ten')  # as after a kill
    run_probing(*tasks, "--seeds", "1")
    assert {(x["task"], x["feature"]): x["test"] for x in probing.read_lines(path)[1]} == {
        (x["task"], x["feature"]): x["test"] for x in lines
    }
    with pytest.raises(SystemExit, match="contains probes of .*'train': 100}"):
        run_probing(*tasks, "--seeds", "1", "--train", "50")
    with pytest.raises(SystemExit, match="--tasks fly: choose from length, tense, "):
        run_probing("--tasks", "fly")

    capsys.readouterr()
    probing_report.main(["--lines", str(path)])
    out = capsys.readouterr().out
    assert out.count("\n| tense |") == 2 and "| tense: compression |" in out and "95 % interval" in out
    assert "| part_of_speech: compression, selectivity |" in out and "untrained values" in out
    assert re.search(r"bigram_shift, content lambda of layer 0: .* wanted at chance", out)
    assert {p.stem for p in (tmp_path / "probing").iterdir()} == {*tasks[1:]}


def test_probes_of_a_corpus_store_which_test_examples_were_right(run_probing, corpus):  # noqa: F811
    flags = ("--tasks", "word_content", "--seeds", "1", "--train", "300", "--corpus", str(corpus))
    header, lines = probing.read_lines(run_probing(*flags))
    assert header["corpus"] == "corpus" and {line["classes"] for line in lines} == {8}
    for line in lines:
        assert len(line["right"]) == 6 and line["examples"]["test"] == 24 and line["chance"] == 12.5
        assert line["test"] == round(100 * unpacked(line["right"], 24).mean(), 2) and "control" not in line
    with pytest.raises(SystemExit, match="contains probes of .*'corpus': 'corpus'"):
        run_probing(*flags[:-2])


def test_features_of_lambda_layers_are_placed_among_all_layers():
    lines = [{"feature": feature, "layer": 2} for feature in ("lambda", "values", "mean", "mean-wide", "bag of words")]
    placed = probing_rows.in_the_model(lines, [0, 1, 3])
    assert [x["layer"] for x in placed] == [3, 3, 2, 2, 2] and lines[0]["layer"] == 2


def test_without_data_the_flag_is_named(run_probing, monkeypatch):
    for name in ("TASKS_DIR", "PROBING_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="^error: --data names no folder"):
        probing.main(["model"])
    with pytest.raises(SystemExit, match=r"ud_ewt/train\.conllu"):
        probing.main(["model", "--data", "nowhere", "--probing", "nowhere"])


def line(task, model, feature, layer, test, dev=None, seed=1, **more):
    known = {"compression": 1.5, "majority": 50.0, "classes": 2, "examples": {"test": 1000}, "dim": 8}
    return {"task": task, "model": model, "feature": feature, "layer": layer, "seed": seed, "test": test,
            "dev": test if dev is None else dev} | known | more  # fmt: skip


def test_the_report_takes_the_layer_of_dev_and_says_what_follows():
    """Lines without ``right``, as in the results of November 2026, have no intervals, and nothing is called better."""
    lines = [
        line("depth", "model", "lambda", 0, 60.0, dev=70.0),
        line("depth", "model", "lambda", 0, 64.0, dev=70.0, seed=2),
        line("depth", "model", "lambda", 1, 90.0, dev=65.0), line("depth", "model", "mean", 0, 70.0),
        line("depth", "model", "lambda-small", 0, 55.0), line("depth", "model", "values", 0, 66.0),
        line("depth", "untrained", "lambda", 0, 60.0), line("depth", "untrained", "values", 0, 51.0),
        line("depth", "text", "length", 0, 63.0),
        line("bigram_shift", "model", "lambda", 0, 53.0), line("bigram_shift", "model", "mean", 3, 69.0),
        line("word_content", "model", "lambda", 0, 80.0, majority=1.0, classes=20),
    ]  # fmt: skip
    table = probing_report.accuracy_table(lines)
    assert "| 62.0 (60.0 to 64.0), layer 0 |" in table and "90" not in table
    answer = probing_findings.answer(lines)
    assert "states: -12.0 points, higher in 0 of 2 tasks" in answer and "better" not in answer
    assert "values: -4.0 points, higher in 0 of 1 tasks; untrained +9.0 points, higher in 1 of 1 tasks." in answer
    title = {task: probing_report.title(task, probing_rows.by_layer(lines, task)) for task in ("depth", "word_content")}
    assert title["depth"] == "depth: content lambdas reach 62.0 %, the mean of the states 70.0 %"
    assert title["word_content"].endswith("not finished")
    assert probing_findings.notes(lines)[0].startswith("depth: length alone does as well as content lambdas, -1.0")
    assert "20 points above chance (5.0 %)" in probing_findings.checks(lines)[0][0]  # a guess is above the majority
    assert [holds for _, holds in probing_findings.checks(lines)] == [True, True, False, True]
    order_known = [line("bigram_shift", "model", "lambda", 0, 58.0)]
    assert [holds for _, holds in probing_findings.checks(order_known)] == [False]


def test_swapped_bigrams_should_be_five_standard_errors_above_the_untrained_model():
    def checked(untrained):
        lines = [
            line("bigram_shift", "model", "mean", 3, 72.0),
            line("bigram_shift", "untrained", "mean", 1, untrained),
        ]
        return dict(zip(("20 points", "chance", "untrained"), probing_findings.checks(lines), strict=True))

    assert [holds for _, holds in checked(50.0).values()] == [True, True, True]
    assert [holds for _, holds in checked(62.0).values()] == [True, True, False]
    assert "4.5 standard errors, wanted 5 above the untrained model (62.0 %)" in checked(62.0)["untrained"][0]


def rights(task, feature, *rights_):
    return [
        line(task, "model", feature, 0, 100 * right.mean(), seed=seed, right=packed(right), edge=feature == "mean",
             converged=True)
        for seed, right in enumerate(rights_, 1)
    ]  # fmt: skip


def test_better_is_said_where_a_paired_bootstrap_excludes_zero():
    draw = np.random.default_rng(0)
    states = draw.random(1000) < 0.7
    noise, more = states ^ (draw.random(1000) < 0.1), states | (draw.random(1000) < 0.1)
    lines = [*rights("a", "lambda", more, states), *rights("a", "mean", states, states)]
    lines += [*rights("b", "lambda", noise | (draw.random(1000) < 0.03)), *rights("b", "mean", noise)]
    lines += [*rights("c", "lambda", draw.random(1000) < 0.7), *rights("c", "mean", draw.random(1000) < 0.7)]
    features = {task: probing_rows.by_layer(lines, task) for task in "abc"}
    gap = {t: probing_findings.gap(x["content lambda"], x["mean of states"]) for t, x in features.items()}
    assert gap["a"].points == pytest.approx(100 * (more.mean() - states.mean()) / 2)
    width = gap["a"].interval[1] - gap["a"].interval[0]
    assert width == pytest.approx(2 * 1.96 * 50 * (more & ~states).std() / 1000**0.5, rel=0.15)
    assert (
        gap["a"].clear
        and gap["b"].clear
        and not gap["c"].clear
        and gap["a"] == probing_findings.gap(features["a"]["content lambda"], features["a"]["mean of states"])
    )
    assert "better in 2 and worse in 0 of 3 tasks" in probing_findings.answer(lines)
    assert probing_report.title("c", features["c"]) == (
        "c: no clear difference between content lambdas and the mean of the states"
    )
    assert "points better than the mean of the states" in probing_report.title("a", features["a"])
    (note,) = probing_findings.notes(lines)
    assert (
        note
        == "In 4 of 8 probes the strength of the regularisation is the first or last that was tried: a 2, b 1, c 1."
    )
