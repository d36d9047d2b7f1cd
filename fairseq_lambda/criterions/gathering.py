"""Gathering what the ranks have logged, on CPUs too."""

import functools

import torch.distributed as dist
from fairseq import utils
from fairseq.distributed import utils as distributed_utils


def install() -> None:
    """Replace fairseq's ``all_gather_list``, once; its trainer looks the function up at each call."""
    if not hasattr(distributed_utils.all_gather_list, "__wrapped__"):
        distributed_utils.all_gather_list = _with_gloo(distributed_utils.all_gather_list)


def _with_gloo(original):
    @functools.wraps(original)
    def all_gather_list(data, group=None, max_size=16384):
        """fairseq gathers in a buffer on the GPU, whatever the backend."""
        chosen = distributed_utils.get_global_group() if group is None else group
        if dist.get_backend(chosen) != "gloo":
            return original(data, group, max_size)
        gathered = [None] * distributed_utils.get_world_size(group=chosen)
        dist.all_gather_object(gathered, utils.move_to_cpu(data), group=chosen)
        return gathered

    return all_gather_list
