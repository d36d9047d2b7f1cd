"""The one-dimensional lambda layer: projections, norms, masking, gate. :mod:`fairseq_lambda.ops` computes the rest."""

from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_lambda.modules.norms import MaskedBatchNorm, RowLayerNorm, RowRMSNorm
from fairseq_lambda.ops import check_backend, lambda_mix, lambda_mix_documents
from fairseq_lambda.ops.autocast import autocast_dtype
from fairseq_lambda.ops.documents import Documents

NORMS = ("layer", "rms", "batch", "none")
GATES = ("silu", "none")
TERMS = ("both", "content", "position")
GATE_STD = 0.02  # as in BERT; the gate was measured with it


class LambdaLayer(nn.Module):
    """Returns ``y`` (b, n, C): each token's queries applied to lambdas of the whole text and of its neighbours.

    LambdaNetworks (Bello, ICLR 2021, arXiv 2102.08602), section 3, in one dimension with global or local context::

        q = q_norm(x Wq)                 (b, n, h, k)
        K = softmax_m(x Wk)              (b, m, k, u)    padded m excluded
        V = v_norm(x Wv)                 (b, m, v, u)    padded m zero, v = C / h
        lc = sum_m,u K[m] V[m]           (b, k, v)       content lambda
        lp[n] = sum_m,u E[m-n] V[m]      (b, n, k, v)    position lambda, never stored by the fast backends
        y[n, h] = (lc + lp[n])^T q[n, h]

    With ``gate="silu"``, the default, y is multiplied elementwise by silu(x Wg), Wg (C, C), as in Hua et al. (2022,
    arXiv 2202.10447). The paper's layer has no gate.

    Args:
        embed_dim: C, the model's width.
        heads: h; must divide C.
        dim_k: k, the query depth.
        dim_u: u, the intra-depth.
        local_context: r, odd, the number of positions around a token that its position lambda sees; 0: all.
        max_positions: longest sequence; required, and enforced, with global context only.
        norm: of queries and values: "layer" (over k, and over v, per head), "rms" (the same without mean and bias),
            "batch" (the paper's; real tokens only, all ranks), "none".
        gate: "silu", or "none" for the paper's layer.
        backend: "auto", "reference", "banded", "fourier", "triton"; see :func:`fairseq_lambda.ops.lambda_mix`.
        terms: "both", or for ablations "content" (lp = 0, no position_embedding) or "position" (lc = 0, no k_proj).

    Raises:
        ValueError: a value out of range, naming the argument; a backend that cannot run here.
    """

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        dim_k: int = 16,
        dim_u: int = 1,
        local_context: int = 23,
        max_positions: int | None = None,
        norm: str = "layer",
        gate: str = "silu",
        backend: str = "auto",
        terms: str = "both",
    ):
        super().__init__()
        check_lambda_layer(embed_dim, heads, dim_k, dim_u, local_context, max_positions, norm, gate, terms)
        self.heads, self.dim_k, self.dim_u, self.dim_v = heads, dim_k, dim_u, embed_dim // heads
        self.local_context, self.max_positions, self.terms = local_context, max_positions, terms
        self.backend = check_backend(backend)
        self.q_proj = nn.Linear(embed_dim, heads * dim_k, bias=False)
        # The weights of an omitted term would never get a gradient, which DDP refuses, so they are not created.
        self.k_proj = nn.Linear(embed_dim, dim_k * dim_u, bias=False) if terms != "position" else None
        self.v_proj = nn.Linear(embed_dim, self.dim_v * dim_u, bias=False)
        offsets = local_context or 2 * max_positions - 1
        self.position_embedding = nn.Parameter(torch.empty(dim_k, dim_u, offsets)) if terms != "content" else None
        self.norm = norm
        self.q_norm = self._make_norm(heads * dim_k, dim_k)
        self.v_norm = self._make_norm(self.dim_v * dim_u, self.dim_v)
        # last, because optimizer states of older checkpoints depend on the order
        self.gate_proj = nn.Linear(embed_dim, embed_dim, bias=False) if gate == "silu" else None
        self.reset_parameters()

    def _make_norm(self, channels: int, depth: int) -> nn.Module:
        makers = {
            "layer": lambda: RowLayerNorm(depth),
            "rms": lambda: RowRMSNorm(depth, eps=1e-5),
            "batch": lambda: MaskedBatchNorm(channels),
            "none": nn.Identity,
        }
        return makers[self.norm]()

    def reset_parameters(self) -> None:
        """Draw the weights so that inputs of unit variance give q, V and, before the gate, y of about unit variance.

        E's standard deviation takes into account that a query sums k * u * r products with its independent entries.
        """
        for projection in filter(None, (self.q_proj, self.k_proj, self.v_proj)):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        if self.position_embedding is not None:
            nn.init.normal_(self.position_embedding, std=self.position_embedding.numel() ** -0.5)
        if self.gate_proj is not None:
            nn.init.normal_(self.gate_proj.weight, std=GATE_STD)

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        return_lambda: bool = False,
        documents: Documents | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return y (b, n, C), or with ``return_lambda`` also the content lambda (b, dim_k, dim_v).

        Args:
            x: (b, n, C), n >= 1.
            padding_mask: (b, n) bool, True where padded. Nothing there reaches a real token, not even NaN, but NaN
                there makes the gradients of the weights NaN.
            documents: the layout of packed rows; each document is mixed as if it were alone, and its lambdas are not
                returned.

        Raises:
            ValueError: n = 0; global context and n > max_positions; ``documents`` of another batch, or with
                ``return_lambda``.
        """
        length = x.shape[1]
        if not self.local_context and length > self.max_positions:
            raise ValueError(
                f"a sequence of {length} tokens exceeds the global context's max_positions={self.max_positions}: "
                "build the layer with more, or with a local_context"
            )
        if documents is not None and return_lambda:
            raise ValueError("return_lambda=True does not work with packed documents: give each document its own row")
        if (dtype := autocast_dtype(x.device)) and x.dtype != torch.float64:  # which autocast leaves alone
            x = x.to(dtype)  # once here, else in each projection
        tensors = [t.to(x.dtype) for t in self.projections(x, padding_mask, documents)]  # norms may give float32
        if documents is None:
            y, content_lambda = lambda_mix(*tensors, self.backend)
        else:
            y = lambda_mix_documents(*tensors, documents, self.backend)
        y = y.flatten(2)  # (b, n, h, v) -> (b, n, C)
        gate = self.gate(x)
        y = y if gate is None else y * gate
        return (y, content_lambda) if return_lambda else y

    def projections(
        self, x: Tensor, padding_mask: Tensor | None = None, documents: Documents | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q (b, n, h, k), K (b, m, k, u), V (b, m, v, u) and E (k, u, r) of x (b, n, C).

        Given q, K and E, the layer is linear in V. If a term is left out, its K or E is zero.
        """
        q, values = self._queries(self.q_proj(x), padding_mask), self._values(self.v_proj(x), padding_mask)
        if self.k_proj is None:
            keys = x.new_zeros(*x.shape[:2], self.dim_k, self.dim_u)
        else:
            keys = self._keys(self.k_proj(x), padding_mask, documents)
        offsets = self.position_embedding
        return q, keys, values, x.new_zeros(self.dim_k, self.dim_u, 1) if offsets is None else offsets

    def gate(self, x: Tensor) -> Tensor | None:
        """Return silu(x Wg) (b, n, C), the factor of the output; None for the paper's layer."""
        return None if self.gate_proj is None else F.silu(self.gate_proj(x))

    def _queries(self, projected: Tensor, padding_mask: Tensor | None) -> Tensor:
        """(b, n, h * k) -> q (b, n, h, k)."""
        if self.norm == "batch":
            return self.q_norm(projected, padding_mask).unflatten(-1, (self.heads, self.dim_k))
        return self.q_norm(projected.unflatten(-1, (self.heads, self.dim_k)))

    def _values(self, projected: Tensor, padding_mask: Tensor | None) -> Tensor:
        """(b, m, v * u) -> V (b, m, v, u), zero where padded."""
        if self.norm == "batch":
            values = self.v_norm(projected, padding_mask).unflatten(-1, (self.dim_v, self.dim_u))
        else:  # the norms work on the last dimension, so v goes there and back
            values = projected.unflatten(-1, (self.dim_v, self.dim_u)).transpose(-1, -2)
            values = self.v_norm(values).transpose(-1, -2)
        return values if padding_mask is None else values.masked_fill(padding_mask[..., None, None], 0)

    def _keys(self, projected: Tensor, padding_mask: Tensor | None, documents: Documents | None = None) -> Tensor:
        """(b, m, k * u) -> K (b, m, k, u), a softmax over the real m in float32, zero where padded."""
        logits = projected.to(torch.promote_types(projected.dtype, torch.float32))
        if documents is not None:
            keys = documents.softmax(logits)
        elif padding_mask is None:
            keys = logits.softmax(dim=1)
        else:
            # Not -inf, because a row of nothing but padding would give 0 / 0. Next to any real token, the lowest number
            # has the weight exp(-huge) = 0, and the second fill clears the rows without real tokens.
            padded = padding_mask[..., None]
            keys = logits.masked_fill(padded, torch.finfo(logits.dtype).min).softmax(dim=1).masked_fill(padded, 0)
        return keys.unflatten(-1, (self.dim_k, self.dim_u))

    def extra_repr(self) -> str:
        context = self.local_context or f"global, max_positions={self.max_positions}"
        return (
            f"heads={self.heads}, dim_k={self.dim_k}, dim_u={self.dim_u}, dim_v={self.dim_v}, "
            f"local_context={context}, norm={self.norm}, backend={self.backend}, terms={self.terms}"
        )


