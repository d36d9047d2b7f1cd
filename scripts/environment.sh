# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: a virtual environment with pinned dependencies, made once.

# ensure_environment FOLDER REQUIREMENTS: sets PYTHON to the interpreter of FOLDER, which is made if it is missing or
# if the requirements have changed since. A half-made environment has no stamp, and is made again.
ensure_environment() {
  local folder=$1 requirements=$2 root base stamp
  root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
  stamp="$folder/fairseq_lambda.stamp"
  PYTHON="$folder/bin/python"
  if [[ -f "$stamp" ]] && cat "$root"/requirements*.txt | cmp -s - "$stamp"; then
    echo "environment: $folder"
    return
  fi
  base=""
  for candidate in "${BASE_PYTHON:-}" python3.11 python3.12 python3; do
    if [[ -n "$candidate" ]] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      base=$candidate
      break
    fi
  done
  if [[ -z "$base" ]]; then
    echo "error: Python 3.11 or 3.12 is needed and none is on the PATH: set BASE_PYTHON to one" >&2
    return 1
  fi
  echo "environment: making $folder with $("$base" --version), some minutes if packages are not cached yet"
  "$base" -m venv --clear "$folder"
  # torch first and alone: what is asked for later then finds it satisfied
  "$PYTHON" -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' "$root/requirements.txt")"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$root/$requirements"
  cat "$root"/requirements*.txt >"$stamp"
}
