"""Replacements for parts of fairseq's checkpoint handling, in effect however a training is started.

They are in the plugin, not in a script, because torchrun restarts its workers itself. Each docstring says which
behaviour of fairseq the function works around.
"""

import contextlib
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

from fairseq_lambda import version
from fairseq_lambda.checkpointing import lock, patience
from fairseq_lambda.checkpointing.exported import find_checkpoint, is_exported, read_exported
from fairseq_lambda.checkpointing.matching import check_match
from fairseq_lambda.checkpointing.position import batches_had, changes
from fairseq_lambda.checkpointing.reading import CheckpointError, check_whole, read_header, weights_only
from fairseq_lambda.checkpointing.recovery import LAST, go_back, recover
from fairseq_lambda.checkpointing.writing import copy_whole, save_whole
from fairseq_lambda.modules.norms import MaskedBatchNorm

logger = logging.getLogger(__name__)

GO_ON, REFUSED, FINISHED = range(3)
ADAMS = ("FairseqAdam", "FusedAdam")  # one resumes from the state of the other
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "pooler_dropout")


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
        _check_ranks(trainer)
        if trainer.checkpoint_suffix:  # a sharded checkpoint, whose files have other names
            with weights_only():
                return original(cfg, trainer, **passthrough)
        if cfg.finetune_from_model is not None:
            with contextlib.suppress(FileNotFoundError):  # reported below
                cfg.finetune_from_model = str(find_checkpoint(cfg.finetune_from_model))
        outcome, had = GO_ON, 0
        if trainer.is_data_parallel_master:
            try:
                outcome, had = _prepare(cfg, trainer)
            except (CheckpointError, OSError) as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                outcome = REFUSED
        outcome, had = _sum_over_ranks([outcome, had], trainer)  # or the others would wait for rank 0 forever
        if outcome != GO_ON:
            sys.exit(1 if outcome == REFUSED else 0)
        # To broadcast the state to the other ranks, fairseq pickles a class of its own, which weights_only refuses.
        # So each rank reads the file.
        cfg.load_checkpoint_on_all_dp_ranks = trainer.cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
        with weights_only(), _one_line(had), _position_for_these_ranks(had, trainer), _upgraded(trainer):
            extra_state, epoch_itr = original(cfg, trainer, **passthrough)
        _check_same_file(extra_state, trainer)
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


def _prepare(cfg, trainer) -> tuple[int, int]:
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


def _check_same_file(extra_state: dict | None, trainer) -> None:
    """Each rank reads the file itself, so on a machine that does not see it, a rank would start from scratch."""
    own = trainer.get_num_updates() + (extra_state is not None)
    if _sum_over_ranks([own], trainer)[0] != own * trainer.data_parallel_world_size:
        sys.exit(
            "error: not all processes have found the same checkpoint: put --save-dir and the file to start from on a "
            "disk that all machines share"
        )


def _sum_over_ranks(numbers: list[int], trainer) -> list[int]:
    if trainer.data_parallel_world_size == 1:
        return numbers
    total = torch.tensor(numbers, dtype=torch.int64, device=trainer.device)
    distributed_utils.all_reduce(total, group=trainer.data_parallel_process_group)
    return total.tolist()


def _check_ranks(trainer) -> None:
    """fairseq infers the number of processes from the number of GPUs: on a CPU, torchrun's would each train alone."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    seen = trainer.cfg.distributed_training.distributed_world_size
    if started != seen and "RANK" in os.environ:
        sys.exit(
            f"error: torchrun has started {started} processes but fairseq knows of {seen}: start them with "
            "scripts/train_lambda_bert.sh --nproc, or with -m fairseq_lambda.commands.fairseq_train"
        )
    model = trainer.get_model()
    has_batch_norm = any(isinstance(module, MaskedBatchNorm) for module in model.modules())
    if seen == 1 or trainer.device.type != "cpu" or not has_batch_norm or not model.cfg.encoder_layerdrop:
        return
    # On a CPU, layer drop and dropout draw from one generator. Ranks have batches of different shapes, so their
    # generators drift apart and they drop different layers.
    noise = [f"--{name.replace('_', '-')}" for name in DROPOUTS if getattr(model.cfg, name) > 0]
    if noise:
        sys.exit(
            f"error: with {' and '.join(noise)}, each process on a CPU drops different layers (--encoder-layerdrop "
            f"{model.cfg.encoder_layerdrop}), but --lambda-norm batch needs the same layers in all of them: set either "
            "to 0, or choose another norm"
        )
