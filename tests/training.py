"""Real trainings with fairseq-train, in this process: tiny model, toy corpus, a few seconds."""

import json
import sys
from pathlib import Path

import torch
from conftest import make_dictionary, random_documents, write_split
from fairseq import checkpoint_utils

from fairseq_lambda.checkpointing import lock
from fairseq_lambda.checkpointing.reading import weights_only

PACKAGE = Path(__file__).parents[1] / "fairseq_lambda"
MODEL = "--encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --lambda-key-depth 4 --lambda-local-context 7".split()
TIMES = ("wall", "train_wall", "wps", "ups")  # differ from run to run


def write_data(folder, documents=40, words=50):
    """Binarise a toy corpus of 84 samples of at most 32 tokens; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    make_dictionary(words).save(str(folder / "dict.txt"))
    for seed, (split, count) in enumerate({"train": documents, "valid": 7}.items()):
        write_split(folder, split, random_documents(count, seed, words))
    return folder


def arguments(data, save_dir, updates, *flags, of=None):
    """Return the command line of a run of ``updates`` updates, the first of a schedule of ``of``."""
    argv = ["fairseq-train", str(data), "--user-dir", str(PACKAGE), "--task", "masked_lm_sop"]
    argv += ["--criterion", "masked_lm_sop", "--arch", "lambda_bert_tiny", *MODEL]
    argv += [] if "--task" in flags else ["--tokens-per-sample", "32"]  # of our task
    argv += "--optimizer adam --lr 1e-2 --lr-scheduler polynomial_decay --warmup-updates 5 --batch-size 4".split()
    argv += "--required-batch-size-multiple 1 --cpu --best-checkpoint-metric mlm_loss".split()
    argv += ["--absolute-positions", "learned"]  # so that of 10 updates the last is the best, and lengths have a limit
    argv += ["--max-update", str(updates), "--total-num-update", str(of or updates), "--num-workers", "0"]
    return [*argv, "--save-dir", str(save_dir), "--log-format", "json", "--log-interval", "1", *map(str, flags)]


def train(data, save_dir, updates, *flags, of=None):
    """Run fairseq-train as a new process would."""
    from fairseq_cli import train as fairseq_train

    for function, name in ((checkpoint_utils.save_checkpoint, "best"), (fairseq_train.should_stop_early, "best")):
        if hasattr(function, name):  # fairseq keeps its state on the functions
            delattr(function, name)
    old, sys.argv = sys.argv, arguments(data, save_dir, updates, *flags, of=of)
    try:
        fairseq_train.cli_main()
    finally:
        sys.argv = old
        lock.release(Path(save_dir))  # as the end of a process does


def logged(caplog):
    """Return what training and validation have logged, without the times, and clear it."""
    lines = [(name, text) for name, _, text in caplog.record_tuples if name in ("train", "train_inner", "valid")]
    caplog.clear()
    lines = [(name, json.loads(text)) for name, text in lines if text.startswith("{")]
    return [(name, {k: v for k, v in line.items() if not k.endswith(TIMES)}) for name, line in lines]


def load(save_dir, name="checkpoint_last.pt"):
    with weights_only():
        return torch.load(Path(save_dir) / name, weights_only=True)


def differences(one, two, path=""):
    """Return where two nested states are not bit-equal."""
    if type(one) is not type(two):
        return [f"{path}: {type(one)} {type(two)}"]
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == two.dtype and torch.equal(one, two) else [path]
    if isinstance(one, list | tuple):
        one, two = dict(enumerate(one)), dict(enumerate(two))
    if not isinstance(one, dict):
        return [] if one == two else [f"{path}: {one} {two}"]
    found = [f"{path}/{key}: in one of the two" for key in one.keys() ^ two.keys()]
    return found + [d for key in one.keys() & two.keys() for d in differences(one[key], two[key], f"{path}/{key}")]


def state_of_training(save_dir, name="checkpoint_last.pt"):
    """Return the part of a checkpoint that the rest of a run depends on: no times, paths or history of restarts."""
    state = load(save_dir, name)
    history, extra = state["optimizer_history"][-1], state["extra_state"]
    return {
        **{key: state[key] for key in ("model", "last_optimizer_state")},
        **{key: history[key] for key in ("num_updates", "lr_scheduler_state")},
        **{key: extra[key] for key in ("train_iterator", "best")},
    }
