"""The time of an update of each model of a comparison, all of them in turns in one process."""

import itertools
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from measuring import ROOT, interleaved, setting
from quality_runs import Comparison, precision_of
from trainers import make_trainer

REPEATS = 25


def time_updates(comparison: Comparison, data: Path, models: list[str], repeats: int = REPEATS) -> dict:
    """Return the median seconds of an update of each model, with the recipe's flags and the first batch of its data."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = comparison.seeds[0]
    logging.disable(logging.INFO)
    functions, commands = {}, []
    for name in models:
        commands.append(recipe(comparison, name, data))
        trainer = make_trainer(commands[-1], seed)
        trainer.task.load_dataset("train")
        batches = trainer.get_train_iterator(epoch=1, load_dataset=False).next_epoch_itr(shuffle=True)
        functions[name] = lambda trainer=trainer, batch=next(batches): trainer.train_step([batch])
    logging.disable(logging.NOTSET)
    seconds = interleaved(functions, device, repeats)
    return {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "updates": repeats,
        "setting": {"precision": precision_of(" ".join(itertools.chain(*commands)))} | setting(device, seed),
    }


def recipe(comparison: Comparison, model: str, data: Path) -> list[str]:
    """Return the flags of fairseq-train that scripts/train_lambda_bert.sh would launch the model's first run with."""
    run = comparison.run(model, comparison.lr[0], comparison.seeds[0])
    command = [ROOT / "scripts/train_lambda_bert.sh", comparison.size, data, "--dry-run", "--updates", run.updates]
    environment = {**os.environ, "PYTHON": sys.executable}
    line = subprocess.run(
        [str(c) for c in (*command, *run.flags)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    words = shlex.split(line)
    return words[words.index("fairseq_lambda.commands.train") + 1 :]