def is_whole(value: object) -> bool:
    """Return whether ``value`` is a whole number, Python's or numpy's; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_lambda_layer(embed_dim, heads, dim_k, dim_u, local_context, max_positions, norm, gate, terms) -> None:
    """Raise ValueError if :class:`LambdaLayer` does not take these arguments, naming one."""
    for name, value in {"embed_dim": embed_dim, "heads": heads, "dim_k": dim_k, "dim_u": dim_u}.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name}={value}: must be a whole number of at least 1")
    if embed_dim % heads:
        raise ValueError(f"embed_dim={embed_dim} is not divisible by heads={heads}")
    if not is_whole(local_context) or local_context < 0 or (local_context and local_context % 2 == 0):
        near = abs(local_context) // 2 * 2 + 1 if is_whole(local_context) else 23
        raise ValueError(
            f"local_context={local_context}: must be odd (centred on a token), such as {near}, or 0 for global context"
        )
    if not local_context and (not is_whole(max_positions) or max_positions < 1):
        raise ValueError(
            f"local_context=0 (global) does not work with max_positions={max_positions}: give the longest sequence"
        )
    for name, value, choices in (("norm", norm, NORMS), ("gate", gate, GATES), ("terms", terms, TERMS)):
        if value not in choices:
            raise ValueError(f"{name}={value}: choose one of {', '.join(choices)}")
