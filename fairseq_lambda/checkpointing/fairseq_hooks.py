"""The places where fairseq's handling of checkpoints is replaced, for every way to start a training.

In the plugin and not in a script, because torchrun restarts its workers by itself. Each function says which behaviour
of fairseq it works around.
"""

import functools
import logging
import os
import sys
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging import metrics

from fairseq_lambda.checkpointing.matching import check_match
from fairseq_lambda.checkpointing.reading import CheckpointError, check_whole, read_header, weights_only
from fairseq_lambda.checkpointing.recovery import recover
from fairseq_lambda.checkpointing.writing import copy_whole, save_whole

logger = logging.getLogger(__name__)

GO_ON, REFUSED, FINISHED = range(3)


class WholeCopies(PathManager):
    """fairseq copies a checkpoint over ``checkpoint_last.pt`` in place: a kill leaves half a file under that name."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if PathManager.path_requires_pathmanager(dst_path):
            return PathManager.copy(src_path, dst_path, overwrite=overwrite)
        copy_whole(src_path, dst_path)
        return True


def install(is_ours) -> None:
    """Put the replacements in place, once; ``is_ours`` says of a task whether its checkpoints are to be checked."""
    if checkpoint_utils.PathManager is WholeCopies:
        return
    checkpoint_utils.PathManager = WholeCopies
    checkpoint_utils.torch_persistent_save = _saving(checkpoint_utils.torch_persistent_save)
    checkpoint_utils.load_checkpoint = _loading(checkpoint_utils.load_checkpoint, is_ours)


def _saving(original):
    @functools.wraps(original)
    def torch_persistent_save(obj, filename, async_write: bool = False):
        """fairseq retries a failed save at the end of what it has written, and renames the two over the old file."""
        if async_write or PathManager.path_requires_pathmanager(str(filename)):
            return original(obj, filename, async_write=async_write)
        save_whole(obj, filename)

    return torch_persistent_save


def _loading(original, is_ours):
    @functools.wraps(original)
    def load_checkpoint(cfg, trainer, **passthrough):
        """fairseq opens ``checkpoint_last.pt`` as it is, torn or foreign, and trains a finished run one update more."""
        if not is_ours(trainer.task) or trainer.checkpoint_suffix or cfg.no_last_checkpoints:
            return original(cfg, trainer, **passthrough)
        _check_ranks(trainer)
        outcome = GO_ON
        if trainer.is_data_parallel_master:
            try:
                outcome = _prepare(cfg, trainer)
            except (CheckpointError, OSError) as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                outcome = REFUSED
        outcome = _of_all_ranks(outcome, trainer)
        if outcome != GO_ON:
            sys.exit(1 if outcome == REFUSED else 0)
        # fairseq's broadcast of the state to the other ranks pickles a class of its own, which weights_only refuses:
        # let each rank read the file.
        cfg.load_checkpoint_on_all_dp_ranks = trainer.cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
        with weights_only():
            extra_state, epoch_itr = original(cfg, trainer, **passthrough)
        resets = cfg.reset_optimizer or cfg.reset_lr_scheduler or cfg.reset_meters or cfg.reset_dataloader
        if extra_state is not None and trainer.get_num_updates() > 0 and not resets:
            _carry_over(extra_state, trainer)
        return extra_state, epoch_itr

    return load_checkpoint


def _carry_over(extra_state: dict, trainer) -> None:
    """fairseq saves at the end of an epoch before the scheduler has seen its loss, and resumes with all meters at zero.

    One of them, of the updates since the last line of the log, goes on over epochs in a run that is not interrupted.
    """
    position = extra_state["train_iterator"]
    if position["iterations_in_epoch"] == 0:
        trainer.lr_step(position["epoch"] - 1, extra_state["val_loss"])
        inner = extra_state["metrics"].get("train_inner")
        if inner is not None:
            metrics.load_state_dict({"train_inner": inner})


def _prepare(cfg, trainer) -> int:
    """Recover the folder and check what is about to be loaded; return GO_ON or FINISHED."""
    if cfg.restore_file != "checkpoint_last.pt":
        path = Path(cfg.restore_file)
        if not path.is_file():
            raise CheckpointError(f"--restore-file {path} does not exist")
    else:
        newest, done = recover(Path(cfg.save_dir))
        for line in done:
            logger.warning(line)
        if newest is not None:
            path = newest.path
        elif cfg.finetune_from_model is not None:
            path = Path(cfg.finetune_from_model)
        else:
            return GO_ON
    fresh = path == Path(cfg.finetune_from_model or "")
    state = read_header(path)
    check_whole(path)
    check_match(state, path, trainer.task, trainer.get_model(), not (cfg.reset_optimizer or fresh))
    updates = state["optimizer_history"][-1]["num_updates"]
    if fresh or cfg.reset_optimizer:
        return GO_ON
    if 0 < trainer.cfg.optimization.max_update <= updates:
        logger.info(f"{path} has {updates} updates: nothing left to do (raise --max-update to train longer)")
        return FINISHED
    position = state["extra_state"]["train_iterator"].get("iterations_in_epoch", 0)
    before = state["cfg"]["distributed_training"]["distributed_world_size"]
    now = trainer.cfg.distributed_training.distributed_world_size
    if before != now and position > 0:
        # fairseq stores the batches that each process has had, and skips as many of each of the new ones
        logger.warning(
            f"{path} was written by {before} processes and {now} go on: for the rest of this epoch, "
            f"{abs(before - now) * position} batches are {'left out' if now > before else 'seen again'}"
        )
    logger.info(f"going on from {path} at {updates} updates (another --save-dir starts afresh)")
    return GO_ON


def _of_all_ranks(outcome: int, trainer) -> int:
    """Return the outcome of rank 0, so that the others do not wait for it in vain."""
    if trainer.data_parallel_world_size == 1:
        return outcome
    flag = torch.tensor([outcome], dtype=torch.int64, device=trainer.device)
    distributed_utils.all_reduce(flag, group=trainer.data_parallel_process_group)
    return int(flag)


def _check_ranks(trainer) -> None:
    """fairseq takes the number of processes from the number of GPUs: on a CPU, torchrun's would each train alone."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    seen = trainer.cfg.distributed_training.distributed_world_size
    if started != seen and "RANK" in os.environ:
        sys.exit(
            f"error: torchrun has started {started} processes and fairseq knows of {seen}: start them with "
            "scripts/train_lambda_bert.sh --nproc, or by -m fairseq_lambda.commands.train"
        )
