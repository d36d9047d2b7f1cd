#!/usr/bin/env bash
# Makes a folder to hand on from a training run: model, dictionary, SentencePiece model, configuration and card.
# `scripts/export.sh --help` lists the options; the work is in fairseq_lambda/commands/export.py. PYTHON names the interpreter.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "error: no Python at '$python': set PYTHON" >&2; exit 2; }
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning,ignore::UserWarning}"
exec "$python" -m fairseq_lambda.commands.export "$@"
