"""The quality benchmark: a comparison is run, killed, resumed and reported; wrong input is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import comparison
import pytest
import report
import run
import torch
from comparison import Comparison, Results, Run
from training import PACKAGE, write_data

TOY = """
title: a toy
size: tiny
updates: 8
lr: "2e-2"
seeds: [1]
baseline: softmax
lengths: [32, 64]
order_title: order
draw: [softmax, lambda]
flags: {validate-interval-updates: 2, save-interval-updates: 2, log-interval: 1, num-workers: 0, autocast: none,
        encoder-embed-dim: 16, encoder-ffn-embed-dim: 32, lambda-key-depth: 4, tokens-per-sample: 32, batch-size: 8}
models:
  softmax: {lambda-layers: none}
  lambda: {lambda-local-context: 7, updates: 10}
"""
RUN = Path(run.__file__)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return the arguments of run.py for the toy comparison; its results go to ``tmp_path``."""
    data = write_data(tmp_path / "data")
    for suffix in (".bin", ".idx"):
        (data / f"test{suffix}").write_bytes((data / f"valid{suffix}").read_bytes())
    (tmp_path / "toy.yaml").write_text(TOY)
    monkeypatch.setattr(comparison, "RESULTS", tmp_path)
    return [str(tmp_path / "toy.yaml"), str(data), "--runs", str(tmp_path / "runs")]


@pytest.mark.slow
def test_runs_are_resumed_after_a_kill_reported_and_timed(toy, tmp_path, capsys, monkeypatch):
    results = Results(tmp_path / "toy.jsonl")
    code = f"import pathlib, run, comparison; comparison.RESULTS = pathlib.Path({str(tmp_path)!r}); run.main({toy!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=RUN.parent, start_new_session=True)
    while process.poll() is None and not results.lines:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (line,) = results.lines  # the curve was saved before the kill
    assert line["model"] == "softmax" and "scores" not in line and line["curve"][0]["updates"] == 2
    assert line["setting"]["commit"] and line["setting"]["torch"] and line["flags"]["lambda-layers"] == "none"

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # --jobs sets it for the trainings
    run.main([*toy, "--jobs", "2"])
    theirs, ours = results.lines
    assert [(line["model"], line["lr"], line["seed"]) for line in (theirs, ours)] == [
        ("softmax", "2e-2", 1),
        ("lambda", "2e-2", 1),
    ]
    assert [point["updates"] for point in theirs["curve"]] == [2, 4, 6, 8]
    assert [point["updates"] for point in ours["curve"]] == [2, 4, 6, 8, 10] and ours["ms_per_update"] > 0
    assert {"seconds", "valid_acc", "order_acc", "train_ppl"} <= set(ours["curve"][-1])
    assert ours["scores"]["valid"]["mlm_ppl"] == pytest.approx(ours["curve"][-1]["valid_ppl"], rel=1e-3)
    assert ours["lengths"]["32"]["ratio"] == 1 and ours["lengths"]["64"]["mlm_ppl"] > 1
    assert set(ours["lengths"]) == {"32", "64"} and set(theirs["lengths"]) == {"32"}  # learned positions end

    before = results.path.read_bytes()
    (tmp_path / "runs").rename(tmp_path / "gone")
    run.main(toy)
    assert results.path.read_bytes() == before  # finished runs need no checkpoint
    run.main([*toy, "--time"])
    assert {line["model"] for line in results.lines if line["in_turns"]["ms_per_update"] > 0} == {"softmax", "lambda"}

    capsys.readouterr()
    report.main([toy[0]])
    table = capsys.readouterr().out
    assert "| lambda | 10 | 2e-2 | 1 |" in table and "| softmax | 8 | 2e-2 | 1 |" in table
    assert "± " in table and "Times in turns" in table
    assert (tmp_path / "toy.png").stat().st_size > 10_000 and (tmp_path / "toy-order.png").stat().st_size > 10_000

    (tmp_path / "toy.yaml").write_text(TOY.replace("lambda-local-context: 7", "lambda-local-context: 5"))
    with pytest.raises(SystemExit, match=r"holds lambda-lr2e-2-seed1 with .*delete its line"):
        run.main(toy)


