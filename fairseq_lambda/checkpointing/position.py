"""Where in an epoch a run resumes: fairseq counts the batches that each process has had, whatever is in them."""

import os
from pathlib import Path

# Options that determine which samples an epoch has, or how they are divided into batches.
OF_BATCHES = {
    "common": ("seed",),
    "dataset": ("batch_size", "max_tokens", "required_batch_size_multiple"),
    "task": ("data", "tokens_per_sample", "short_sample_prob", "pack_documents", "max_length", "max_positions"),
}


def batches_had(state: dict) -> int:
    """Return how many batches of the current epoch all processes together had when ``state`` was saved."""
    processes = state["cfg"]["distributed_training"]["distributed_world_size"]
    return processes * state["extra_state"]["train_iterator"].get("iterations_in_epoch", 0)


def changes(state: dict, path: Path, cfg, processes: int) -> list[str]:
    """Return a line for each way in which the rest of the epoch is not what it would have been.

    fairseq skips as many batches as were had. If other batches are meant, their samples are others too, and a position
    counted in samples would not help: the batches, not the samples, are shuffled.

    Args:
        state: of the checkpoint at ``path``.
        cfg: fairseq's configuration of this run.
        processes: how many this run has.
    """
    had, lines = batches_had(state), []
    before = state["cfg"]["distributed_training"]["distributed_world_size"]
    if again := had % processes:
        lines.append(
            f"{path} was written by {before} processes, but {processes} resume: {again} of the {had} batches of this "
            "epoch so far will be seen again"
        )
    changed = []
    for section, names in OF_BATCHES.items():
        theirs = state["cfg"].get(section) or {}
        for name in names:
            if name in theirs and name in cfg[section] and not _same(name, theirs[name], cfg[section][name]):
                flag = name if name == "data" else "--" + name.replace("_", "-")
                changed.append(f"{flag} {theirs[name]}, now {cfg[section][name]}")
    if had and changed:
        lines.append(
            f"{path} was saved after {had} batches of an epoch with {', '.join(changed)}: until the end of this epoch, "
            "some samples may be seen twice and others not at all"
        )
    return lines


def _same(name: str, before, now) -> bool:
    if before == now or name != "data":
        return before == now
    folders, others = ([Path(part) for part in data.split(os.pathsep)] for data in (before, now))
    return len(folders) == len(others) and all(_same_folder(*pair) for pair in zip(folders, others, strict=True))


def _same_folder(before: Path, now: Path) -> bool:
    """Return whether the folder is the same, or was moved: it is gone, and the other one has its name."""
    return before.resolve() == now.resolve() or (not before.exists() and before.name == now.name)
