#!/usr/bin/env bash
# Scores a checkpoint on whole splits: masked-LM perplexity and accuracy, sentence accuracy, as a table and as JSON.
# `scripts/evaluate.sh --help` lists the options; the work is in fairseq_lambda/commands/evaluate.py. PYTHON names the interpreter.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON" >&2; exit 2; }
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning,ignore::UserWarning}"
exec "$python" -m fairseq_lambda.commands.evaluate "$@"
