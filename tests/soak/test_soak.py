"""Short versions of the soak tests."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment
from test_hub_interface import trained  # noqa: F401  a fixture

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent


def soak(script, *arguments):
    variables = environment(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    command = [sys.executable, FOLDER / script, *arguments]
    done = subprocess.run([str(c) for c in command], env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = (line.strip().partition(" ") for line in done.stdout.splitlines()[:-1])
    return {what: int(count) for count, _, what in rows}


@pytest.mark.parametrize("kills,flags", [(12, []), (2, ["--script"])])
def test_killed_trainings_end_as_if_never_killed(kills, flags):
    tally = soak("kill_anything.py", "--kills", kills, *flags)
    assert tally["kills"] == kills and tally["end states that differ"] == 0
    assert tally["trainings completed"] >= 1


def test_killed_fine_tunings_end_as_if_never_killed(trained):  # noqa: F811
    tally = soak("kill_finetuning.py", trained, "--kills", 3)
    assert tally["kills"] == 3 and tally["completed"] >= 1 and tally["end states that differ"] == 0
