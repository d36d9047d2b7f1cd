"""``lambda-bert export``: makes a folder to share from a training run."""

import json
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from fairseq_lambda.checkpointing.exported import CONFIG, WEIGHTS, find_checkpoint, is_exported, write_exported
from fairseq_lambda.commands.card import card, data_name, fine_tuned_card
from fairseq_lambda.commands.card_scores import read_scores
from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.files import check_destination, sha256, whole_folder
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.loading import load_checkpoint
from fairseq_lambda.version import KEY, version_of

PARTS = ("model", "task", "criterion")  # of the configuration; the rest is about the training machine


def export(
    checkpoint: str | Path,
    destination: Path,
    scores: dict | None = None,
    dtype: torch.dtype = torch.float32,
    about: str | None = None,
    force: bool = False,
) -> dict:
    """Write model.safetensors, dict.txt, sentencepiece.model, config.json and a card; return the config.

    The folder appears whole or not at all. Paths of the training machine are taken out of the configuration.

    Args:
        checkpoint: what :func:`find_checkpoint` takes.
        destination: the folder to make.
        scores: for the card, see :func:`read_scores`.
        dtype: of the weights in the file.
        about: Markdown for the card, on what no checkpoint holds: data, licence, limits (default: that of an exported
            ``checkpoint``).
        force: replace an earlier export at the destination.

    Raises:
        FileExistsError: the destination already exists, and ``force`` does not replace it.
        FileNotFoundError, ValueError: no checkpoint, or not one of this plugin.
    """
    check_destination(destination, force, CONFIG)
    path = find_checkpoint(checkpoint)
    hub = LambdaBertModel.from_pretrained(path)
    state = load_checkpoint(path)
    updates = (state.get("optimizer_history") or [{}])[-1].get("num_updates")
    cfg = state["cfg"]
    known = origin(path, cfg)
    cfg.task.data = "."
    parameters = sum(p.numel() for p in hub.model.parameters())
    # as plain dictionaries, the way fairseq saves
    parts = {part: OmegaConf.to_container(cfg[part], resolve=True, enum_to_str=True) for part in PARTS}
    config = {
        KEY: version_of(state),
        **parts,
        **known,
        "parameters": parameters,
        "updates": updates,
        "dtype": str(dtype).removeprefix("torch."),
        "scores": scores,
        "about": about or known["about"],
    }
    labels = getattr(hub.task, "labels", None)
    if labels is not None:
        config["task_state"] = {"labels": labels.state(), "max_length": hub.task.max_length}
        if scores:
            config["data"] = scores.get("data", known["data"])

    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(destination) as part:
        hub.task.source_dictionary.save(str(part / "dict.txt"))
        if hub.bpe is not None:
            (part / "sentencepiece.model").write_bytes(hub.bpe.processor.serialized_model_proto())
        write_exported(part, hub.model.state_dict(), config, dtype)
        make = card if labels is None else partial(fine_tuned_card, labels=labels)
        (part / "README.md").write_text(make(destination.name, config, part / WEIGHTS), encoding="utf-8")
    return config


def origin(path: Path, cfg) -> dict:
    """Return ``data``, ``training`` and ``about``: the data, its use and the card's text, which an export keeps."""
    if is_exported(path):
        kept = json.loads((path.parent / CONFIG).read_text(encoding="utf-8"))
        return {key: kept.get(key) for key in ("data", "training", "about")}
    return {"data": data_name(str(cfg.task.data)), "training": training(cfg), "about": None}


def training(cfg) -> dict:
    """Return batch, precision, optimizer and schedule of a run, None where fairseq's configuration does not say."""
    batch = OmegaConf.select(cfg, "dataset.batch_size")
    is_float16 = any(OmegaConf.select(cfg, f"common.{name}") for name in ("fp16", "memory_efficient_fp16", "amp"))
    if OmegaConf.select(cfg, "dataset.max_tokens") is not None:  # which decides how many samples there are
        batch = None
    if batch is not None:
        often, ranks = OmegaConf.select(cfg, "optimization.update_freq"), "distributed_training.distributed_world_size"
        batch *= (often or [1])[0] * (OmegaConf.select(cfg, ranks) or 1)
    schedule = OmegaConf.to_container(OmegaConf.select(cfg, "lr_scheduler") or OmegaConf.create(), resolve=True)
    schedule = {key: value for key, value in schedule.items() if key not in ("lr", "max_update")}  # said elsewhere
    return {
        "samples_per_update": batch,
        "precision": "float16" if is_float16 else OmegaConf.select(cfg, "criterion.autocast"),
        "optimizer": OmegaConf.select(cfg, "optimizer._name"),
        "learning_rate": (OmegaConf.select(cfg, "optimization.lr") or [None])[0],
        "schedule": {key.strip("_"): value for key, value in schedule.items() if value is not None},
    }


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert export checkpoints/my-run --dest my-bert --scores scores.json"
    parser = Parser("export", __doc__.split(": ", 1)[1], example)
    add = parser.add_argument
    add("checkpoint", help=MODEL)
    add("--dest", type=Path, required=True, help="folder to make")
    add("--force", action="store_true", help="replace the folder if it exists")
    add(
        "--dtype", choices=("float32", "float16"), default="float32",
        help="type of the stored weights; float16 halves the file and is loaded as float32 (default: %(default)s)",
    )  # fmt: skip
    add(
        "--scores", type=Path, nargs="+", metavar="FILE",
        help="scores of CHECKPOINT for the card, from lambda-bert evaluate --json, lambda-bert blimp or "
        "benchmarks/quality/facts.py (default: a scores.json in CHECKPOINT)",
    )  # fmt: skip
    add(
        "--about",
        type=Path,
        metavar="FILE",
        help="Markdown text for the card, such as data, licence, limits (default: none)",
    )
    args = parser.parse_args(argv)
    own = Path(args.checkpoint, "scores.json")
    files = args.scores or ([own] if own.is_file() else [])
    scores = read_scores(files, sha256(find_checkpoint(args.checkpoint))) if files else None
    about = None if args.about is None else args.about.read_text(encoding="utf-8")
    config = export(args.checkpoint, args.dest, scores, getattr(torch, args.dtype), about, args.force)
    names = ", ".join(sorted(p.name for p in args.dest.iterdir()))
    print(f"exported {config['parameters']:,} parameters to {args.dest}: {names}")
