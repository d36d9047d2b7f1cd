"""Processes that tests start find the packages on PYTHONPATH, and this checkout before any other."""

import subprocess
import sys

from processes import ROOT, environment


def test_the_checkout_stands_before_what_pythonpath_has(tmp_path, monkeypatch):
    for name in ("came_by_path", "fairseq_lambda"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import came_by_path, importlib.util; print(importlib.util.find_spec('fairseq_lambda').origin)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT / "fairseq_lambda/__init__.py")


def test_openmp_sleeps_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert environment()["OMP_WAIT_POLICY"] == "ACTIVE"
