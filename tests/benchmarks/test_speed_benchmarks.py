"""The benchmarks of speed at toy size: they run, compare what they say they compare, and refuse what is not right."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cpu_training
import long_text
import measuring
import mixing
import training_step
from training import write_data

from fairseq_lambda.ops import lambda_mix


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
    monkeypatch.setattr(mixing, "tests_fail", lambda *tests: "")
    with pytest.raises(SystemExit) as end:
        run(mixing, monkeypatch, *TOY, "--out", tmp_path)
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "softmax / chunked, with backward" in printed and "torch" in printed and "seed 1" in printed
    table = json.loads((tmp_path / "mixing-cpu-float32.json").read_text())["table"]
    assert set(table["32"]) == {"chunked", "convolution", "softmax"} and table["64"]["softmax"]["batch"] == 1
    for row in table["64"].values():
        assert row["peak_bytes"] > row["workspace_bytes"] and row["forward_backward"] > 0
    assert (tmp_path / "mixing-cpu-float32.png").stat().st_size > 10_000


def test_mixing_refuses_a_backend_whose_tests_fail(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(mixing, "tests_fail", lambda *tests: "1 failed")
    with pytest.raises(SystemExit) as end:
        run(mixing, monkeypatch, *TOY, "--out", tmp_path)
    assert "no backend whose tests pass" in str(end.value.code)
    assert not list(tmp_path.iterdir()) and "chunked: its tests fail" in capsys.readouterr().err


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
    monkeypatch.setattr(training_step, "tests_fail", lambda *tests: "")
    arguments = (
        "--device cpu --autocast none --size tiny --lengths 32 --tokens 64 --vocabulary 50 --repeats 1 --budget 0"
    )
    run(training_step, monkeypatch, *arguments.split(), "--out", tmp_path)
    results = json.loads((tmp_path / "training_step-cpu-none.json").read_text())
    row = results["table"]["32"]
    assert set(row) == set(training_step.MODELS)
    assert row["lambda-wide"]["parameters"] == pytest.approx(row["twin"]["parameters"], rel=0.02)
    assert row["lambda"]["parameters"] < row["twin"]["parameters"]
    parts = results["parts"]["32"]["lambda"]
    assert parts["token mixing"]["floor"] > 0 and parts["gradient norm, optimizer"]["seconds"] > 0
    assert "lambda / twin" in capsys.readouterr().out


def test_training_step_refuses_when_tests_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(training_step, "tests_fail", lambda *tests: "1 failed")
    with pytest.raises(SystemExit, match="the tests fail"):
        run(training_step, monkeypatch, "--device", "cpu", "--autocast", "none", "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def test_long_text(monkeypatch, tmp_path, capsys):
    arguments = "--device cpu --size tiny --lengths 64 128 --twin-tokens 64 --repeats 1".split()
    run(long_text, monkeypatch, *arguments, "--json", tmp_path / "long.json")
    rows = json.loads((tmp_path / "long.json").read_text())["rows"]
    assert [(r["model"], r["tokens"]) for r in rows] == [("lambda", 64), ("twin", 64), ("lambda", 128)]


@pytest.mark.slow
def test_cpu_training_runs_the_script_in_each_setting(monkeypatch, tmp_path, capsys):
    data = write_data(tmp_path / "data")
    settings = {name: cpu_training.SETTINGS[name] for name in ("as the script does it", "both")}
    monkeypatch.setattr(cpu_training, "SETTINGS", settings)
    monkeypatch.setattr(cpu_training, "MODELS", {"lambda": ["--encoder-embed-dim", "16"]})
    flags = "--tokens-per-sample 32 --batch-size 8 --num-workers 0 --autocast none".split()
    cpu_training.main([str(data), "--updates", "4", "--json", str(tmp_path / "out.json"), *flags])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["setting"] for row in rows] == list(settings)
    assert all(row["ms"] > 0 and 0.1 < row["gb"] < 8 for row in rows)
    assert "| both |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="training ended with"):
        cpu_training.main([str(data), "--updates", "4", "--no-such-flag"])
