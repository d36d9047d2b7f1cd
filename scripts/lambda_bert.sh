#!/usr/bin/env bash
# lambda-bert from this checkout: scripts/lambda_bert.sh COMMAND [arguments]. PYTHON names the interpreter (python3).
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON to one with the requirements" >&2; exit 2; }
# waiting threads sleep, after some microseconds; set here, as it has to be there before torch is
[[ -n "${OMP_WAIT_POLICY:-}" ]] || export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m fairseq_lambda.commands "$@"
