"""Features of texts and words, runs that resume, and the report."""

import re

import numpy as np
import probing
import probing_features
import probing_report
import pytest
import torch
from inspection_cores import ids, make_core
from made_up_probing import data, few_words  # noqa: F401  fixtures
from probing_tasks import Group

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
    assert dims == {"lambda": 32, "lambda-small": 16, "values": 8, "mean": 16, "mean-wide": 32, "first": 16}
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
    assert out.count("\n| tense |") == 2 and "Content lambdas minus the mean of states: overall" in out
    assert re.search(r"bigram_shift, content lambda of layer 0: .* wanted at chance", out)
    assert {p.stem for p in (tmp_path / "probing").iterdir()} == {*tasks[1:]}


def test_features_of_lambda_layers_are_placed_among_all_layers():
    lines = [{"feature": feature, "layer": 2} for feature in ("lambda", "values", "mean", "mean-wide", "bag of words")]
    placed = probing_report.in_the_model(lines, [0, 1, 3])
    assert [x["layer"] for x in placed] == [3, 3, 2, 2, 2] and lines[0]["layer"] == 2


def test_without_data_the_flag_is_named(run_probing, monkeypatch):
    for name in ("TASKS_DIR", "PROBING_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="^error: --data names no folder"):
        probing.main(["model"])
    with pytest.raises(SystemExit, match=r"ud_ewt/train\.conllu"):
        probing.main(["model", "--data", "nowhere", "--probing", "nowhere"])


def line(task, model, feature, layer, test, dev=None, seed=1, **more):
    known = {"control": 50.0, "compression": 1.5, "majority": 50.0, "examples": {"test": 1000}, "dim": 8}
    return {"task": task, "model": model, "feature": feature, "layer": layer, "seed": seed, "test": test,
            "dev": test if dev is None else dev} | known | more  # fmt: skip


def test_the_report_takes_the_layer_of_dev_and_says_what_follows():
    lines = [
        line("depth", "model", "lambda", 0, 60.0, dev=70.0),
        line("depth", "model", "lambda", 0, 64.0, dev=70.0, seed=2),
        line("depth", "model", "lambda", 1, 90.0, dev=65.0), line("depth", "model", "mean", 0, 70.0),
        line("depth", "model", "lambda-small", 0, 55.0), line("depth", "model", "values", 0, 66.0),
        line("bigram_shift", "model", "lambda", 0, 53.0), line("bigram_shift", "model", "mean", 3, 69.0),
        line("word_content", "model", "lambda", 0, 80.0, majority=1.0),
    ]  # fmt: skip
    table = probing_report.accuracy_table(lines)
    assert "| 62.0 (60.0 to 64.0), layer 0 |" in table and "90" not in table
    assert "overall -12.0 points, better in 0 of 2 tasks" in probing_report.answer(lines)
    features = probing_report.by_layer(lines, "depth")
    assert (
        probing_report.title("depth", features)
        == "depth: content lambdas do 8.0 points worse than the mean of the states"
    )
    assert probing_report.title("word_content", probing_report.by_layer(lines, "word_content")).endswith("not finished")
    held = dict(probing_report.checks(lines))
    assert [*held.values()] == [True, True, False]
    order_known = [line("bigram_shift", "model", "lambda", 0, 58.0)]
    assert [holds for _, holds in probing_report.checks(order_known)] == [False]
