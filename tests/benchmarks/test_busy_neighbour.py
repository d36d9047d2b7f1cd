"""busy_neighbour at toy size; packages that come by PYTHONPATH in the tests that benchmarks run."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/speed"))
import busy_neighbour
import measuring
from processes import ROOT


@pytest.mark.slow
def test_both_policies_are_timed_quiet_and_busy(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        busy_neighbour, "core_seconds", lambda path="": 0.0
    )  # tests do not have the cores for themselves
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'benchmarks'}", prepend=":")
    toy = "--size tiny --length 32 --batch 2 --rounds 1 --steps 1".split()
    busy_neighbour.main([*toy, "--out", str(tmp_path / "out.jsonl")])
    assert "passive / default" in capsys.readouterr().out
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    seconds = json.loads(line)["seconds"]
    assert set(seconds) == {"default", "passive"}
    assert all(of["quiet"] > 0 and of["busy"] > 0 for of in seconds.values())


def test_workers_differ_in_the_policy(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # as this process has it, from scripts/test.sh
    started = []
    monkeypatch.setattr(busy_neighbour.subprocess, "Popen", lambda command, env, **_: started.append(env))
    for policy in busy_neighbour.POLICIES.values():
        busy_neighbour.worker(policy, [])
    assert [env.get("OMP_WAIT_POLICY") for env in started] == [None, "PASSIVE"]


def test_tests_of_benchmarks_find_packages_that_come_by_pythonpath(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/came_by_path.py").touch()
    (tmp_path / "test_it.py").write_text("import came_by_path\ndef test_it():\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"), prepend=":")
    assert measuring.tests_fail(str(tmp_path / "test_it.py"), "-c", "/dev/null", "--rootdir", str(tmp_path)) == ""
