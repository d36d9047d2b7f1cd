"""Reading a checkpoint or an exported model without running code from it."""

from pathlib import Path

from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from fairseq_lambda.checkpointing.exported import is_exported, read_exported
from fairseq_lambda.checkpointing.reading import CheckpointError, check_whole, read_header, weights_only
from fairseq_lambda.models.trust import check_options


def load_checkpoint(path: Path) -> dict:
    """Return fairseq's state of a checkpoint or an exported model, checked against its checksums.

    A checkpoint is read by torch.load with weights_only on, and its options are checked before fairseq sees them.

    Raises:
        ValueError: not a checkpoint of this plugin, torn or altered, or holding more than tensors and plain values.
    """
    if is_exported(path):
        state = read_exported(path)
        try:
            check_options(OmegaConf.to_container(state["cfg"]))
        except CheckpointError as error:
            raise CheckpointError(f"{path} cannot be read as an exported model: {error}") from None
        return state
    state = read_header(path)
    check_whole(path)
    try:
        check_options(state["cfg"])
        with weights_only():
            state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as a fairseq checkpoint: {reason}") from error
    OmegaConf.set_struct(state["cfg"], True)
    return state
