""":func:`lambda_mix`, one function over several backends, and the same for packed documents."""

import logging
from functools import cache

import torch
from torch import Tensor

from fairseq_lambda.ops.autocast import without_autocast
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.documents import Documents
from fairseq_lambda.ops.fourier.cost import prefers_fourier
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier
from fairseq_lambda.ops.reference import lambda_mix_reference
from fairseq_lambda.ops.triton.self_check import warn, why_wrong
from fairseq_lambda.ops.triton.support import kernels, why_not, why_not_here
from fairseq_lambda.ops.unrolled import is_recording, is_transformed, lambda_mix_unrolled

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "banded", "fourier", "triton")
OLD_NAMES = {"chunked": "banded"}
MAX_LINE_CONTEXT = 255  # the mask of packed documents has one number per position and offset
TRITON_CONTEXTS = (15, 31, 63, 127, 255)  # Triton compiles its kernels for each number of offsets


def _lambda_mix_triton(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    return kernels("mix").lambda_mix_triton(*tensors)


_FUNCTIONS = {
    "reference": lambda_mix_reference,
    "banded": lambda_mix_banded,
    "fourier": lambda_mix_fourier,
    "triton": _lambda_mix_triton,
}


def known_backend(backend: str) -> str:
    """Return the current name of ``backend``, whether or not it can run here; raise ValueError if there is none."""
    backend = OLD_NAMES.get(backend, backend)
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend}: unknown, choose one of {', '.join(BACKENDS)}")
    return backend


def check_backend(backend: str) -> str:
    """Return the current name of ``backend``; "chunked" is the old name of "banded".

    Raises:
        ValueError: an unknown name, or "triton" where its kernels cannot run at all; the message says why.
    """
    backend = known_backend(backend)
    if backend == "triton" and (reason := why_not_here()):
        raise _refused(reason)
    return backend


def resolve_backend(backend: str, queries: Tensor, values: Tensor, position_embedding: Tensor) -> str:
    """Return the backend to use for these tensors: ``backend`` itself, or what "auto" picks.

    "auto" picks "triton" on CUDA if its kernels support the tensors and pass
    :mod:`fairseq_lambda.ops.triton.self_check`. Otherwise it picks the cheaper of "banded" and "fourier", as estimated
    by :mod:`fairseq_lambda.ops.fourier.cost`. Each choice is logged once per process, with the reason. Kernels that
    fail the check cause one warning.

    Raises:
        ValueError: ``backend`` is "triton", and its kernels do not support these tensors or give wrong results; the
            message says why.
    """
    if backend not in ("auto", "triton"):
        return backend
    device, reason = queries.device.type, None
    if device == "cuda" or backend == "triton":
        reason = why_not(queries, position_embedding)
        if reason is None and (reason := why_wrong(queries, values, position_embedding)) and backend == "auto":
            warn(reason)
    if backend == "triton":
        if reason:
            raise _refused(reason)
        return backend
    if device == "cuda" and reason is None:
        choice = "triton"
    else:
        choice = "fourier" if prefers_fourier(queries, values, position_embedding) else "banded"
    _log_choice(choice, device, reason)
    return choice


def _refused(reason: str) -> ValueError:
    return ValueError(f"backend=triton: {reason}; use backend=auto, or backend=banded, which runs everywhere")


@cache  # so that each choice is logged once per process
def _log_choice(choice: str, device: str, reason: str | None) -> None:
    because = f", not 'triton': {reason}" if reason else ""
    logger.info(f"lambda backend auto: using {choice!r} on {device}{because}")


def trim(position_embedding: Tensor, length: int, contexts: tuple[int, ...] = ()) -> Tensor:
    """Return E (k, u, r) without the offsets that do not occur in a sequence of ``length``.

    With ``contexts``, ascending, the result has as many offsets as the first of them that suffices, if one does.
    """
    occur = 2 * length - 1
    excess = (position_embedding.shape[-1] - next((r for r in contexts if r >= occur), occur)) // 2
    return position_embedding[..., excess:-excess] if excess > 0 else position_embedding


def _trimmed(position_embedding: Tensor, length: int, backend: str) -> Tensor:
    """Return what the backend gets of E; "auto" may pick "triton" on CUDA."""
    for_triton = backend == "triton" or (backend == "auto" and position_embedding.is_cuda)
    return trim(position_embedding, length, TRITON_CONTEXTS if for_triton else ())


