#!/usr/bin/env bash
# Environment, lint and all tests; arguments go to pytest.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/test.sh [pytest arguments]

Makes a virtual environment in .venv with pinned dependencies, or adds what the tests need to quickstart's, lints Python
and shell, and runs the tests on two processes. Without arguments it also checks that the requirements can be installed
on a fresh machine (scripts/check_fresh.sh).

environment:
  WIKITEXT_DIR   folder that holds WikiText-2: the tests that need it run too
  PYTHON         interpreter of an existing environment: nothing is installed
  TORCH_WHEEL    path or address of the wheel of torch to install, such as one for the CPU
  BASE_PYTHON    Python 3.11 or 3.12 to make the environment with
HELP
  exit 0
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"
ensure_environment requirements-dev.txt
cd "$root"
PATH="$(dirname "$PYTHON"):$PATH"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
if shellcheck --version >/dev/null 2>&1; then
  shellcheck scripts/*.sh .ci/run
else
  echo "shellcheck: not installed, skipped"
fi
[[ $# != 0 ]] || scripts/check_fresh.sh
# One thread per process: two processes with two threads each would wait for each other on two cores.
export OMP_NUM_THREADS=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" -m pytest -n 2 --dist loadfile -q --durations 10 "$@"
