#!/usr/bin/env bash
# The site: README.md, docs/ and the API from docstrings, as pages that need no network.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/docs.sh [FOLDER]

Builds the site into FOLDER (default: build/site); open its index.html. Fails on a link that leads nowhere, on a docstring
that cannot be read, and on a page that would load something from the network. The first run makes a virtual environment
in .venv-docs with requirements-docs.txt, about 60 MB; later ones need no network.

environment:
  PYTHON         interpreter of an existing environment with those packages: nothing is installed
  BASE_PYTHON    Python 3.11 or 3.12 to make the environment with
HELP
  exit 0
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"
site="$(realpath -m -- "${1:-$root/build/site}")"
cd "$root"

if [[ -z "${PYTHON:-}" ]]; then
  venv="$root/.venv-docs"
  PYTHON="$venv/bin/python"
  if ! cmp --silent requirements-docs.txt "$venv/stamp" || ! "$PYTHON" -c "" 2>/dev/null; then
    base="$(python_of 3.11 || python_of 3.12)" || {
      echo "error: Python 3.11 or 3.12 with venv is needed: set BASE_PYTHON to one" >&2
      exit 1
    }
    echo "environment: making $venv"
    "$base" -m venv --clear "$venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
    cp requirements-docs.txt "$venv/stamp"
  fi
fi

"$PYTHON" -m sphinx -q -E -a -W --keep-going -c docs -d build/doctrees . "$site"
# beside the first page, so that its links lead from here as well
cp "$site/README.html" "$site/index.html"
if grep -rnoE --include='*.html' --include='*.css' \
  '<(script|img|iframe)[^>]+src="(https?:)?//[^"]*|<link[^>]+href="(https?:)?//[^"]*|(url\(|@import) *["'\'']?(https?:)?//[^)"]*' "$site"; then
  echo "error: these pages would load something from the network" >&2
  exit 1
fi
echo "site: $site/index.html"
