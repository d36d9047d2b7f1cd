# shellcheck shell=bash
# Sourced by quickstart.sh, test.sh and check_fresh.sh: which Python runs, and with which packages.

# As in lambda_bert_command.py: OpenMP's threads spin only briefly while they wait for each other.
[[ -n "${OMP_WAIT_POLICY:-}" ]] || export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-5000}"

# python_of VERSION: prints a Python of VERSION, such as 3.12, that can make environments. Fails if there is none.
python_of() {
  local shim candidate
  shim="$(type -p "python$1" || true)"
  while read -r candidate; do
    if "$candidate" -I -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
      &>/dev/null </dev/null; then
      echo "$candidate"
      return
    fi
  done < <(
    if [[ -n "${BASE_PYTHON:-}" ]]; then
      echo "$BASE_PYTHON"
    else
      type -ap "python$1" python3
      # pyenv has a shim for every version that is installed, which fails unless that version is activated
      compgen -G "${shim%/shims/*}/versions/$1.*/bin/python"
    fi
  )
  return 1
}

# ensure_environment REQUIREMENTS: sets PYTHON to an interpreter with the packages of that file and with this one.
# If PYTHON is set already, nothing is installed. All scripts share .venv, so that torch is downloaded once.
ensure_environment() {
  local requirements=$1 root
  root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
  if [[ -n "${PYTHON:-}" ]]; then
    check_environment "$requirements"
    return
  fi
  (
    if command -v flock >/dev/null; then flock 9; fi
    update_environment "$root" "$requirements"
  ) 9<"$root/setup.py"
  PYTHON="$root/.venv/bin/python"
}

# check_environment REQUIREMENTS: makes PYTHON an absolute path; fails unless it has the modules that the scripts need.
check_environment() {
  local modules=(torch fairseq sentencepiece safetensors)
  [[ "$1" == requirements.txt ]] || modules+=(pytest xdist hypothesis matplotlib ruff sklearn)
  command -v "$PYTHON" >/dev/null || { echo "error: PYTHON=$PYTHON: there is no such program" >&2; return 1; }
  PYTHON="$("$PYTHON" -c '
import sys, importlib.util
if sys.version_info < (3, 11):
    sys.exit(f"error: PYTHON={sys.executable} is {sys.version.split()[0]}: Python 3.11 or 3.12 is needed")
missing = [name for name in sys.argv[2:] if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"error: PYTHON={sys.executable} lacks {chr(32).join(missing)}: install {sys.argv[1]} there, or unset PYTHON")
print(sys.executable)' "$1" "${modules[@]}")"
  echo "environment: that of PYTHON=$PYTHON, nothing is installed"
}

# update_environment ROOT REQUIREMENTS: makes .venv or brings it up to date. A stamp for each requirements file records
# what was installed, and is written last.
update_environment() {
  local root=$1 requirements=$2 folder="$1/.venv" python="$1/.venv/bin/python" wanted base file
  wanted="$root"$'\n'"$(cat "$root/setup.py" "$root"/requirements*.txt)"
  if "$python" -c "" 2>/dev/null && [[ "$(cat "$folder/$requirements.stamp" 2>/dev/null)" == "$wanted" ]]; then
    echo "environment: $folder"
    return
  fi
  # without a stamp it is half-made; if the stamp names another folder it was moved, and its programs start a Python there
  if "$python" -c "" 2>/dev/null && [[ "$(head -qn 1 "$folder"/*.stamp 2>/dev/null | sort -u)" == "$root" ]]; then
    echo "environment: updating $folder"
  else
    base="$(python_of 3.11 || python_of 3.12)" || {
      echo "error: Python 3.11 or 3.12 with venv is needed: set BASE_PYTHON to one (it is '${BASE_PYTHON:-}')" >&2
      return 1
    }
    echo "environment: making $folder with $("$base" --version)"
    "$base" -m venv --clear "$folder"
    [[ -n "${TORCH_WHEEL:-}" ]] || cat <<MESSAGE
  About 3 GB are downloaded if pip takes torch for CUDA, which is what the package index has. For a CPU, 0.6 GB are
  enough: set TORCH_WHEEL to the path or address of a CPU wheel of $(grep '^torch==' "$root/requirements.txt").
  Nothing is downloaded if PYTHON is an interpreter that has the packages of $requirements.
MESSAGE
  fi
  rm -f "$folder"/*.stamp
  # All in one command, so that nothing replaces torch. -I: packages on PYTHONPATH do not count as installed.
  PYTHONUNBUFFERED=1 "$python" -I -m pip install --progress-bar off --disable-pip-version-check \
    ${TORCH_WHEEL:+"$TORCH_WHEEL"} -r "$root/$requirements" | awk '/Downloading .*\(([0-9][0-9][0-9.]* M|[0-9.]* G)B\)/ { print; fflush() }'
  # ve-fairseq requires torchaudio (for speech) in any version. One that does not fit torch cannot be imported, and
  # transformers imports it wherever it is installed.
  "$python" -I -m pip uninstall --quiet --yes torchaudio
  "$python" -I -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
  for file in requirements.txt "$requirements"; do
    printf '%s\n' "$wanted" >"$folder/$file.stamp"
  done
}
