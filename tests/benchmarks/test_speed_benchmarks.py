"""The speed benchmarks at toy size: they run, compare what they claim to compare, and refuse wrong input."""

import importlib
import json
import os
from pathlib import Path

import busy_neighbour
import measuring
import mixing
import pytest
import step_changes
import torch
import training_step
from processes import wait_policy_when_torch_is_loaded

from fairseq_lambda.ops import lambda_mix

TOY = {
    "mixing": "--dtype float32 --lengths 32 64 --tokens 64 --embed-dim 32 --heads 2 --repeats 1",
    "training_step": "--autocast none --size tiny --lengths 32 --tokens 64 --repeats 1",
    "long_text": "--size tiny --lengths 16 128 --tokens 128 --mean-document 20 --texts 64 128 --softmax-tokens 64 "
    "--models lambda baseline --repeats 1 --autocast none",
    "global_context": "--models mini --lengths 32 --local-length 64 --contexts 7 --repeats 1",
    "tune_banded": "--contexts 7 --blocks 8 --spans 64 --batch 1 --length 64 --repeats 1",
    "busy_neighbour": "--size tiny --length 32 --batch 2 --repeats 1 --steps 1",
    "step_changes": "--size tiny --lengths 32 --tokens 64 --models lambda --repeats 1",
}


def run(name, out):
    """Run a benchmark at toy size; return its rows."""
    importlib.import_module(name).main([*TOY[name].split(), "--device", "cpu", "--out", str(out)])
    (file,) = out.glob(f"{name}*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def check_mixing(rows):
    assert [(row["length"], row["model"]) for row in rows[:3]] == [(32, m) for m in ("banded", *mixing.PEERS)]
    assert len(rows) == 6 and rows[-1]["batch"] == 1
    assert all(row["peak_bytes"] > row["workspace_bytes"] and row["forward_backward"] > 0 for row in rows)


def check_training_step(rows):
    row = {line["model"]: line for line in rows}
    assert set(row) == set(training_step.MODELS)
    assert row["lambda-wide"]["parameters"] == pytest.approx(row["baseline"]["parameters"], rel=0.02)
    assert row["lambda"]["parameters"] < row["hybrid"]["parameters"] < row["baseline"]["parameters"]
    parts = row["lambda"]["parts"]
    assert parts["token mixing"]["floor"] > 0 and parts["gradient norm, optimizer"]["seconds"] > 0


def check_long_text(rows):
    assert [(row["what"], row["length"], row["model"]) for row in rows] == [
        *(("training", length, model) for length in (16, 128) for model in ("lambda", "baseline")),
        *[("features", 64, "lambda"), ("features", 64, "baseline"), ("features", 128, "lambda")],
    ]
    assert all(row["seconds"] > 0 and row["bytes_per_token"] > 0 for row in rows)
    assert ["packed_seconds" in row for row in rows] == [False, False, True, True, False, False, False]


def test_long_texts_can_be_measured_in_pieces(tmp_path):
    import long_text

    path = tmp_path / "long_text-cpu.jsonl"
    row = {"what": "training", "length": 512, "model": "lambda", "size": "mini", "autocast": "none", "seconds": 1}
    measuring.write_lines(path, long_text.merged(path, [row, row | {"length": 64}]))
    rows = long_text.merged(path, [row | {"seconds": 2}, row | {"what": "features", "model": "hybrid"}])
    assert [(r["what"], r["length"], r["seconds"]) for r in rows] == [
        ("training", 64, 1), ("training", 512, 2), ("features", 512, 1),
    ]  # fmt: skip


def check_step_changes(rows):
    assert [row["change"] for row in rows] == [change.name for change in step_changes.CHANGES]
    assert "over_previous" not in rows[0] and all(row["over_previous"] > 0 for row in rows[1:])
    assert all(row["over_floor"] == row["seconds"] / row["floor"] for row in rows)


def check_global_context(rows):
    assert [(row["length"], row["context"]) for row in rows] == [(32, 63), (64, 7)]
    for row in rows:
        assert row["loss"] == pytest.approx(row[f"{row['chosen']}_ms"] / min(row["band_ms"], row["fourier_ms"]) - 1)


def check_tune_banded(rows):
    assert [(row["what"], row["context"]) for row in rows] == [("block", 7), ("span", 7)]
    assert set(rows[0]["seconds"]) == {"8"} and all(row["over"] >= 1 for row in rows)


def check_busy_neighbour(rows):
    (row,) = rows
    assert set(row["seconds"]) == set(busy_neighbour.POLICIES)
    assert all(of["quiet"] > 0 and of["busy"] > 0 for of in row["seconds"].values())


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "busy_neighbour")) for n in TOY])
def test_each_benchmark_writes_rows_and_prints_them_with_their_setting(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "")
    monkeypatch.setattr(busy_neighbour, "core_seconds", lambda path="": 0.0)  # tests share the cores with others
    rows = run(name, tmp_path)
    globals()[f"check_{name}"](rows)
    printed = capsys.readouterr().out
    for key in ("cpu", "torch", "seed", "date", "commit"):
        assert f"{key} {rows[0]['setting'][key]}" in printed
    assert "| --- |" in printed
    drawn = [picture.stat().st_size > 10_000 for picture in tmp_path.glob("*.png")]
    assert drawn == [True] * (name in ("mixing", "training_step"))


