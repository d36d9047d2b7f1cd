"""What a training is about to load, whether it may, and what is put in order before."""

import logging
from pathlib import Path

from fairseq_lambda.checkpointing import lock, patience
from fairseq_lambda.checkpointing.exported import find_checkpoint, is_exported, read_exported
from fairseq_lambda.checkpointing.matching import check_match
from fairseq_lambda.checkpointing.position import batches_had, changes
from fairseq_lambda.checkpointing.reading import CheckpointError, check_whole, read_header
from fairseq_lambda.checkpointing.recovery import LAST, go_back, recover

logger = logging.getLogger(__name__)

GO_ON, REFUSED, FINISHED = range(3)


def prepare(cfg, trainer) -> tuple[int, int]:
    """Recover the folder and check what is about to be loaded.

    Return GO_ON or FINISHED, and how many batches of the current epoch all processes together have had.
    """
    lock.take(Path(cfg.save_dir))
    path, weights_alone = _file_to_load(cfg)
    if path is None:
        return GO_ON, 0
    if is_exported(path):
        state = read_exported(path)
    else:
        state = read_header(path)
        check_whole(path)
    check_match(state, path, trainer.task, trainer.get_model(), not (cfg.reset_optimizer or weights_alone))
    if weights_alone:
        return GO_ON, 0
    updates = 0 if cfg.reset_optimizer else state["optimizer_history"][-1]["num_updates"]
    if not cfg.reset_optimizer:
        if 0 < trainer.cfg.optimization.max_update <= updates:
            more = "raise --updates (fairseq-train: --max-update) to train longer"
            logger.info(f"{path} has {updates} updates: nothing left to do ({more})")
            return FINISHED, 0
        if patience.is_spent(state["extra_state"], cfg.patience):
            logger.info(f"{path}: its run has stopped early, nothing left to do (raise --patience to train longer)")
            return FINISHED, 0
        if not state.get("last_optimizer_state"):
            raise CheckpointError(
                f"{path} was saved with --no-save-optimizer-state, so its run cannot be resumed: pass it as "
                "--finetune-from-model to a new run with another --save-dir"
            )
        logger.info(f"resuming from {path} at {updates} updates (use another --save-dir to start afresh)")
    if cfg.restore_file != LAST or cfg.reset_optimizer:
        keeps_last = not cfg.no_last_checkpoints and not is_exported(path)
        for line in go_back(Path(cfg.save_dir), path, updates, keeps_last):
            logger.warning(line)
    if not cfg.reset_dataloader:
        for line in changes(state, path, trainer.cfg, trainer.data_parallel_world_size):
            logger.warning(line)
    return GO_ON, batches_had(state)


def _file_to_load(cfg) -> tuple[Path | None, bool]:
    """Return the file that fairseq is about to load, None for a new run, and whether only its weights are used."""
    if cfg.restore_file != LAST:
        flag, path = "--restore-file", cfg.restore_file
    else:
        last = Path(cfg.save_dir) / LAST
        if not cfg.no_last_checkpoints:  # with it, recovery would make a file that the run never updates
            for line in recover(last.parent)[1]:
                logger.warning(line)
        if last.is_file():
            return last, False
        flag, path = "--continue-once", getattr(cfg, "continue_once", None)  # only ve-fairseq has it
        if path is None:
            flag, path = "--finetune-from-model", cfg.finetune_from_model
        if path is None:
            return None, False
        if flag == "--finetune-from-model":
            try:
                path = find_checkpoint(path)
            except FileNotFoundError as error:
                raise CheckpointError(f"{flag} {error}") from error
    if not Path(path).is_file():
        raise CheckpointError(f"{flag} {path} does not exist, or is a folder without a checkpoint")
    return Path(path), flag == "--finetune-from-model"
