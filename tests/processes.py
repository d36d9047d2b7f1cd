"""The processes that tests start."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with ``variables``, and with the checkout before what PYTHONPATH has."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": path, **variables}


def wait_policy_when_torch_is_loaded(code: str, folder: Path, given: str | None) -> str:
    """Return OMP_WAIT_POLICY as it is when ``code`` imports torch; ``given`` is its value before, None if unset."""
    spied = f"""import builtins, os, sys
real = builtins.__import__
def spy(name, *rest, **kwargs):
    if name == "torch" and "torch" not in sys.modules: print(os.environ.get("OMP_WAIT_POLICY"))
    return real(name, *rest, **kwargs)
builtins.__import__ = spy
{code}"""
    variables = environment(**{"OMP_WAIT_POLICY": given} if given else {})
    if given is None:
        del variables["OMP_WAIT_POLICY"]
    done = subprocess.run([sys.executable, "-c", spied], cwd=folder, env=variables, capture_output=True, text=True)
    return done.stdout.split()[0]
