"""The encoder: a stack of residual blocks whose token mixing is a lambda layer or softmax attention."""

import contextlib
import functools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairseq_lambda.modules.activations import activation
from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.norms import WithoutTracking
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention
from fairseq_lambda.ops.documents import Documents
from fairseq_lambda.ops.unrolled import is_transformed


class EncoderLayer(nn.Module):
    """Returns ``x`` (b, n, C) after token mixing and a feed-forward network, each with a residual and a LayerNorm.

    Pre-norm (Xiong et al., 2020): ``x + mix(LN(x))``, ``x + ffn(LN(x))``; ``post_norm`` is BERT's ``LN(x + ...)``.

    Args:
        mixing: :class:`LambdaLayer` or :class:`SoftmaxAttention`.
        embed_dim: C.
        ffn_embed_dim: inner width of the feed-forward network.
        dropout: of both residual branches.
        activation_dropout: after the activation.
        activation_fn: a name of :data:`fairseq_lambda.modules.activations.ACTIVATIONS`.
        post_norm: LayerNorm after the residual sum.
    """

    def __init__(
        self,
        mixing: LambdaLayer | SoftmaxAttention,
        embed_dim: int,
        ffn_embed_dim: int,
        dropout: float = 0.0,
        activation_dropout: float = 0.0,
        activation_fn: str = "gelu",
        post_norm: bool = False,
    ):
        super().__init__()
        self.mixing = mixing
        self.mixing_layer_norm = nn.LayerNorm(embed_dim)
        self.fc1 = nn.Linear(embed_dim, ffn_embed_dim)
        self.fc2 = nn.Linear(ffn_embed_dim, embed_dim)
        self.final_layer_norm = nn.LayerNorm(embed_dim)
        self.activation_fn = activation(activation_fn)
        self.dropout, self.activation_dropout = dropout, activation_dropout
        self.post_norm = post_norm

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        return_lambda: bool = False,
        rotation: Tensor | None = None,
        documents: Documents | None = None,
        at: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return x (b, n, C) and, with ``return_lambda`` and a lambda layer, its content lambda (b, k, v).

        ``rotation`` is for attention layers, see :meth:`SoftmaxAttention.rotation`; ``documents`` is for packed rows.
        With ``at``, positions (p,) in the flattened (b * n), the feed-forward network skips all other positions and
        the result is (p, C).
        """
        normed = x if self.post_norm else self.mixing_layer_norm(x)
        mixed, content_lambda = self.mix(normed, padding_mask, return_lambda, rotation, documents)
        if at is not None:
            x, mixed = _select(x, at), _select(mixed, at)
        x = x + F.dropout(mixed, self.dropout, self.training)
        x = self.mixing_layer_norm(x) if self.post_norm else x

        hidden = self.activation_fn(self.fc1(x if self.post_norm else self.final_layer_norm(x)))
        hidden = self.fc2(F.dropout(hidden, self.activation_dropout, self.training))
        x = x + F.dropout(hidden, self.dropout, self.training)
        return (self.final_layer_norm(x) if self.post_norm else x), content_lambda

    def mix(
        self,
        x: Tensor,
        padding_mask: Tensor | None,
        return_lambda: bool,
        rotation: Tensor | None,
        documents: Documents | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output of the mixing branch (b, n, C) and, as ``forward`` does, a content lambda."""
        if isinstance(self.mixing, SoftmaxAttention):
            return self.mixing(x, padding_mask, rotation, documents), None
        if return_lambda:
            return self.mixing(x, padding_mask, return_lambda=True, documents=documents)
        return self.mixing(x, padding_mask, documents=documents), None

    def attention_weights(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor | None:
        """Return the attention weights (b, h, n, n) that ``forward`` uses for x (b, n, C); None for a lambda layer."""
        if not isinstance(self.mixing, SoftmaxAttention):
            return None
        return self.mixing.weights(x if self.post_norm else self.mixing_layer_norm(x), padding_mask)


class LambdaEncoder(nn.Module):
    """Returns the hidden states of a stack of layers; batch first throughout.

    Args:
        layers: :class:`EncoderLayer` modules, bottom first.
        embed_dim: C.
        layerdrop: probability of leaving out a layer in training (Fan et al., 2019).
        checkpoint_activations: keep only the layers' inputs, and recompute the rest in the backward pass.
        final_norm: LayerNorm at the top, as pre-norm layers need.
    """

    def __init__(
        self,
        layers: Iterable[EncoderLayer],
        embed_dim: int,
        layerdrop: float = 0.0,
        checkpoint_activations: bool = False,
        final_norm: bool = True,
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(embed_dim) if final_norm else nn.Identity()
        self.layerdrop, self.checkpoint_activations = layerdrop, checkpoint_activations

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        return_lambdas: bool = False,
        return_states: bool = False,
        documents: Documents | None = None,
        at: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """Return the output (b, n, C), the states [input, layer 1, ..., layer L], and the L content lambdas.

        A content lambda is (b, k, v), or None for an attention layer. Either list is empty unless requested: on a long
        text the states would take most of the memory. With ``at``, positions (p,) in the flattened (b * n), the output
        and the last state are (p, C), and the last layer skips most of its work.
        """
        states, lambdas = [x] if return_states else [], []
        rotation = self._rotation(x)
        kept = self._kept_layers()
        for number, layer in enumerate(kept, 1):
            at_top = at if number == len(kept) else None
            if self.checkpoint_activations and torch.is_grad_enabled():
                contexts = functools.partial(_contexts, layer)
                x, content_lambda = checkpoint(
                    layer, x, padding_mask, return_lambdas, rotation, documents, at_top, use_reentrant=False,
                    context_fn=contexts,
                )  # fmt: skip
            else:
                x, content_lambda = layer(x, padding_mask, return_lambdas, rotation, documents, at_top)
            if return_states:
                states.append(x)
            if return_lambdas:
                lambdas.append(content_lambda)
        if at is not None and not kept:  # LayerDrop has dropped every layer
            x = _select(x, at)
        return self.layer_norm(x), states, lambdas

    def _rotation(self, x: Tensor) -> Tensor | None:
        """Return the rotary positions that all attention layers share, or None if there are none."""
        for layer in self.layers:
            if isinstance(layer.mixing, SoftmaxAttention) and layer.mixing.rotary:
                return layer.mixing.rotation(x)
        return None

    def _kept_layers(self) -> Sequence[EncoderLayer]:
        if not self.training:
            return self.layers
        if not self.layerdrop and is_transformed():
            return self.layers  # vmap rejects random draws
        draws = torch.empty(len(self.layers)).uniform_()  # without LayerDrop too, so that dropout draws the same masks
        if not self.layerdrop:
            return self.layers
        return [layer for layer, draw in zip(self.layers, draws.tolist(), strict=True) if draw > self.layerdrop]


def _select(x: Tensor, at: Tensor) -> Tensor:
    """Return the rows of x (b, n, C) at the positions ``at`` (p,) in the flattened (b * n): (p, C)."""
    return x.flatten(0, 1).index_select(0, at)


def _contexts(layer: nn.Module) -> tuple[contextlib.AbstractContextManager, WithoutTracking]:
    """Return the contexts of a layer's forward pass and of its recomputation in the backward pass."""
    return contextlib.nullcontext(), WithoutTracking(layer)


def parse_layers(spec: str, count: int) -> frozenset[int]:
    """Return the indices, counted from 0, of the lambda layers that ``spec`` names among ``count`` layers.

    ``spec`` is "all", "none", or numbers and ranges such as "0,1,3-5".

    Raises:
        ValueError: ``spec`` has another form, or names a layer that does not exist.
    """
    if spec in ("all", "none"):
        return frozenset(range(count) if spec == "all" else ())
    chosen = set()
    for part in str(spec).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"lambda_layers={spec}: expected 'all', 'none' or a list such as 0,1,3-5")
        start, end = int(first), int(last if dash else first)
        if end < start:
            raise ValueError(f"lambda_layers={spec}: the range {part.strip()} runs backwards")
        if end >= count:
            raise ValueError(f"lambda_layers={spec}: layer {end} does not exist (layers={count}, counted from 0)")
        chosen.update(range(start, end + 1))
    return frozenset(chosen)
