"""The task that a checkpoint was trained on, with the symbols and labels that are in it."""

import os

from fairseq import tasks
from fairseq.data import Dictionary

from fairseq_lambda.models import fairseq_sentence_prediction
from fairseq_lambda.tasks.fine_tuning import FineTuningTask
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask


def task_of(cfg, state: dict, dictionary=None, labels: list[str] | None = None):
    """Return the task of a checkpoint, given its options and its ``task_state``.

    Args:
        dictionary, labels: see :meth:`LambdaBertHubInterface.from_folder`.

    Raises:
        ValueError: the state is not of this task.
    """
    name = cfg.get("_name")
    if name == fairseq_sentence_prediction.NAME:
        if isinstance(dictionary, str | os.PathLike):
            dictionary = Dictionary.load(str(dictionary))
        return fairseq_sentence_prediction.as_ours(cfg, state, dictionary, labels)
    if dictionary is not None or labels is not None:
        raise ValueError("the checkpoint has a dictionary and labels of its own: leave out dictionary= and labels=")
    kind = tasks.TASK_REGISTRY.get(name)
    if kind is not None and issubclass(kind, FineTuningTask):
        return kind.from_state(cfg, state)
    return tasks.setup_task(cfg, dictionary=MaskedLMSOPTask.dictionary_from_state(state), from_checkpoint=True)
