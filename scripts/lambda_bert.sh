#!/usr/bin/env bash
# lambda-bert from this checkout: scripts/lambda_bert.sh COMMAND [arguments]. PYTHON names the interpreter (python3).
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON to one with the requirements" >&2; exit 2; }
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m lambda_bert_command "$@"
