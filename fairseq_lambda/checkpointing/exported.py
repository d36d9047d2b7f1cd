"""An exported model on disk: weights as safetensors, everything else as text, so that no pickle is passed on."""

import json
import shutil
from pathlib import Path

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.files import sha256
from fairseq_lambda.version import KEY

WEIGHTS, CONFIG, DICTIONARY, PIECES = "model.safetensors", "config.json", "dict.txt", "sentencepiece.model"
CHECKPOINTS = (WEIGHTS, "model.pt", "checkpoint_best.pt", "checkpoint_last.pt")
SHIPPED = Path(__file__).parents[1] / "pretrained"  # a folder per model that comes with this package


def shipped_names() -> list[str]:
    """Return the names of the models that come with this package."""
    return sorted(weights.parent.name for weights in SHIPPED.glob(f"*/{WEIGHTS}"))


def find_checkpoint(folder, checkpoint_file: str | None = None) -> Path:
    """Return the path of ``checkpoint_file`` in the folder, by default the first of ``CHECKPOINTS`` that is there.

    Args:
        folder: a training folder, an exported one, a checkpoint file, or the name of a model that comes with this
            package; a folder with that name is preferred.
        checkpoint_file: a name in the folder.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = Path(folder)
    if not folder.exists() and str(folder) in shipped_names():
        folder = SHIPPED / folder
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; give a training folder, an exported one, or an included model: "
            + ", ".join(shipped_names())
        )
    names = CHECKPOINTS if checkpoint_file is None else (checkpoint_file,)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if seeds := sorted(path.parent.name for path in folder.glob("seed-*/checkpoint_*.pt")):
        raise FileNotFoundError(
            f"{folder} holds a model per seed: name one of its folders, such as {folder / seeds[0]}"
        )
    raise FileNotFoundError(
        f"{folder} holds no {' or '.join(names)}; train first (scripts/train_lambda_bert.sh), "
        "or name a file with checkpoint_file="
    )


def is_exported(path: str | Path) -> bool:
    """Return whether a checkpoint's name is that of an exported model's weights."""
    return Path(path).suffix == Path(WEIGHTS).suffix


def write_exported(folder: Path, weights: dict[str, Tensor], config: dict, dtype: torch.dtype | None = None) -> None:
    """Write ``model.safetensors`` and ``config.json``, which lists the SHA-256 of all other files of the folder.

    Weights that share their memory, as the masked-LM head does with the embeddings, are written once; ``tied`` in the
    configuration names the others. safetensors has no checksum of its own: hence the list.

    Args:
        folder: with ``dict.txt`` and, if there is one, ``sentencepiece.model`` in it.
        weights: a model's ``state_dict()``.
        config: at least ``model``, ``task``, ``criterion`` and ``updates``, plain values; optionally ``task_state``,
            what the task stores except symbols and pieces.
        dtype: of the weights in the file; loading converts them to the model's. Default: as they are.

    Raises:
        ValueError: a weight is too large for ``dtype``.
    """
    first: dict[int, str] = {}
    tied = {}
    for name, weight in weights.items():
        if weight.numel() and first.setdefault(weight.data_ptr(), name) != name:
            tied[name] = first[weight.data_ptr()]
    save_file({n: _stored(n, w, dtype) for n, w in weights.items() if n not in tied}, folder / WEIGHTS)
    shutil.copymode(folder / DICTIONARY, folder / WEIGHTS)  # safetensors makes it readable by its owner only
    sums = {name: sha256(folder / name) for name in (WEIGHTS, DICTIONARY, PIECES) if (folder / name).is_file()}
    (folder / CONFIG).write_text(json.dumps({**config, "tied": tied, "sha256": sums}, indent=2, default=str) + "\n")


def _stored(name: str, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    weight = weight.detach().cpu().contiguous()
    if dtype is None or not weight.is_floating_point():
        return weight
    rounded = weight.to(dtype)
    if not torch.equal(rounded.isfinite(), weight.isfinite()):
        raise ValueError(
            f"{name} holds {weight.abs().max():.4g}, and {str(dtype).removeprefix('torch.')} ends at "
            f"{torch.finfo(dtype).max:.0f}: export it as float32"
        )
    return rounded


def read_exported(path: Path) -> dict:
    """Return the model at ``path``, a ``model.safetensors``, as the part of fairseq's state that loading needs.

    Raises:
        CheckpointError: a file of the folder is missing or not as it was exported.
    """
    folder = path.parent
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        present = [name for name in (WEIGHTS, DICTIONARY, PIECES) if (folder / name).is_file()]
        if unlisted := set(present) - config["sha256"].keys():
            raise ValueError(f"{unlisted.pop()} is not among the files that were exported")
        for name, expected in config["sha256"].items():
            if sha256(folder / Path(name).name) != expected:
                raise ValueError(f"{name} is not as it was exported")
        weights = load_file(path)
        for name, source in config["tied"].items():
            weights[name] = weights[source]
        return {
            "cfg": OmegaConf.create({part: config[part] for part in ("model", "task", "criterion")}),
            "model": weights,
            "task_state": {
                **config.get("task_state", {}),
                "symbols": Dictionary.load(str(folder / DICTIONARY)).symbols,
            },
            "optimizer_history": [{"num_updates": config["updates"]}],
            "extra_state": {KEY: config.get(KEY), "train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        }
    except Exception as error:  # json, safetensors and fairseq's dictionary each raise their own
        reason = f"{type(error).__name__} {str(error).strip()}".splitlines()[0]
        raise CheckpointError(f"{path} cannot be read as an exported model: {reason}; export it again") from error
