"""Replacements for parts of fairseq's checkpoint handling, in effect however a training is started.

They are in the plugin, not in a script, because torchrun restarts its workers itself. Each docstring says which
behaviour of fairseq the function works around.
"""

import contextlib
import functools
import sys
from pathlib import Path

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.logging import metrics

from fairseq_lambda import version
from fairseq_lambda.checkpointing import lock, patience
from fairseq_lambda.checkpointing.exported import find_checkpoint, is_exported, read_exported
from fairseq_lambda.checkpointing.ranks import check_ranks, check_same_file, sum_over_ranks
from fairseq_lambda.checkpointing.reading import CheckpointError, weights_only
from fairseq_lambda.checkpointing.starting import GO_ON, REFUSED, prepare
from fairseq_lambda.checkpointing.writing import copy_whole, save_whole

ADAMS = ("FairseqAdam", "FusedAdam")  # one resumes from the state of the other


class WholeCopies(PathManager):
    """fairseq copies a checkpoint over ``checkpoint_last.pt`` in place: a kill leaves half a file under that name."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        if PathManager.path_requires_pathmanager(dst_path):
            return PathManager.copy(src_path, dst_path, overwrite=overwrite)
        _check_lock(dst_path)
        copy_whole(src_path, dst_path)
        return True


def install(is_ours) -> None:
    """Install the replacements, once. ``is_ours`` takes a trainer and returns whether to check its checkpoints.

    A lambda_bert calls this when it is built, so runs of other models are left alone. That is early enough: fairseq
    looks these functions up at each call, and it saves and loads nothing before the model exists.
    """
    if checkpoint_utils.PathManager is WholeCopies:
        return
    checkpoint_utils.PathManager = WholeCopies
    checkpoint_utils.torch_persistent_save = _saving(checkpoint_utils.torch_persistent_save)
    checkpoint_utils.load_checkpoint = _loading(checkpoint_utils.load_checkpoint, is_ours)


def _saving(original):
    @functools.wraps(original)
    def torch_persistent_save(obj, filename, async_write: bool = False):
        """fairseq retries a failed save by appending to what it has written, then renames that over the old file."""
        if isinstance(obj, dict) and "extra_state" in obj:
            patience.remember(obj["extra_state"])
            if "lambda_backend" in (obj["cfg"].get("model") or {}):
                obj["cfg"]["model"]["lambda_backend"] = "auto"  # the choice depends on the machine, not on the model
                obj["extra_state"][version.KEY] = version.__version__
        if async_write or PathManager.path_requires_pathmanager(str(filename)):
            return original(obj, filename, async_write=async_write)
        _check_lock(filename)
        save_whole(obj, filename)

    return torch_persistent_save


def _check_lock(file) -> None:
    """End this run if another one has taken its folder over, whose checkpoints it would write over."""
    try:
        lock.check(Path(file).parent)
    except CheckpointError as error:
        sys.exit(f"error: {error}")


def _loading(original, is_ours):
    @functools.wraps(original)
    def load_checkpoint(cfg, trainer, **passthrough):
        """fairseq loads ``checkpoint_last.pt`` even if torn or foreign, and trains a finished run once more."""
        if not is_ours(trainer):
            return original(cfg, trainer, **passthrough)
        check_ranks(trainer)
        if trainer.checkpoint_suffix:  # a sharded checkpoint, whose files have other names
            with weights_only():
                return original(cfg, trainer, **passthrough)
        if cfg.finetune_from_model is not None:
            with contextlib.suppress(FileNotFoundError):  # reported below
                cfg.finetune_from_model = str(find_checkpoint(cfg.finetune_from_model))
        outcome, had = GO_ON, 0
        if trainer.is_data_parallel_master:
            try:
                outcome, had = prepare(cfg, trainer)
            except (CheckpointError, OSError) as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                outcome = REFUSED
        outcome, had = sum_over_ranks([outcome, had], trainer)  # or the others would wait for rank 0 forever
        if outcome != GO_ON:
            sys.exit(1 if outcome == REFUSED else 0)
        # To broadcast the state to the other ranks, fairseq pickles a class of its own, which weights_only refuses.
        # So each rank reads the file.
        cfg.load_checkpoint_on_all_dp_ranks = trainer.cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
        with weights_only(), _one_line(had), _position_for_these_ranks(had, trainer), _upgraded(trainer):
            extra_state, epoch_itr = original(cfg, trainer, **passthrough)
        check_same_file(extra_state, trainer)
        if extra_state is not None and not cfg.reset_optimizer:
            patience.restore(extra_state)
        resets = cfg.reset_optimizer or cfg.reset_lr_scheduler or cfg.reset_meters or cfg.reset_dataloader
        if extra_state is not None and trainer.get_num_updates() > 0 and had == 0 and not resets:
            _carry_over(extra_state, trainer)
        return extra_state, epoch_itr

    return load_checkpoint


def _carry_over(extra_state: dict, trainer) -> None:
    """fairseq saves at the end of an epoch before the scheduler has seen its loss, and resumes with all meters at zero.

    In an uninterrupted run one of these meters spans epochs: the one for the updates since the last line of the log.
    """
    trainer.lr_step(extra_state["train_iterator"]["epoch"] - 1, extra_state["val_loss"])
    inner = extra_state["metrics"].get("train_inner")
    if inner is not None:
        metrics.load_state_dict({"train_inner": inner})


@contextlib.contextmanager
def _one_line(had: int):
    """fairseq ends with a traceback if the flags do not fit the checkpoint."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        message = str(error)
        if "dataloader mismatch" in message:
            message = (
                f"the checkpoint is {had} batches into an epoch that now has fewer: the data or the batch size has "
                "changed. Start the epoch again with --reset-dataloader"
            )
        elif "please reset the optimizer" not in message:
            raise
        sys.exit(f"error: {message}")


@contextlib.contextmanager
def _replaced(owner, name: str, replacement):
    """Replace ``owner.name`` in this context by a function that gets the original as its first argument."""
    original = getattr(owner, name)
    setattr(owner, name, functools.partial(replacement, original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _position_for_these_ranks(had: int, trainer):
    """fairseq stores how many batches of an epoch each process has had, and skips that many in each new process.

    The processes take turns in one order of batches. So ``had``, the number over all processes, is divided by the
    number of the new ones. The remainder, less than one batch per process, is seen again.
    """

    def load_checkpoint(original, *arguments, **options):
        extra_state = original(*arguments, **options)
        if extra_state is not None:
            extra_state["train_iterator"]["iterations_in_epoch"] = had // trainer.data_parallel_world_size
        return extra_state

    return _replaced(trainer, "load_checkpoint", load_checkpoint)


def _upgraded(trainer):
    """fairseq lets a model upgrade its weights on loading, but not the optimizer's state.

    Nor can it read exported models, and it does not know that two optimizers may share one form of state.
    """

    def load_checkpoint_to_cpu(original, path, *arguments, **options):
        state = read_exported(Path(path)) if is_exported(path) else original(path, *arguments, **options)
        trainer.get_model().upgrade_older_state(state)
        last, own = state["optimizer_history"][-1], type(trainer.optimizer).__name__
        if last.get("optimizer_name") in ADAMS and own in ADAMS:
            last["optimizer_name"] = own
        return state

    return _replaced(checkpoint_utils, "load_checkpoint_to_cpu", load_checkpoint_to_cpu)
