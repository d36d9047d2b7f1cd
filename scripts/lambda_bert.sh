#!/usr/bin/env bash
# lambda-bert from this checkout: scripts/lambda_bert.sh COMMAND [arguments]. PYTHON names the interpreter
# (the one in .venv that the other scripts make; without it, python3).
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[[ -n "${PYTHON:-}" || -x "$python" ]] || python=python3
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON to one with the requirements" >&2; exit 2; }
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m lambda_bert_command "$@"
