#!/usr/bin/env bash
# lambda-bert from this checkout: scripts/lambda_bert.sh COMMAND [arguments]. PYTHON names the interpreter (python3).
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON to one with the requirements" >&2; exit 2; }
# Let threads sleep while they wait; set here, as torch reads it when it is loaded.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m fairseq_lambda.commands "$@"
