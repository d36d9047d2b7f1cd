"""An encoder layer with a content term beside its lambdas."""

import torch
import torch.nn.functional as F
from torch import Tensor

from content_terms.rows import Rows
from content_terms.terms import TERMS, Term
from fairseq_lambda.modules import EncoderLayer, LambdaBert, LambdaBertOptions, LambdaLayer
from fairseq_lambda.modules.lambda_bert import initialise
from fairseq_lambda.ops import lambda_mix


class ContentLayer(EncoderLayer):
    """Returns what an :class:`EncoderLayer` does, with ``y[n, h] += term`` before the lambda layer's gate.

    With ``at`` the term, the gate and the feed-forward network work for these positions only.

    Args:
        o: the model's options.
        term: what is added; with its ``instead_of`` "position" there are no position lambdas.

    Raises:
        ValueError: post-norm or an intra-depth, which the trial leaves out.
    """

    def __init__(self, o: LambdaBertOptions, term: Term):
        if o.post_norm or o.dim_u != 1:
            raise ValueError(
                f"--lambda-intra-depth {o.dim_u}, --post-norm {o.post_norm}: a content term needs 1 and pre-norm"
            )
        terms = "content" if term.instead_of == "position" else o.terms
        names = "dim_k", "local_context", "max_positions", "norm", "gate", "backend"
        mixing = LambdaLayer(o.embed_dim, o.heads, terms=terms, **{name: getattr(o, name) for name in names})
        rest = o.dropout, o.activation_dropout, o.activation_fn
        super().__init__(mixing, o.embed_dim, o.ffn_embed_dim, *rest)
        self.apply(initialise)
        self.term = term

    def forward(self, x, padding_mask=None, return_lambda=False, rotation=None, documents=None, at=None):
        """As :meth:`EncoderLayer.forward`; packed documents are a ValueError."""
        if documents is not None:
            raise ValueError("--content-term does not support packed documents: leave out --pack-documents")
        mixed, content_lambda = self._mix(self.mixing_layer_norm(x), padding_mask, at)
        x = _select(x, at) + F.dropout(mixed, self.dropout, self.training)
        hidden = self.activation_fn(self.fc1(self.final_layer_norm(x)))
        hidden = self.fc2(F.dropout(hidden, self.activation_dropout, self.training))
        return x + F.dropout(hidden, self.dropout, self.training), content_lambda if return_lambda else None

    def _mix(self, x: Tensor, padding_mask: Tensor | None, at: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gated sum of lambdas and term, (b, n, C) or (p, C), and the content lambda (b, k, v)."""
        lambdas = self.mixing
        if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        q, keys, values, offsets = (t.to(x.dtype) for t in lambdas.projections(x, padding_mask))
        rows = None if at is None else Rows(at, *x.shape[:2])
        y = self.term(x, q, values.squeeze(-1), padding_mask, rows).flatten(2)
        if self.term.instead_of == "position":
            content_lambda = keys.squeeze(-1).transpose(1, 2) @ values.squeeze(-1)
            q = rows.gather(q) if rows else q
            y = y + (q.flatten(1, 2) @ content_lambda).view_as(y)
            y = rows.scatter(y) if rows else y
        else:
            of_lambdas, content_lambda = lambda_mix(q, keys, values, offsets, lambdas.backend)
            of_lambdas = of_lambdas.flatten(2)
            y = (rows.scatter(y) if rows else y) + _select(of_lambdas, at)
        gate = lambdas.gate(_select(x, at))
        return (y if gate is None else y * gate), content_lambda


def _select(x: Tensor, at: Tensor | None) -> Tensor:
    """(b, n, C) -> (p, C), or as it is."""
    return x if at is None else x.flatten(0, 1).index_select(0, at)


def add_term(bert: LambdaBert, name: str, layers: frozenset[int]) -> None:
    """Put layers with the content term ``name`` in place of lambda layers; the others keep their weights.

    Raises:
        ValueError: one of them is an attention layer.
    """
    for i in sorted(layers):
        if not isinstance(bert.encoder.layers[i].mixing, LambdaLayer):
            raise ValueError(f"--content-layers names layer {i}, which --lambda-layers makes an attention layer")
        bert.encoder.layers[i] = ContentLayer(bert.options, TERMS[name](bert.options))
