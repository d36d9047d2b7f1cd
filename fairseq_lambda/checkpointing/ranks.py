"""The processes of one training: that they know of each other, draw alike and start from the same checkpoint."""

import os
import sys

import torch
from fairseq.distributed import utils as distributed_utils

from fairseq_lambda.modules.norms import MaskedBatchNorm

DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "pooler_dropout")


def check_ranks(trainer) -> None:
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


def check_same_file(extra_state: dict | None, trainer) -> None:
    """Each rank reads the file itself, so on a machine that does not see it, a rank would start from scratch."""
    own = trainer.get_num_updates() + (extra_state is not None)
    if sum_over_ranks([own], trainer)[0] != own * trainer.data_parallel_world_size:
        sys.exit(
            "error: not all processes have found the same checkpoint: put --save-dir and the file to start from on a "
            "disk that all machines share"
        )


def sum_over_ranks(numbers: list[int], trainer) -> list[int]:
    if trainer.data_parallel_world_size == 1:
        return numbers
    total = torch.tensor(numbers, dtype=torch.int64, device=trainer.device)
    distributed_utils.all_reduce(total, group=trainer.data_parallel_process_group)
    return total.tolist()
