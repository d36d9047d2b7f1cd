#!/usr/bin/env bash
# Environment, lint and all tests; arguments go to pytest.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/test.sh [pytest arguments]

Makes a virtual environment in .venv-test with pinned dependencies, lints Python and shell, and runs the tests on two
processes. WIKITEXT_DIR, if set, adds the tests on real WikiText-2. BASE_PYTHON: the Python to make the environment with.
HELP
  exit 0
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
ensure_environment "$root/.venv-test" requirements-dev.txt
bin="$(dirname "$PYTHON")"

"$bin/ruff" check .
"$bin/ruff" format --check .
if "$bin/shellcheck" --version >/dev/null 2>&1; then
  "$bin/shellcheck" scripts/*.sh .ci/run
else
  echo "shellcheck: not to be had here, skipped"
fi
# One thread a process: two processes with two threads each would wait for each other on two cores.
export OMP_NUM_THREADS=1 PYTHONPATH="$root"
"$PYTHON" -m pytest -n 2 --dist loadfile -q --durations 10 "$@"
