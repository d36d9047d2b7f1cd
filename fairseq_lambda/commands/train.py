"""``lambda-bert train``: launches fairseq-train with the recipe of a size, on the CPU, one GPU or several."""

import argparse
import os
import platform
import re
import shlex
import sys
from ctypes.util import find_library
from pathlib import Path

import torch
from omegaconf import DictConfig

from fairseq_lambda.commands.flags import last_value, recipe_flags
from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.config import SIZES, read_recipe, schedule
from fairseq_lambda.hardware import bfloat16_is_faster

# glibc returns the memory of large tensors to the system when they are freed, and gets it back page by page at the next
# step. From 2.35 on it takes any threshold; earlier versions would refuse this one and return even more.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**31), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
FLOAT16 = {"--fp16", "--memory-efficient-fp16", "--amp"}
DESCRIPTION = """\
Prints a fairseq-train command with the recipe of the size, and runs it. The same command resumes where a run stopped.
All flags that are not listed here are passed to fairseq-train and override the recipe, such as --lr 5e-4 or
--lambda-layers none (attention layers). Another --lr-scheduler or --optimizer starts from fairseq's defaults for it,
but adam keeps the recipe's options of fused_adam.

{table}

On a CPU the run uses tcmalloc, if it is installed (Debian's libtcmalloc-minimal4) and LD_PRELOAD is not set. Otherwise
glibc is told to keep freed memory (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_)."""


def build_parser() -> Parser:
    rows = ["size     tokens  batch per process  updates  learning rate"]
    for size in SIZES:
        recipe = read_recipe(size)
        rows.append(
            f"{size:<9}{recipe.task.tokens_per_sample:>6}{recipe.dataset.batch_size:>19}"
            f"{recipe.optimization.max_update:>9,}{recipe.optimization.lr[0]:>15}"
        )
    description = DESCRIPTION.format(table="\n".join(f"  {row}" for row in rows))
    parser = Parser("train", description, "lambda-bert train mini data-bin/wikitext-2 --updates 3000 --dropout 0.1")
    add = parser.add_argument
    add("size", help=f"size of the model: {', '.join(SIZES)}")
    add("data", help="folder made by lambda-bert preprocess, or several joined by colons, one per epoch in turn")
    add("--save-dir", help="folder for checkpoints (default: checkpoints/lambda_bert_SIZE-NAME_OF_DATA)")
    add("--updates", help="number of updates, over which the learning rate decays (default: by size)")
    add("--nproc", help="number of processes, one per GPU or several on the CPU (default: all GPUs, 1 without a GPU)")
    add(
        "--torchrun", metavar="ARGS",
        help='arguments for torchrun, such as "--standalone --max-restarts 3"; several machines: docs/long-runs.md',
    )  # fmt: skip
    add(
        "--autocast", choices=("none", "bfloat16"),
        help="precision (default: bfloat16 if the processor or the GPU is faster in it, none with --fp16 or --amp)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="only print the command")
    return parser


def main(argv: list[str]) -> None:
    parser = build_parser()
    args, user = parser.parse_known_args(_join_torchrun(argv) or ["--help"])
    for flag, value in (("--updates", args.updates), ("--nproc", args.nproc)):
        if value is not None and not re.fullmatch("[1-9][0-9]*", value):
            parser.error(f"{flag} {value}: must be a whole number of at least 1")
    try:
        recipe = read_recipe(args.size)
    except ValueError as error:
        parser.error(str(error))
    for folder in args.data.split(os.pathsep):
        if not Path(folder, "dict.txt").is_file():
            problem = "holds no dict.txt" if Path(folder).is_dir() else "is not a folder"
            parser.error(f"{folder or args.data} {problem}: make it with lambda-bert preprocess")
    gpus = 0 if "--cpu" in user else torch.cuda.device_count()
    command = launcher(args.nproc or str(max(gpus, 1)), args.torchrun) + fairseq_arguments(recipe, args, user, gpus)
    print(shlex.join(command), flush=True)
    if not args.dry_run:
        os.execvpe(command[0], command, environment(gpus))


def _join_torchrun(argv: list[str]) -> list[str]:
    """argparse would take the value in ``--torchrun --standalone`` for another flag, but not after ``--torchrun=``."""
    if "--torchrun" in argv[:-1]:
        at = argv.index("--torchrun")
        return [*argv[:at], f"--torchrun={argv[at + 1]}", *argv[at + 2 :]]
    return argv


def launcher(nproc: str, torchrun: str | None) -> list[str]:
    """Return the command that runs fairseq-train in ``nproc`` processes."""
    train = ["-m", "fairseq_lambda.commands.fairseq_train"]
    if nproc == "1" and not torchrun:
        return [sys.executable, *train]
    run = [sys.executable, "-m", "torch.distributed.run", *shlex.split(torchrun or "--standalone")]
    return [*run, "--nproc-per-node", nproc, *train]


def fairseq_arguments(recipe: DictConfig, args: argparse.Namespace, user: list[str], gpus: int) -> list[str]:
    """Return the arguments of fairseq-train: the recipe where the user's flags do not override it, and these flags."""
    updates = args.updates or last_value(user, "--max-update") or ""
    if re.fullmatch("[1-9][0-9]*", updates):
        recipe.merge_with(schedule(int(updates)))
    autocast = args.autocast
    if autocast is None:
        fast = bfloat16_is_faster("cuda" if gpus else "cpu") and FLOAT16.isdisjoint(user)
        autocast = "bfloat16" if fast else "none"
    recipe.criterion.autocast = autocast
    # oneDNN makes a kernel for each shape of a bfloat16 product and caches 1,024: sixty lengths would need more
    recipe.dataset.required_seq_len_multiple = 1 if autocast == "none" else 8
    first, *others = args.data.split(os.pathsep)
    name = Path(os.path.abspath(first)).name + (f"+{len(others)}" if others else "")
    recipe.checkpoint.save_dir = args.save_dir or f"checkpoints/lambda_bert_{args.size}-{name}"
    device = [] if gpus or "--cpu" in user else ["--cpu"]
    return [args.data, *recipe_flags(recipe, user), *device, *user]


def environment(gpus: int) -> dict[str, str]:
    """Return the environment for the training: variables that have to be there when a process starts."""
    new = {
        # torchrun's store outlives its processes: those of a restart would look for each other at the old addresses
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # torch warns about calls inside fairseq, which a user can do nothing about
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::UserWarning",
    }
    if gpus == 0 and sys.platform == "linux":
        malloc = find_library("tcmalloc_minimal") or find_library("tcmalloc")
        if malloc:
            new["LD_PRELOAD"] = malloc
        elif _glibc() >= (2, 35) and KEEPS_MEMORY.keys().isdisjoint(os.environ):
            new |= KEEPS_MEMORY
    return new | os.environ


def _glibc() -> tuple[int, ...]:
    """Return the version of glibc that this Python runs with, (0,) for another C library."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else (0,)
