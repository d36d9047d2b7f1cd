"""The workflow of a forge: YAML that names scripts that exist, on the versions of Python that are supported."""

import os
import re

import yaml
from processes import ROOT

WORKFLOW = ROOT / ".github/workflows/test.yml"


def steps():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return [(job, step) for job in jobs.values() for step in job["steps"]]


def test_it_runs_what_is_there():
    commands = [step["run"] for _, step in steps() if "run" in step]
    scripts = [word for command in commands for word in command.split() if word.startswith("scripts/")]
    assert {"scripts/test.sh", "scripts/docs.sh"} <= set(scripts)
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)
    assert any("pip wheel" in command for command in commands)


def test_its_pythons_are_those_that_the_environment_is_made_with():
    (versions,) = {tuple(job["strategy"]["matrix"]["python"]) for job, _ in steps() if "strategy" in job}
    environment = (ROOT / "scripts/environment.sh").read_text()
    assert list(versions) == re.findall(r"python_of (3\.\d+)", environment[environment.index("update_environment()") :])
