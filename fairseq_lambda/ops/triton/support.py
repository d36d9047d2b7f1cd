"""Why the Triton backend cannot be used, if it cannot. Does not import Triton."""

import importlib
import importlib.util
import os
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from fairseq_lambda.ops.eager import runs_eagerly

# Longer contexts work too, but the partial sums grow with them, and the products of "banded" are large by then.
MAX_CONTEXT = 255
MAX_DIM_K = 128  # a tile of queries holds all of k
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def kernels(name: str) -> ModuleType:
    """Return the module ``name`` of this package, which imports Triton; nothing else does.

    There is no import statement, because folders for transformers (huggingface/flat_code.py) contain a copy of this
    file without the kernels. The copy uses those of the package if it is installed; with an import statement,
    transformers would require the package.
    """
    return importlib.import_module(f"fairseq_lambda.ops.triton.{name}")


@runs_eagerly  # torch.compile would trace the access to the file system, and ignore the cache
@cache
def _why_not_installed() -> str | None:
    if importlib.util.find_spec("fairseq_lambda") is None:  # this is a copy, see huggingface/flat_code.py
        return "the package fairseq_lambda, which contains the kernels, is not installed"
    spec = importlib.util.find_spec("triton")
    if spec is None:
        return "the package triton is not installed (it comes with CUDA builds of torch for Linux)"
    # No version is compared: it belongs to a distribution, and several distributions contain the package.
    if not any(os.path.isfile(os.path.join(folder, "knobs.py")) for folder in spec.submodule_search_locations or ()):
        return "the installed Triton is too old for the kernels, which need 3.4 or later"
    return None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def why_not_here() -> str | None:
    """Return why the kernels cannot run in this process at all, or None if they can."""
    reason = _why_not_installed()
    if reason:
        return reason
    if not torch.cuda.is_available() and not _interpreted():
        return "there is no CUDA device (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, for tests)"
    return None


def why_not(queries: Tensor, position_embedding: Tensor) -> str | None:
    """Return why these tensors cannot go through the kernels, or None if they can.

    ``position_embedding`` is already trimmed to the sequence: it has 2 n - 1 offsets at most.
    """
    reason = why_not_here()
    if reason:
        return reason
    if not queries.is_cuda and not _interpreted():
        return f"the tensors are on {queries.device.type}, but the kernels run on CUDA"
    if queries.is_cuda and torch.version.cuda:
        capability = torch.cuda.get_device_capability(queries.device)
        if capability < (8, 0):
            return "the GPU's compute capability is {}.{}, but the kernels need 8.0".format(*capability)
    if queries.dtype not in DTYPES:
        return f"no kernel for {queries.dtype}, only for float32, bfloat16 and float16"
    if position_embedding.shape[2] > MAX_CONTEXT:
        return f"the context is global, or longer than local_context={MAX_CONTEXT}"
    if queries.shape[3] > MAX_DIM_K:
        return f"the key depth is above dim_k={MAX_DIM_K}"
    return None


def norms_rows(x: Tensor) -> bool:
    """Return whether x (..., d) can go through the kernels of :mod:`fairseq_lambda.ops.triton.row_norm`."""
    return (
        x.is_cuda
        and x.shape[-1] <= MAX_DIM_K
        and x.dtype in DTYPES
        and not torch.compiler.is_compiling()  # the compiler generates such a kernel itself, and fuses it with others
        and _why_not_installed() is None
        and not (torch.version.cuda and torch.cuda.get_device_capability(x.device) < (8, 0))
    )
