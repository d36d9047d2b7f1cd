#!/usr/bin/env bash
# Checks that the requirements can be installed on a bare machine: empty home, no pip configuration, the package index.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/check_fresh.sh [--full]

Asks pip what it would install for each requirements file and for `.[dev,fairseq]`, with Python 3.11 and 3.12 if they
are found: about 15 seconds each. Only the packages' metadata is downloaded. Without an index it says so, and succeeds.

  --full   instead, run scripts/quickstart.sh and scripts/test.sh in a clone of the last commit, in such an environment:
           about 3 GB and half an hour. WIKITEXT_DIR is passed on.
HELP
  exit 0
fi
[[ $# == 0 || "$*" == "--full" ]] || { echo "error: $*: --full is the only option" >&2; exit 2; }

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
unset BASE_PYTHON
work="$(mktemp -d)"
trap 'rm -rf -- "$work"' EXIT
mkdir "$work/home"

fresh=(env -i "HOME=$work/home" "PATH=$PATH" LANG=C.UTF-8 PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1)
# The way to the index is kept: it does not change what is installed.
PIP_CERT="${PIP_CERT:-$(python3 -m pip config list 2>/dev/null | sed -n "s/^global.cert='\(.*\)'$/\1/p")}"
for name in PIP_CERT SSL_CERT_FILE {HTTP,HTTPS,NO}_PROXY {http,https,no}_proxy; do
  [[ -z "${!name:-}" ]] || fresh+=("$name=${!name}")
done

if [[ "${1:-}" == "--full" ]]; then
  git clone --quiet "$root" "$work/clone"
  cd "$work/clone"
  [[ -z "${WIKITEXT_DIR:-}" ]] || fresh+=("WIKITEXT_DIR=$WIKITEXT_DIR")
  "${fresh[@]}" scripts/quickstart.sh
  "${fresh[@]}" scripts/test.sh
  exit 0
fi

for version in 3.11 3.12; do
  base="$(python_of "$version")" || { echo "check_fresh: no Python $version here, skipped"; continue; }
  "$base" -m venv "$work/$version"
  pip=("${fresh[@]}" "$work/$version/bin/python" -m pip)
  # A recent pip reads what 3 GB of packages depend on without downloading them.
  if ! "${pip[@]}" download --quiet --no-deps --retries 1 --timeout 15 --dest "$work/$version" pip &>"$work/log"; then
    echo "check_fresh: no package index can be reached, skipped. $(tail -n 1 "$work/log")"
    exit 0
  fi
  "${pip[@]}" install --quiet --no-index "$work/$version"/pip-*.whl
  for what in requirements*.txt ".[dev,fairseq]"; do
    flag=$([[ "$what" == *.txt ]] && echo "--requirement" || echo "--editable")
    if ! "${pip[@]}" install --dry-run --use-feature=fast-deps "$flag" "$what" &>"$work/log"; then
      tail -n 20 "$work/log" >&2
      echo "error: $what cannot be installed with Python $version" >&2
      exit 1
    fi
    found="$(grep '^Would install' "$work/log" | grep -oiE '\b(torch|triton|ve-fairseq|sphinx)-[0-9][^ ]*' | xargs)"
    echo "check_fresh: Python $version, $what: $found ($SECONDS s)"
  done
done