@pytest.mark.parametrize("name,message", [("mixing", "no backend whose tests pass"), ("training_step", "1 failed")])
def test_nothing_is_compared_whose_tests_fail(name, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "tests_fail", lambda *tests: "1 failed")
    with pytest.raises(SystemExit) as end:
        run(name, tmp_path)
    assert message in str(end.value.code) and not list(tmp_path.iterdir())
    assert name != "mixing" or "banded: its tests fail" in capsys.readouterr().err


def test_flags_that_the_device_cannot_serve(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(measuring, "bfloat16_is_faster", lambda device: False)
    with pytest.raises(SystemExit):
        mixing.parse(["--device", "cuda"])
    assert "--device cuda: torch finds no GPU; use --device cpu" in capsys.readouterr().err
    for parse, flag in ((mixing.parse, "--dtype"), (training_step.parse, "--autocast")):
        assert parse(["--device", "cpu", flag, "bfloat16"])
        assert f"{flag} bfloat16: on this hardware products take longer" in capsys.readouterr().err


def test_convolution_form_is_the_same_layer():
    options = mixing.parse("--heads 3 --embed-dim 15 --dim-k 4 --dim-u 2 --local-context 5 --device cpu".split())
    function, (q, k, v, e) = mixing.make("convolution", 2, 11, options)
    ours = q.permute(0, 3, 1, 2), k.permute(0, 3, 2, 1), v.permute(0, 3, 2, 1), e.squeeze(2)
    expected, _ = lambda_mix(*ours)
    torch.testing.assert_close(function(q, k, v, e).permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


def test_tests_fail_tells_red_from_green_and_finds_packages_that_come_by_pythonpath(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/came_by_path.py").write_text("value = 2")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"), prepend=os.pathsep)
    file = tmp_path / "test_it.py"
    for value, expected in ((3, "1 failed"), (2, "")):
        file.write_text(f"import came_by_path\ndef test_it():\n    assert came_by_path.value == {value}\n")
        found = measuring.tests_fail(str(file), "-c", "/dev/null", "--rootdir", str(tmp_path))
        assert expected in found and bool(found) == bool(expected)


def test_peak_is_the_most_that_is_held_at_one_time():
    def three_of_which_two_at_a_time():
        a = torch.ones(1_000_000)
        b = torch.ones(1_000_000)
        del a
        return b + torch.ones(1)

    assert 8e6 <= measuring.peak_bytes(three_of_which_two_at_a_time, "cpu") < 8.1e6


@pytest.mark.parametrize("module,given,found", [("mixing", None, "PASSIVE"), ("mixing", "ACTIVE", "ACTIVE"),
                                                ("busy_neighbour", None, "None")])  # fmt: skip
def test_openmp_waits_passively_before_torch_is_there_unless_told(module, given, found):
    folder = Path(measuring.__file__).parent
    assert wait_policy_when_torch_is_loaded(f"import {module}", folder, given) == found


def test_workers_beside_a_busy_neighbour_differ_in_the_policy(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # scripts/test.sh sets it for this process
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    started = []
    monkeypatch.setattr(busy_neighbour.subprocess, "Popen", lambda command, env, **_: started.append(env))
    for policy in busy_neighbour.POLICIES.values():
        busy_neighbour.worker(policy, [])
    assert [env.get("OMP_WAIT_POLICY") for env in started] == [None, "PASSIVE", "PASSIVE"]
    assert [env.get("GOMP_SPINCOUNT") for env in started] == [None, None, "5000"]


def test_a_row_of_step_changes_has_the_variables_of_the_rows_above_it_alone(monkeypatch):
    names = [name for change in step_changes.CHANGES for name, _ in change.environment]
    for name in names:
        monkeypatch.setenv(name, "of this process")
    assert not set(names) & set(step_changes.environment_of(0))
    last = step_changes.environment_of(len(step_changes.CHANGES) - 1)
    assert names and all(last[name] != "of this process" for name in names)
