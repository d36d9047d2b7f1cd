"""scripts/environment.sh with a Python that only records how it is called, and scripts/check_fresh.sh offline."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from processes import ROOT

from lambda_bert_command import WAITING

FAKE = r"""#!/usr/bin/env bash
args="$*"
case "$args" in
  "-m venv --clear "*) echo venv >>"$LOG"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *"pip install"*"-r "*) echo "install ${args##*/}" >>"$LOG"; [[ -z "${FAIL:-}" ]] ;;
  *"pip install"*"-e "*) echo editable >>"$LOG" ;;
  *"pip uninstall"*) echo "uninstall ${args##* }" >>"$LOG" ;;
esac
"""
MADE = ["venv", "install requirements.txt", "uninstall torchaudio", "editable"]


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "a check out"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/environment.sh", "setup.py", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder / name)
    fake = folder / "fake"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return folder


def bash(checkout, code, ok=True, **variables):
    """Return what ``code`` prints after environment.sh, and the calls of the Python that it found."""
    log = checkout / "log"
    log.write_text("")
    environment = {"PATH": os.environ["PATH"], "LOG": str(log), **variables}
    code = f"set -euo pipefail; source scripts/environment.sh; {code}"
    done = subprocess.run(["bash", "-c", code], cwd=checkout, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr, log.read_text().splitlines()


def ensure(checkout, requirements="requirements.txt", **variables):
    code = f"ensure_environment {requirements}; echo $PYTHON"
    return bash(checkout, code, **({"BASE_PYTHON": str(checkout / "fake")} | variables))


def test_an_environment_is_made_once_for_all_scripts_and_says_what_it_costs(checkout):
    out, calls = ensure(checkout)
    assert calls == MADE and "3 GB" in out and "TORCH_WHEEL" in out and out.endswith("/.venv/bin/python\n")
    assert ensure(checkout)[1] == []
    out, calls = ensure(checkout, "requirements-dev.txt")
    assert calls == ["install requirements-dev.txt", *MADE[2:]] and "3 GB" not in out
    assert ensure(checkout)[1] == ensure(checkout, "requirements-dev.txt")[1] == []


def test_changed_requirements_are_installed_and_a_moved_environment_is_made_again(checkout):
    ensure(checkout)
    with (checkout / "requirements.txt").open("a") as file:
        file.write("more==1\n")
    assert ensure(checkout)[1] == MADE[1:]
    moved = checkout.rename(checkout.with_name("moved"))
    assert ensure(moved)[1] == MADE


def test_a_half_made_environment_is_made_again(checkout):
    bash(checkout, "ensure_environment requirements.txt", ok=False, BASE_PYTHON=str(checkout / "fake"), FAIL="1")
    assert ensure(checkout)[1] == MADE
    (checkout / ".venv/bin/python").unlink()
    assert ensure(checkout)[1] == MADE


def test_an_existing_environment_is_checked_and_nothing_is_installed(checkout, tmp_path):
    here = {"PYTHON": sys.executable, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    assert ensure(checkout, **here)[0].endswith(f"{sys.executable}\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    for python, message in [
        ("empty/bin/python", "lacks torch fairseq .*: install requirements.txt"),
        ("no", "no such"),
    ]:
        out, calls = bash(checkout, "ensure_environment requirements.txt", ok=False, PYTHON=str(tmp_path / python))
        assert out.startswith("error: PYTHON=") and out.count("\n") == 1 and not calls
        assert re.search(message, out)
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_there_and_does_not_run_is_passed_over(checkout):
    """As pyenv's shims do for versions that are not activated."""
    version = ".".join(map(str, sys.version_info[:2]))
    shim, real = checkout / "shims" / f"python{version}", checkout / "versions" / f"{version}.9" / "bin" / "python"
    for path, code in ((shim, "exit 127"), (real, f'exec "{sys.executable}" "$@"')):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/bash\n{code}\n")
        path.chmod(0o755)
    out, _ = bash(checkout, f"python_of {version}", PATH=f"{shim.parent}:/usr/bin:/bin")
    assert out.strip() != str(shim) and subprocess.run([out.strip(), "-c", ""], check=False).returncode == 0
    message, _ = bash(checkout, "ensure_environment requirements.txt", ok=False, BASE_PYTHON=str(shim))
    assert message.startswith("error: Python 3.11 or 3.12") and str(shim) in message


def test_how_threads_wait(checkout):
    names = "echo $OMP_WAIT_POLICY ${GOMP_SPINCOUNT:-}"
    assert bash(checkout, names)[0].split() == list(WAITING.values())
    assert bash(checkout, names, GOMP_SPINCOUNT="7")[0].split() == ["PASSIVE", "7"]
    assert bash(checkout, names, OMP_WAIT_POLICY="ACTIVE")[0].split() == ["ACTIVE"]


@pytest.mark.slow
def test_without_an_index_the_check_is_skipped_and_says_so():
    environment = os.environ | {"https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([ROOT / "scripts/check_fresh.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" in done.stdout


@pytest.mark.parametrize(("active", "made", "expected"), [
    ("fairseq", True, "active"), ("nothing", True, "made"), (None, True, "made"), ("nothing", False, "python3"),
])  # fmt: skip
def test_commands_run_in_the_active_environment_if_fairseq_is_there(tmp_path, active, made, expected):
    def fake(folder, has_fairseq=True):
        (folder / "bin").mkdir(parents=True)
        python = folder / "bin/python"
        python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {int(not has_fairseq)}\necho {folder.name}\n')
        python.chmod(0o755)
        return python

    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/lambda_bert.sh", tmp_path / "scripts")
    variables = {"PATH": f"{tmp_path / 'python3/bin'}:/usr/bin:/bin"}
    fake(tmp_path / "python3").rename(tmp_path / "python3/bin/python3")
    if active:
        fake(tmp_path / "active", active == "fairseq")
        variables["VIRTUAL_ENV"] = str(tmp_path / "active")
    if made:
        fake(tmp_path / "made").parent.parent.rename(tmp_path / ".venv")
    run = ["bash", str(tmp_path / "scripts/lambda_bert.sh"), "fill-mask"]
    assert subprocess.run(run, env=variables, capture_output=True, text=True, check=True).stdout == f"{expected}\n"
