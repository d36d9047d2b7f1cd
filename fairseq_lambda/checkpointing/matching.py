"""Whether a checkpoint fits the run that is about to load it."""

from pathlib import Path

from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.symbols import difference


def check_match(state: dict, path: Path, task, model, with_optimizer: bool = True) -> None:
    """Check that ``state`` was trained with this dictionary and this architecture.

    fairseq's trainer never calls ``task.load_state_dict``. It would resume with another dictionary of the same size,
    in which every embedding belongs to a different word.

    Args:
        with_optimizer: the optimizer's state is loaded too, so every weight must be there under its name. Otherwise a
            sentence head may be missing, or present but unused.

    Raises:
        CheckpointError: it was not; the message names the first difference.
    """
    theirs = state["task_state"].get("symbols")
    if theirs is None and "symbols" in task.state_dict() and hasattr(task, "HARMLESS_OPTIONS"):  # a task of ours
        raise CheckpointError(f"{path} cannot be read as a checkpoint of this task: its task_state has no symbols")
    try:
        task.load_state_dict(state["task_state"])
        if theirs is not None and (found := difference(theirs, task.source_dictionary.symbols)):
            raise ValueError(f"it was trained with another dictionary: {found}. Use data binarised with its dict.txt")
        if with_optimizer and hasattr(task, "check_resumed"):
            task.check_resumed(state["task_state"])
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from error

    remedy = "train with the flags of the checkpoint, or start afresh with another --save-dir"
    cfg = state["cfg"]
    try:
        different = model.differing_options(cfg.get("model") or {})
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from error
    if with_optimizer:
        different += _differing_task(cfg.get("task") or {}, task)
    if different and not with_optimizer:  # a new run, which can still be given another architecture
        flags = [flag if there is True else f"{flag} {there}" for flag, there, _ in different if there]
        remedy = f"add {' '.join(flags)}" if flags else "leave that flag out"
    for flag, there, here in different:
        raise CheckpointError(
            f"{path} does not fit: it was trained with {flag} {there}, and this run has {here}: {remedy}"
        )
    weights = dict(state["model"])
    try:
        model.upgrade_older_state({"model": weights})
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from error
    if not with_optimizer:
        model.upgrade_state_dict(weights)
    there = {name: tuple(weight.shape) for name, weight in weights.items()}
    here = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise CheckpointError(
                f"{path} does not fit: it has another architecture, whose {name} is "
                f"{there.get(name, 'missing')}, but {here.get(name, 'missing')} in this run: {remedy}"
            )


def _differing_task(theirs: dict, task) -> list[tuple[str, object, object]]:
    """Return (flag, value in the checkpoint, value here) of the differing options that a task of ours lists."""
    harmless = getattr(task, "HARMLESS_OPTIONS", None)
    if harmless is None or theirs.get("_name") != task.cfg.get("_name"):
        return []
    names = [name for name in task.cfg if name in theirs and name not in harmless]
    values = [("--" + name.replace("_", "-"), str(theirs[name]), str(task.cfg[name])) for name in names]
    return [(flag, there, here) for flag, there, here in values if there != here]
