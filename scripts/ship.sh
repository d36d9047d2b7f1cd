#!/usr/bin/env bash
# Makes an included model of fairseq_lambda/pretrained from a checkpoint: weights in float16, their scores, the card.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/ship.sh CHECKPOINT NAME DATA BLIMP

Makes fairseq_lambda/pretrained/NAME, and replaces it if it exists; committing it is up to you. CHECKPOINT is exported
with weights in float16, the export is scored, and exported again, to the same bytes, with a card. The card includes
fairseq_lambda/pretrained/NAME.md, a text on data, licence and limits. Intermediate files stay in outputs/ship/NAME.
A second run repeats BLiMP only if the weights have changed.

  CHECKPOINT     training folder, of which the best checkpoint is used, or checkpoint file
  DATA           the folder that it was trained on, made by scripts/preprocess_wikitext.sh
  BLIMP          BLiMP's data folder, or an archive of it

environment:
  PYTHON         interpreter with the requirements (python3)
HELP
  exit 0
fi
[[ $# == 4 ]] || { echo "error: $# arguments, but four are needed: CHECKPOINT NAME DATA BLIMP (--help)" >&2; exit 2; }

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
checkpoint=$1 name=$2 data=$3 blimp=$4
work="outputs/ship/$name" target="$root/fairseq_lambda/pretrained/$name"
lambda_bert() { "$root/scripts/lambda_bert.sh" "$@"; }
[[ -f "$target.md" ]] || { echo "error: $target.md is missing: put the card's text about the data there" >&2; exit 2; }

rm -rf -- "${work:?}/$name"
lambda_bert export "$checkpoint" --dest "$work/$name" --dtype float16
lambda_bert evaluate "$work/$name" --data "$data" --json "$work/evaluation.json"
weights="$(sha256sum "$work/$name/model.safetensors" | head -c 12)"
lambda_bert blimp "$work/$name" "$blimp" --dest "$work/blimp-$weights"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "${PYTHON:-python3}" "$root/benchmarks/quality/facts.py" \
  "$work/$name" --data "$data" --out "$work"

rm -rf -- "$target"
lambda_bert export "$work/$name" --dest "$target" --dtype float16 --about "$target.md" \
  --scores "$work/evaluation.json" "$work/blimp-$weights/scores.json" "$work/facts.jsonl"