def _check(queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor) -> None:
    """Raise ValueError unless the tensors fit together. While torch.jit.trace records, every comparison would warn."""
    if torch.jit.is_tracing():
        return
    tensors = {"queries": queries, "keys": keys, "values": values, "position_embedding": position_embedding}
    q, k, v, e = (tensor.shape for tensor in tensors.values())
    has_dims = (len(q), len(k), len(v), len(e)) == (4, 4, 4, 3)
    if not (has_dims and q[:2] == k[:2] == v[:2] and q[3] == k[2] == e[0] and k[3] == v[3] == e[1]):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"{shapes} do not fit together: expected (b, n, h, k), (b, n, k, u), (b, n, v, u), (k, u, r)")
    if q[1] < 1:
        raise ValueError(f"queries {tuple(q)}: a sequence needs at least one position")
    if e[2] % 2 == 0:
        raise ValueError(f"position_embedding has {e[2]} offsets; a centred context needs an odd number")
    if any((tensor.dtype, tensor.device) != (queries.dtype, queries.device) for tensor in tensors.values()):
        kinds = ", ".join(f"{name} {tensor.dtype} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"{kinds}: all must have one dtype and device")


def lambda_mix(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Return the layer's output y (b, n, h, v) and its content lambda (b, k, v).

    LambdaNetworks (Bello, 2021), equations 1 and 2, multi-query form with intra-depth::

        content lambda   lc    = sum_m,u  K[m,k,u] V[m,v,u]
        position lambda  lp[n] = sum_m,u  E[k,u,m-n + r//2] V[m,v,u]      over |m-n| <= r // 2
        y[n,h,:]               = (lc + lp[n])^T q[n,h,:]

    Args:
        queries: (b, n, h, k).
        keys: (b, n, k, u), already normalised over the positions, zero where padded.
        values: (b, n, v, u), zero where padded.
        position_embedding: E, (k, u, r) with r odd; index j stands for the offset m - n = j - r // 2. It may reach
            beyond the sequence; r = 2 n - 1 covers every pair.
        backend: "auto"; "reference", the equations as written; "banded", block-banded matrix products; "fourier", fast
            Fourier transforms, for long contexts; "triton", kernels for CUDA.

    Differentiable in every tensor. All four must share one dtype and device. Whatever the backend, exporters and
    tracers record the graph of :mod:`fairseq_lambda.ops.unrolled`, which works for any length; "auto" uses it under
    torch.func, too.

    Raises:
        ValueError: see :func:`check_backend` and :func:`resolve_backend`; tensors that do not fit together, n = 0 or an
            even r; torch.func with a backend other than "auto" and "reference".
    """
    _check(queries, keys, values, position_embedding)
    backend = check_backend(backend)
    if is_transformed() and backend not in ("auto", "reference"):
        raise ValueError(f"backend={backend} does not support torch.func: use backend=auto or backend=reference")
    if is_recording() or (backend == "auto" and is_transformed()):
        function = lambda_mix_unrolled
    else:
        position_embedding = _trimmed(position_embedding, queries.shape[1], backend)
        function = _FUNCTIONS[resolve_backend(backend, queries, values, position_embedding)]
    with without_autocast(queries.device):  # the results have the dtype of the inputs
        return function(queries, keys, values, position_embedding)


def lambda_mix_documents(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    position_embedding: Tensor,
    documents: Documents,
    backend: str = "auto",
) -> Tensor:
    """Return the layer's output y (b, n, h, v) for rows packed with documents, each mixed as if it were alone.

    See :func:`lambda_mix` for the arguments and errors. ``keys`` are normalised over the positions of their document.

    On a CPU with a local context, "banded" mixes the whole line at once: its products have the same shapes whatever the
    lengths, and oneDNN compiles code for each new shape. Everything else runs once per group of documents.

    Raises:
        ValueError: also documents of another batch, and torch.func with any backend.
    """
    _check(queries, keys, values, position_embedding)
    documents.check(queries)
    backend = check_backend(backend)
    # here, too, else each group's gradient has all offsets
    position_embedding = _trimmed(position_embedding, documents.longest, backend)
    on_line = queries.device.type == "cpu" and position_embedding.shape[-1] <= MAX_LINE_CONTEXT
    if on_line and backend in ("auto", "banded"):
        if backend == "auto":
            _log_choice("banded", "cpu", None)
        with without_autocast(queries.device):
            return lambda_mix_banded(queries, keys, values, position_embedding, documents=documents)[0]

    def mix(queries: Tensor, keys: Tensor, values: Tensor, padding_mask: Tensor | None) -> Tensor:
        return lambda_mix(queries, keys, values, position_embedding, backend)[0]

    return documents.each(mix, queries, keys, values)
