"""The benchmarks of speed at toy size: they run, compare what they say they compare, and refuse what is not right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import data_loading
import global_context
import long_text
import measuring
import mixing
import pytest
import torch
import training_step
import tune_banded

from fairseq_lambda.ops import lambda_mix


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    module.main()


def test_convolution_form_is_the_same_layer():
    options = mixing.parse("--heads 3 --embed-dim 15 --dim-k 4 --dim-u 2 --local-context 5 --device cpu".split())
    function, (q, k, v, e), _ = mixing.make("convolution", 2, 11, options)
    ours = q.permute(0, 3, 1, 2), k.permute(0, 3, 2, 1), v.permute(0, 3, 2, 1), e.squeeze(2)
    expected, _ = lambda_mix(*ours)
    torch.testing.assert_close(function(q, k, v, e).permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


TOY = "--device cpu --dtype float32 --lengths 32 64 --tokens 64 --embed-dim 32 --heads 2 --repeats 1".split()


def test_mixing_writes_table_and_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "")
    with pytest.raises(SystemExit) as end:
        run(mixing, monkeypatch, *TOY, "--out", tmp_path)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "softmax / banded, with backward" in printed and "torch" in printed and "seed 1" in printed
    rows = lines(tmp_path / "mixing-cpu-float32.jsonl")
    assert [(row["length"], row["model"]) for row in rows[:3]] == [(32, m) for m in ("banded", *mixing.PEERS)]
    assert len(rows) == 6 and rows[-1]["batch"] == 1 and rows[-1]["setting"]["seed"] == 1
    assert all(row["peak_bytes"] > row["workspace_bytes"] and row["forward_backward"] > 0 for row in rows)
    assert (tmp_path / "mixing-cpu-float32.png").stat().st_size > 10_000


def test_mixing_refuses_a_backend_whose_tests_fail(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "1 failed")
    with pytest.raises(SystemExit) as end:
        run(mixing, monkeypatch, *TOY, "--out", tmp_path)
    assert "no backend whose tests pass" in str(end.value.code)
    assert not list(tmp_path.iterdir()) and "banded: its tests fail" in capsys.readouterr().err


def test_tests_fail_tells_red_from_green(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("def test_it():\n    assert 1 + 1 == 3\n")
    assert "1 failed" in measuring.tests_fail(str(file), "-c", "/dev/null", "--rootdir", str(tmp_path))
    file.write_text("def test_it():\n    assert 1 + 1 == 2\n")
    assert measuring.tests_fail(str(file), "-c", "/dev/null", "--rootdir", str(tmp_path)) == ""


def test_peak_is_the_most_that_is_held_at_one_time():
    def three_of_which_two_at_a_time():
        a = torch.ones(1_000_000)
        b = torch.ones(1_000_000)
        del a
        return b + torch.ones(1)

    assert 8e6 <= measuring.peak_bytes(three_of_which_two_at_a_time, "cpu") < 8.1e6


def test_training_step_of_four_models(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "")
    arguments = (
        "--device cpu --autocast none --size tiny --lengths 32 --tokens 64 --vocabulary 50 --repeats 1 --budget 0"
    )
    run(training_step, monkeypatch, *arguments.split(), "--out", tmp_path)
    row = {line["model"]: line for line in lines(tmp_path / "training_step-cpu-none.jsonl")}
    assert set(row) == set(training_step.MODELS)
    assert row["lambda-wide"]["parameters"] == pytest.approx(row["softmax"]["parameters"], rel=0.02)
    assert row["lambda"]["parameters"] < row["softmax"]["parameters"]
    parts = row["lambda"]["parts"]
    assert parts["token mixing"]["floor"] > 0 and parts["gradient norm, optimizer"]["seconds"] > 0
    assert "lambda / softmax" in capsys.readouterr().out


def test_training_step_refuses_when_tests_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "1 failed")
    with pytest.raises(SystemExit, match="the tests fail"):
        run(training_step, monkeypatch, "--device", "cpu", "--autocast", "none", "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def test_long_text(monkeypatch, tmp_path):
    arguments = "--device cpu --size tiny --lengths 64 128 --softmax-tokens 64 --repeats 1".split()
    run(long_text, monkeypatch, *arguments, "--json", tmp_path / "long.jsonl")
    rows = lines(tmp_path / "long.jsonl")
    assert [(r["model"], r["tokens"]) for r in rows] == [("lambda", 64), ("softmax", 64), ("lambda", 128)]


def test_global_context_says_what_its_choice_loses(monkeypatch, tmp_path, capsys):
    arguments = "--models mini --lengths 32 --local-length 64 --contexts 7 --seconds 0".split()
    run(global_context, monkeypatch, *arguments, "--json", tmp_path / "global.jsonl")
    rows = lines(tmp_path / "global.jsonl")
    assert [(row["length"], row["context"]) for row in rows] == [(32, 63), (64, 7)]
    for row in rows:
        assert row["loss"] == pytest.approx(row[f"{row['chosen']}_ms"] / min(row["band_ms"], row["fourier_ms"]) - 1)
    assert "is within 20 % of the faster one in" in capsys.readouterr().out


def test_tune_banded_prints_the_default_beside_the_best(monkeypatch, capsys):
    arguments = "--device cpu --contexts 7 --blocks 8 --spans 64 --batch 1 --length 64 --heads 2 --repeats 1".split()
    run(tune_banded, monkeypatch, *arguments, "--dim-k", "4", "--dim-v", "8")
    assert "| context | block 8, ms | default | over the best |" in capsys.readouterr().out


@pytest.mark.slow
def test_data_loading(monkeypatch, tmp_path, toy_data):
    arguments = f"--data {toy_data} --tokens-per-sample 32 --batch-tokens 256 --seconds 0.1".split()
    run(data_loading, monkeypatch, *arguments, "--json", tmp_path / "data.jsonl")
    (row,) = lines(tmp_path / "data.jsonl")
    assert row["samples_per_second"] > 0 and row["sentences"] > 0 and row["objective"] == "sop"


@pytest.mark.parametrize("given,found", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_waits_passively_before_torch_is_there_unless_told(given, found):
    code = """import builtins, os, sys
real = builtins.__import__
def spy(name, *rest, **kwargs):
    if name == "torch" and "torch" not in sys.modules: print(os.environ.get("OMP_WAIT_POLICY"))
    return real(name, *rest, **kwargs)
builtins.__import__ = spy
import mixing"""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    folder = Path(measuring.__file__).parent
    run_ = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert run_.stdout.split()[0] == found
