#!/usr/bin/env bash
# Checks and benchmarks the lambda layer on a GPU, in one command; see --help. PYTHON picks the interpreter.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname -- "${BASH_SOURCE[0]}")/gpu/all_stages.py" "$@"
