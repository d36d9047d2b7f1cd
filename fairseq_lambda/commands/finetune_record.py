"""What a fine-tuning was started with, so that another command does not pass for it."""

import json
from pathlib import Path

from fairseq_lambda.commands.train import FLOAT16
from fairseq_lambda.files import whole

FILE = "training.json"
# Flags that may change: how long it trains, on what machine, with what precision, where files are, what is logged
HARMLESS = FLOAT16 | {
    "--max-epoch", "--max-update", "--total-num-update", "--warmup-updates", "--patience", "--autocast", "--cpu",
    "--required-seq-len-multiple", "--lambda-backend", "--checkpoint-activations", "--num-workers",
    "--persistent-workers", "--data-buffer-size", "--user-dir", "--finetune-from-model", "--all-gather-list-size",
    "--batch-size-valid", "--max-tokens-valid", "--maximize-best-checkpoint-metric",
    "--standalone", "--nproc-per-node",
}  # fmt: skip
HARMLESS_PREFIXES = tuple(f"--{name}-" for name in "log tensorboard wandb save keep no reset distributed".split())
OWN_NAMES = {"--best-checkpoint-metric": "--metric"}  # of lambda-bert finetune


def made_by(command: list[str], model: str) -> dict[str, str]:
    """Return what a training depends on: flags of its command, and ``model``, the SHA-256 of where it starts."""
    flags, name = {}, None
    for word in command:
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            name = OWN_NAMES.get(name, name)
            flags[name] = value if has_value else ""
        elif name is not None:
            flags[name] = word
    flags = {k: v for k, v in flags.items() if k not in HARMLESS and not k.startswith(HARMLESS_PREFIXES)}
    return {"model": model, **flags}


def check(folder: Path, now: dict[str, str]) -> None:
    """Write ``training.json`` into ``folder`` if no training has saved anything there yet; else compare with it.

    A training of an older version, which has saved checkpoints without such a file, is left as it is.

    Raises:
        ValueError: the training was made by something else.
    """
    file = folder / FILE
    if not any(folder.glob("checkpoint*.pt")):
        with whole(file) as unfinished:
            unfinished.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    elif file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}): choose another --save-dir") from error
        keys = sorted({*before, *now})
        differing = [_shown(key, before, now) for key in keys if _plain(before.get(key)) != _plain(now.get(key))]
        if differing:
            raise ValueError(f"{folder} holds a fine-tuning with {'; '.join(differing)}: choose another --save-dir")


def _plain(value: str | None) -> float | str | None:
    """Return the same for 1e-4 and 0.0001."""
    try:
        return float(value)
    except (ValueError, TypeError):
        return value


def _shown(key: str, before: dict[str, str], now: dict[str, str]) -> str:
    if key == "model":
        return "another model"
    old, new = (f"{key} {flags[key]}".strip() if key in flags else f"no {key}" for flags in (before, now))
    return f"{old}, now {new}"
