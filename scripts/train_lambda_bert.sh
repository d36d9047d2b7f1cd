#!/usr/bin/env bash
# Pretrains a lambda_bert with fairseq-train: a recipe per size, on the CPU, one GPU or several.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: scripts/train_lambda_bert.sh {tiny|mini|small|medium|base|large} DATA [options] [fairseq-train flags]

Launches fairseq-train with the recipe of the size, prints the command, and goes on where it stopped when it is
run again. DATA is a folder made by scripts/preprocess_wikitext.sh. Flags that are not listed here go to
fairseq-train as they are and win over the recipe, such as --lr 5e-4 or --lambda-layers none (the softmax twin).

  --save-dir DIR        checkpoints (default: checkpoints/lambda_bert_SIZE-NAME_OF_DATA)
  --updates N           updates, and end of the learning rate's decay (default: by size)
  --nproc N             processes: GPUs, or CPU ranks (default: all GPUs, 1 without a GPU)
  --torchrun "ARGS"     arguments for torchrun, such as "--standalone --max-restarts 3" or several machines (README.md)
  --dry-run             print the command only

  size     tokens  batch a process  updates    learning rate
  tiny        128       32            1,000    2e-3
  mini        128       32            1,000    2e-3
  small       128       32            3,000    1e-3
  medium      512       32           20,000    7e-4
  base        512       32          100,000    5e-4
  large       512       16          100,000    3e-4

On a CPU the run is given tcmalloc, where that is installed (Debian's libtcmalloc-minimal4) and LD_PRELOAD is not set.
Precision is bfloat16 autocast where the processor or the GPU multiplies bfloat16, else float32; say
--autocast none or --autocast bfloat16 to choose. The environment variable PYTHON names the interpreter (python3).
HELP
}

die() { echo "error: $*" >&2; exit 2; }

if [[ $# -eq 0 || "$1" == "-h" || "$1" == "--help" ]]; then
  usage
  exit 0
fi
[[ $# -ge 2 ]] || die "a size and a data folder are needed; see --help"
size=$1
data=$2
shift 2

case "$size" in
  tiny | mini) tokens=128 batch=32 updates=1000 lr=2e-3 ;;
  small) tokens=128 batch=32 updates=3000 lr=1e-3 ;;
  medium) tokens=512 batch=32 updates=20000 lr=7e-4 ;;
  base) tokens=512 batch=32 updates=100000 lr=5e-4 ;;
  large) tokens=512 batch=16 updates=100000 lr=3e-4 ;;
  *) die "unknown size '$size': tiny, mini, small, medium, base or large" ;;
esac

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || die "no Python at '$python': set PYTHON to the one with the requirements"
[[ -f "$data/dict.txt" ]] || die "$data holds no dict.txt: make it with scripts/preprocess_wikitext.sh"

name="$(basename -- "$(cd -- "$data" && pwd)")"
save_dir="checkpoints/lambda_bert_$size-$name"
nproc="" dry_run="" autocast="" torchrun=""
extra=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --save-dir | --updates | --nproc | --autocast | --torchrun)
      [[ $# -ge 2 ]] || die "$1 needs a value"
      case "$1" in
        --save-dir) save_dir=$2 ;;
        --updates) updates=$2 ;;
        --nproc) nproc=$2 ;;
        --autocast) autocast=$2 ;;
        --torchrun) torchrun=$2 ;;
      esac
      shift 2
      ;;
    --dry-run) dry_run=yes; shift ;;
    *) extra+=("$1"); shift ;;
  esac
done
[[ "$updates" =~ ^[1-9][0-9]*$ ]] || die "--updates $updates: a number of at least 1"
[[ -z "$nproc" || "$nproc" =~ ^[1-9][0-9]*$ ]] || die "--nproc $nproc: a number of at least 1"

# One question to Python: how many GPUs, does the device multiply bfloat16, and which allocator may a CPU have?
read -r gpus bf16 malloc < <("$python" - <<'PY'
from ctypes.util import find_library

import torch

gpus = torch.cuda.device_count()
if gpus:
    fast = torch.cuda.is_bf16_supported()
else:
    try:
        flags = open("/proc/cpuinfo").read()
    except OSError:
        flags = ""
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
malloc = None if gpus else find_library("tcmalloc_minimal") or find_library("tcmalloc")
print(gpus, "bfloat16" if fast else "none", malloc or "")
PY
) || die "'$python' cannot import torch: install the requirements (README.md), or set PYTHON"
nproc="${nproc:-$((gpus > 1 ? gpus : 1))}"
autocast="${autocast:-$bf16}"
# oneDNN makes a kernel for each shape of a bfloat16 product and keeps 1,024: of sixty lengths they would be too many
length_multiple=1
[[ "$autocast" == none ]] || length_multiple=8
warmup=$((updates / 10 > 1000 ? 1000 : updates / 10))

train=("$python" -m fairseq_lambda.commands.train)
if ((nproc > 1)) || [[ -n "$torchrun" ]]; then
  [[ -n "$torchrun" ]] || torchrun="--standalone"
  read -ra torchrun_arguments <<<"$torchrun"
  # torchrun's store outlives a restart of its processes, which then look for each other at addresses of the dead ones.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  train=("$python" -m torch.distributed.run "${torchrun_arguments[@]}" --nproc-per-node "$nproc" -m fairseq_lambda.commands.train)
fi
device=()
((gpus > 0)) || device=(--cpu)

command=(
  "${train[@]}" "$data" --user-dir "$root/fairseq_lambda"
  --task masked_lm_sop --criterion masked_lm_sop --arch "lambda_bert_$size"
  --tokens-per-sample "$tokens" --batch-size "$batch" --required-batch-size-multiple 1
  --required-seq-len-multiple "$length_multiple"
  --optimizer adam --adam-betas "(0.9, 0.98)" --adam-eps 1e-6 --clip-norm 1.0 --weight-decay 0.01
  --lr-scheduler polynomial_decay --lr "$lr" --warmup-updates "$warmup"
  --max-update "$updates" --total-num-update "$updates"
  --dropout 0.0 --autocast "$autocast"
  --save-dir "$save_dir" --save-interval-updates "$((updates < 5000 ? 500 : 2000))"
  --keep-interval-updates 1 --no-epoch-checkpoints --best-checkpoint-metric mlm_loss
  --num-workers 1 --log-format simple --log-interval 50
  "${device[@]}" "${extra[@]}"
)
printf '%q ' "${command[@]}"
echo
[[ -z "$dry_run" ]] || exit 0
[[ -z "$malloc" ]] || export LD_PRELOAD="${LD_PRELOAD-$malloc}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# Warnings of torch about calls inside fairseq, which a user of either can do nothing about.
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::FutureWarning,ignore::UserWarning}"
exec "${command[@]}"
