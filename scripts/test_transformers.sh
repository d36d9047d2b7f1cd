#!/usr/bin/env bash
# The tests of the transformers port with the newest and the oldest supported transformers, without fairseq.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/test_transformers.sh [pytest arguments]

Makes two environments without fairseq, .venv-transformers-VERSION for the newest transformers and for 4.57.6, that
share torch with the environment of scripts/test.sh, and runs tests/huggingface in each. Then it runs tests/conversion
in each, with fairseq added. The first run downloads about 0.3 GB. It takes about six minutes on two cores.

environment:
  PYTHON               interpreter of an existing environment with the packages of requirements-dev.txt, to share from
  TRANSFORMERS_VENVS   folder for the two environments (default: the checkout)
HELP
  exit 0
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"
ensure_environment requirements-dev.txt
cd "$root"
shared=(torch pytest pytest-xdist hypothesis safetensors sentencepiece setuptools matplotlib)
newest="$(sed -n 's/^transformers==//p' requirements-transformers.txt)"

# requirements_of VERSION: prints what the environment with that transformers gets.
requirements_of() {
  if [[ "$1" == "$newest" ]]; then
    cat requirements-transformers.txt
  else # sentence-transformers 6.x requires transformers 5
    sed "s/^transformers==.*/transformers==$1/; s/^sentence-transformers==.*/sentence-transformers==5.7.0/" \
      requirements-transformers.txt
  fi
}

# make_environment VERSION FOLDER: makes the environment, or leaves it if it is up to date.
make_environment() {
  local version=$1 folder=$2 wanted site
  wanted="$PYTHON"$'\n'"$(requirements_of "$version")"$'\n'"${shared[*]}"
  if [[ "$(cat "$folder/stamp" 2>/dev/null)" == "$wanted" ]] && "$folder/bin/python" -c "" 2>/dev/null; then
    echo "environment: $folder"
    return
  fi
  echo "environment: making $folder with transformers $version"
  "$PYTHON" -m venv --clear "$folder"
  "$PYTHON" scripts/link_packages.py "$folder/shared" "${shared[@]}"
  "$PYTHON" scripts/link_packages.py "$folder/beside" ve-fairseq
  site="$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  echo "$folder/shared" >"$site/shared.pth"
  requirements_of "$version" >"$folder/requirements.txt"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$folder/requirements.txt"
  "$folder/bin/python" -c "
import importlib.util, torch, transformers
assert importlib.util.find_spec('fairseq') is None and transformers.__version__ == '$version'
assert torch.__file__.startswith('$folder/shared'), torch.__file__"
  printf '%s\n' "$wanted" >"$folder/stamp"
}

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
for version in "$newest" 4.57.6; do
  folder="${TRANSFORMERS_VENVS:-$root}/.venv-transformers-$version"
  make_environment "$version" "$folder"
  run=("$folder/bin/python" -m pytest -n 2 --dist loadfile -q)
  echo "== transformers $version, without fairseq"
  PYTHONPATH="$root" "${run[@]}" --confcutdir tests/huggingface tests/huggingface "$@"
  echo "== transformers $version, beside fairseq"
  PYTHONPATH="$folder/beside:$root" "${run[@]}" tests/conversion "$@"
done
