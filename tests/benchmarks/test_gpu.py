"""benchmarks/gpu.sh without a GPU: all stages in short form, and what happens if a stage fails or hangs."""

import json
import os
import signal
import subprocess
import sys

import pytest
from processes import ROOT, environment

sys.path.insert(0, str(ROOT / "benchmarks/gpu"))
import all_stages as gpu


def start(out, *arguments):
    command = [str(ROOT / "benchmarks/gpu.sh"), "--device", "cpu", "--out", str(out), *arguments]
    variables = environment(PYTHON=sys.executable)
    return subprocess.run(command, env=variables, cwd=out.parent, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_stage_passes_on_a_cpu(tmp_path):
    out = tmp_path / "out"
    done = start(out, "--minutes", "10")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    results = json.loads((out / "gpu.json").read_text())
    assert [result["stage"] for result in results] == list(gpu.SHARES)
    rows = {result["stage"]: result["rows"] for result in results}
    assert rows["card"][1]["bytes_per_second"] > 1e8 and rows["card"][2]["flop_per_second"] > 1e8
    assert len(rows["kernels"]) >= 4 and all(row["right"] and row["equal bits"] for row in rows["kernels"])
    assert all(row["registers"] > 0 and row["spilled"] == 0 for row in rows["tiles"])
    assert {row["model"] for row in rows["mixing"]} == {"banded", "softmax"}
    assert rows["step"][0]["model"] == "lambda" and rows["step"][0]["seconds"] > 0
    assert rows["updates"][-1]["worst"] < 1e-3
    assert rows["sanitizer"] == [{"outcome": "not run: needs a GPU"}]
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # it writes nowhere else


FAKE = """
import json, sys, time
out, seconds = sys.argv[sys.argv.index("--out") + 1], float(sys.argv[sys.argv.index("--seconds") + 1])
open(f"{out}/NAME.jsonl", "w").write(json.dumps({"seconds": seconds}) + "\\n")
REST
"""


def fake(monkeypatch, folder, **stages):
    folder.mkdir()
    for name, rest in stages.items():
        (folder / f"{name}.py").write_text(FAKE.replace("NAME", name).replace("REST", rest))
    monkeypatch.setattr(gpu, "HERE", folder)
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    monkeypatch.setattr(gpu, "LEAST", 0.5)
    monkeypatch.setattr(gpu, "SHARES", dict.fromkeys(stages, 1))


def test_a_stage_that_breaks_or_hangs_costs_only_itself(monkeypatch, tmp_path, capsys):
    fake(monkeypatch, tmp_path / "stages", first="sys.exit(3)", second="time.sleep(60)", third="print('all is well')")
    with pytest.raises(SystemExit) as end:
        gpu.main(["--device", "cpu", "--minutes", "0.05", "--out", str(tmp_path / "out")])
    assert end.value.code == 1
    results = json.loads((tmp_path / "out/gpu.json").read_text())
    outcomes = {result["stage"]: result["outcome"] for result in results}
    assert outcomes["first"] == "failed with exit code 3" and outcomes["third"] == "passed"
    assert outcomes["second"].startswith("stopped after")
    assert all(len(result["rows"]) == 1 for result in results)  # what a stage wrote before it ended is kept
    assert "all is well" in capsys.readouterr().out


def test_what_a_stage_leaves_of_its_time_goes_to_those_behind_it(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path / "stages", first="", second="", third="")
    gpu.main(["--device", "cpu", "--minutes", "1", "--out", str(tmp_path / "out"), "--stages", "first", "third"])
    first, third = (r["rows"][0]["seconds"] for r in json.loads((tmp_path / "out/gpu.json").read_text()))
    assert first == 30 and third > 50


def test_a_stage_run_again_leaves_the_rows_of_the_others_and_none_of_its_own(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path / "stages", first="", second="time.sleep(60)")
    out = tmp_path / "out"
    arguments = ["--device", "cpu", "--minutes", "0.02", "--out", str(out), "--stages"]
    gpu.main([*arguments, "first"])
    (out / "second.json").write_text("what an earlier run found")
    with pytest.raises(SystemExit):
        gpu.main([*arguments, "second"])
    results = json.loads((out / "gpu.json").read_text())
    assert [(result["stage"], len(result["rows"])) for result in results] == [("first", 1), ("second", 1)]
    assert not (out / "second.json").exists()


def test_no_stage_outlives_an_interrupt(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path / "stages", first="time.sleep(60)")
    started = []

    class Interrupted(subprocess.Popen):
        def wait(self, timeout=None):
            if self not in started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--device", "cpu", "--minutes", "1", "--out", str(tmp_path / "out")])
    assert started[0].returncode == -signal.SIGKILL


def test_flags_are_checked(tmp_path, capsys):
    for arguments, message in (
        (["--minutes", "0", "--out", str(tmp_path)], "--minutes 0: must be more than 0"),
        ([], "--out"),
        (["--out", str(tmp_path), "--stages", "nosuch"], "invalid choice: 'nosuch'"),
    ):
        with pytest.raises(SystemExit):
            gpu.main(arguments)
        assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
