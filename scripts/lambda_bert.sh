#!/usr/bin/env bash
# lambda-bert from this checkout: scripts/lambda_bert.sh COMMAND [arguments]. PYTHON names the interpreter. Without it,
# that of the active environment if fairseq is there, else the one in .venv that the other scripts make, else python3.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
active="${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}"
has_fairseq='import sys, importlib.util; sys.exit(importlib.util.find_spec("fairseq") is None)'
python="${PYTHON:-}"
if [[ -z "$python" && -n "$active" ]] && "$active" -c "$has_fairseq" 2>/dev/null; then python="$active"; fi
if [[ -z "$python" && -x "$root/.venv/bin/python" ]]; then python="$root/.venv/bin/python"; fi
python="${python:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON to one with the requirements" >&2; exit 2; }
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m lambda_bert_command "$@"
