"""Whether a checkpoint's options may be acted on: those of fairseq's own models and tasks can run code."""

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.models import fairseq_sentence_prediction
from fairseq_lambda.tasks.fine_tuning import FineTuningTask
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask

INTERPOLATION = "${"  # OmegaConf would replace it, for example by a variable of the environment


def check_options(cfg: dict) -> None:
    """Check that model and task of a checkpoint's configuration are this plugin's, or derived from them.

    fairseq builds whatever model, task and criterion a configuration names, and some of its own evaluate options as
    Python, or open files that the options name. A checkpoint is data, from wherever it came.

    Args:
        cfg: plain values, before OmegaConf resolves anything.

    Raises:
        CheckpointError: they are not, or an option refers to something outside.
    """
    parts = {part: cfg.get(part) if isinstance(cfg, dict) else None for part in ("model", "task")}
    for part, options in parts.items():
        if not isinstance(options, dict):
            raise CheckpointError(f"it has no options of its {part}")
        if outside := _interpolations(options):
            raise CheckpointError(f"the option {outside} of its {part} refers to something outside the checkpoint")
    name = parts["model"].get("_name") or parts["model"].get("arch")
    kind = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    if kind is None or not issubclass(kind, MODEL_REGISTRY["lambda_bert"]):
        raise CheckpointError(f"its model, {name}, is not one of this plugin")
    name = parts["task"].get("_name")
    kind = TASK_REGISTRY.get(name)
    ours = kind is not None and issubclass(kind, FineTuningTask | MaskedLMSOPTask)
    if not (ours or name == fairseq_sentence_prediction.NAME):
        raise CheckpointError(f"its task, {name}, is not one of this plugin")


def check_criterion(cfg: dict, kind: type) -> None:
    """Raise CheckpointError unless the criterion that a configuration names is of class ``kind``."""
    found = CRITERION_REGISTRY.get(cfg.get("_name"))
    if found is None or not issubclass(found, kind):
        raise CheckpointError(f"the checkpoint's criterion, {cfg.get('_name')}, is not one of this plugin")


def _interpolations(value, name: str = "") -> str | None:
    """Return the name of an option in which there is an interpolation, if any."""
    if isinstance(value, dict):
        return next((found for key, one in value.items() if (found := _interpolations(one, str(key)))), None)
    if isinstance(value, list | tuple):
        return next((found for one in value if (found := _interpolations(one, name))), None)
    return name if isinstance(value, str) and INTERPOLATION in value else None