BRANCHES = """
title: a toy
size: tiny
updates: 20
lr: "2e-2"
seeds: [1]
baseline: short
warmup: 4
decay: 0.25
flags: {validate-interval-updates: 5, save-interval-updates: 5, log-interval: 1, num-workers: 0, autocast: none,
        encoder-embed-dim: 16, encoder-ffn-embed-dim: 32, lambda-key-depth: 4, tokens-per-sample: 32, batch-size: 8}
models:
  trunk: {lambda-local-context: 7}
  short: {trunk: trunk}
  long: {trunk: trunk, updates: 40}
"""


@pytest.mark.slow
def test_two_ends_of_one_trunk_are_trainings_of_their_own(toy, tmp_path):
    (tmp_path / "toy.yaml").write_text(BRANCHES)
    run.main(toy)
    runs, lines = tmp_path / "runs", {line["model"]: line for line in Results(tmp_path / "toy.jsonl").lines}
    for name, end in (("short", 20), ("long", 40)):  # an epoch's end is validated too
        assert {5, 10, 15, end} <= {point["updates"] for point in lines[name]["curve"]} <= set(range(end + 1))
    assert sorted(path.name for path in (runs / "trunk-lr2e-2-seed1").glob("at-*")) == ["at-15", "at-30"]
    assert [point for point in lines["long"]["curve"] if point["updates"] <= 30] == lines["trunk"]["curve"]

    # the end of 20 updates by itself, with the same schedule, gives the same weights
    (tmp_path / "toy.yaml").write_text(
        BRANCHES.replace("  long: {trunk: trunk, updates: 40}", "")
        .replace("  trunk: {lambda-local-context: 7}\n", "")
        .replace("short: {trunk: trunk}", "short: {lambda-local-context: 7}")
    )
    (tmp_path / "toy.jsonl").unlink()
    run.main([*toy[:3], str(tmp_path / "alone")])
    weights = [
        torch.load(folder / "short-lr2e-2-seed1/checkpoint_last.pt")["model"] for folder in (runs, tmp_path / "alone")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    (tmp_path / "toy.jsonl").unlink()
    for folder in ("short", "trunk"):
        shutil.rmtree(runs / f"{folder}-lr2e-2-seed1")
    (tmp_path / "toy.yaml").write_text(BRANCHES)
    with pytest.raises(SystemExit, match="at-15, which is missing: train trunk first"):
        run.main([*toy, "--models", "short"])


def test_a_trunk_comes_before_its_ends(tmp_path):
    path = tmp_path / "toy.yaml"
    for text in (BRANCHES.replace("decay: 0.25", ""), BRANCHES.replace("  trunk: {lambda-local-context: 7}\n", "")):
        path.write_text(text)
        with pytest.raises(ValueError, match="'short' needs its trunk 'trunk' listed before it, and decay"):
            Comparison.read(path)
    path.write_text(BRANCHES)
    compared = Comparison.read(path)
    ((trunk, short, long),) = compared.rounds(Results(tmp_path / "none.jsonl"))
    assert (trunk.branches, trunk.updates, short.start, long.start) == ((15, 30), 30, 15, 30)
    assert [long.flags[f"{stage}-steps"] for stage in ("warmup", "hold", "decay")] == [4, 26, 10]


def test_errors_name_the_remedy(toy, tmp_path):
    for text, message in (
        (TOY.replace("baseline: softmax", "baseline: rnn"), "no model 'rnn' among softmax; lambda"),
        (TOY + "a: 1", "'a'"),
        (TOY + "models: [", "toy.yaml"),
    ):
        (tmp_path / "toy.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            Comparison.read(tmp_path / "toy.yaml")
    (tmp_path / "toy.yaml").write_text(TOY)
    for module, arguments, message in (
        (run, [toy[0], str(tmp_path)], "preprocess_wikitext.sh"),
        (run, [*toy, "--models", "rnn"], "--models rnn: the file has softmax;lambda"),
        (run, [*toy, "--seeds", "1,9"], "--seeds 9: the models have 1"),
        (run, [*toy, "--time", "--seeds", "1"], "--time times all models"),
        (run, [*toy, "--seeds", "one"], "--seeds one: the models have 1"),
        (run, [*toy, "--jobs", "0"], "--jobs 0: must be at least 1"),
        (run, ["nosuch", toy[1]], "nosuch: neither a YAML file nor one of ablations, baseline"),
        (report, [toy[0]], "holds no run"),
    ):
        with pytest.raises(SystemExit) as end:
            module.main(arguments)
        assert message in str(end.value.code)


def test_a_model_without_the_seed_is_said(toy, tmp_path):
    (tmp_path / "toy.yaml").write_text(TOY.replace("updates: 10}", "updates: 10, seeds: [1, 2]}"))
    with pytest.raises(SystemExit, match="--seeds 2: the models have 1$"):
        run.main([*toy, "--models", "softmax", "--seeds", "2"])


def test_a_failed_training_says_where_to_look(tmp_path, monkeypatch):
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\necho "2026 | valid | {"\nexit 3\n')
    script.chmod(0o755)
    monkeypatch.setattr(run, "SCRIPT", script)
    validated = []
    with pytest.raises(ValueError, match=r"toy-lr1-seed1 ended with 3; .*train\.log say why"):
        run.train(Run("toy", "1", 1, "tiny", 4, {}), tmp_path, tmp_path / "run", validated.append)
    assert len(validated) == 1


@pytest.mark.parametrize("path", sorted((RUN.parent / "comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_comparisons_name_flags_that_exist_and_results_that_fit(path):
    from fairseq import options

    compared, results = comparison.open_comparison(path.stem)
    runs = [one for runs in compared.rounds(results) for one in runs]
    assert len({one.folder for one in runs}) == len(runs)
    data = results.lines[0]["data"] if results.lines else "enwiki"
    finished = [results.finished(one, data) for one in runs]  # which refuses lines made with other flags
    assert all(finished) or data == "enwiki"
    for one in runs:
        words = ["data", "--user-dir", str(PACKAGE), "--task", "masked_lm_sop", "--criterion", "masked_lm_sop"]
        words += ["--arch", f"lambda_bert_{one.size}", *Run("x", one.lr, one.seed, "", 1, one.flags).command_line()[2:]]
        options.parse_args_and_arch(options.get_training_parser(), words)


def test_other_seeds_take_the_rate_that_was_best_with_the_first(tmp_path):
    models = {"softmax": {"lr": ["1e-3", "9e-3"]}, "lambda": {"seeds": [1], "updates": 800, "k": 8}}
    compared = Comparison("t", "tiny", 400, "1e-3", [1, 2], "softmax", models, {"every": 5})
    results = Results(tmp_path / "x.jsonl")
    first = next(compared.rounds(results))
    assert [(one.model, one.lr, one.seed, one.updates) for one in first] == [
        ("softmax", "1e-3", 1, 400),
        ("softmax", "9e-3", 1, 400),
        ("lambda", "1e-3", 1, 800),
    ]
    assert first[2].flags == {"every": 5, "k": 8} and first[2].folder == "lambda-lr1e-3-seed1"
    results.put(first[0], {"curve": [{"valid_ppl": 1.0}]})  # unfinished
    with pytest.raises(ValueError, match="no finished run of softmax with seed 1"):
        list(compared.rounds(results))
    results.put(first[0], {"scores": {"valid": {"mlm_loss": 4.0}}})
    results.put(first[1], {"scores": {"valid": {"mlm_loss": 3.0}}})
    assert [(one.lr, one.seed) for one in list(compared.rounds(results))[1]] == [("9e-3", 2)]
    assert [[one.model for one in runs] for runs in compared.rounds(results, ["lambda"])] == [["lambda"], []]
    assert [one.seed for runs in compared.rounds(results, seeds=[2]) for one in runs] == [2]
