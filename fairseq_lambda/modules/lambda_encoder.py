"""The encoder: a stack of residual blocks whose token mixing is a lambda layer or softmax attention."""

import contextlib
import functools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.modules import LayerDropModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.masked_batch_norm import WithoutTracking

GATES = ("silu", "none")


class EncoderLayer(nn.Module):
    """Returns ``x`` (b, n, C) after token mixing and a feed-forward network, each with a residual and a LayerNorm.

    Pre-norm (Xiong et al., 2020): ``x + mix(LN(x))``, ``x + ffn(LN(x))``; ``post_norm`` is BERT's ``LN(x + ...)``.
    With a gate (as in Hua et al., 2022, arXiv 2202.10447) ``mix(x) = mixing(x) * silu(x Wg)``, elementwise.

    Args:
        mixing: :class:`LambdaLayer` or :class:`SoftmaxAttention`.
        embed_dim: C.
        ffn_embed_dim: inner width of the feed-forward network.
        dropout: of both residual branches.
        activation_dropout: after the activation.
        activation_fn: a name fairseq knows, such as "gelu".
        post_norm: LayerNorm after the residual sum.
        gate: learn Wg (C, C). SoftmaxAttention brings its own gate and output projection.
        output_projection: a C x C projection behind the mixing and the gate.
    """

    def __init__(
        self,
        mixing: nn.Module,
        embed_dim: int,
        ffn_embed_dim: int,
        dropout: float = 0.1,
        activation_dropout: float = 0.0,
        activation_fn: str = "gelu",
        post_norm: bool = False,
        gate: bool = False,
        output_projection: bool = False,
    ):
        super().__init__()
        self.mixing = mixing
        self.gate_proj = nn.Linear(embed_dim, embed_dim, bias=False) if gate else None
        self.out_proj = nn.Linear(embed_dim, embed_dim) if output_projection else None
        self.mixing_layer_norm = nn.LayerNorm(embed_dim)
        self.fc1 = nn.Linear(embed_dim, ffn_embed_dim)
        self.fc2 = nn.Linear(ffn_embed_dim, embed_dim)
        self.final_layer_norm = nn.LayerNorm(embed_dim)
        # fairseq's gelu of bfloat16 stores float32 copies; torch's works in float32, too, without
        self.activation_fn = F.gelu if activation_fn == "gelu" else utils.get_activation_fn(activation_fn)
        self.dropout, self.activation_dropout = dropout, activation_dropout
        self.post_norm = post_norm

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, return_lambda: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return x (b, n, C) and, with ``return_lambda`` and a lambda layer, its content lambda (b, k, v)."""
        normed = x if self.post_norm else self.mixing_layer_norm(x)
        mixed, content_lambda = self.mix(normed, padding_mask, return_lambda)
        x = x + F.dropout(mixed, self.dropout, self.training)
        x = self.mixing_layer_norm(x) if self.post_norm else x

        hidden = self.activation_fn(self.fc1(x if self.post_norm else self.final_layer_norm(x)))
        hidden = self.fc2(F.dropout(hidden, self.activation_dropout, self.training))
        x = x + F.dropout(hidden, self.dropout, self.training)
        return (self.final_layer_norm(x) if self.post_norm else x), content_lambda

    def mix(
        self, x: Tensor, padding_mask: Tensor | None = None, return_lambda: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the branch of the mixing, gate and output projection included, and as ``forward`` a content lambda."""
        content_lambda = None
        if return_lambda and isinstance(self.mixing, LambdaLayer):
            mixed, content_lambda = self.mixing(x, padding_mask, return_lambda=True)
        else:
            mixed = self.mixing(x, padding_mask)
        if self.gate_proj is not None:
            mixed = mixed * F.silu(self.gate_proj(x))
        if self.out_proj is not None:
            mixed = self.out_proj(mixed)
        return mixed, content_lambda


class LambdaEncoder(nn.Module):
    """Returns the hidden states of a stack of layers; batch first from end to end.

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
        self.layers = LayerDropModuleList(layerdrop, layers)
        self.layer_norm = nn.LayerNorm(embed_dim) if final_norm else nn.Identity()
        self.checkpoint_activations = checkpoint_activations

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        return_lambdas: bool = False,
        return_states: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """Return the top (b, n, C), the states [input, layer 1, ..., layer L], and the L content lambdas.

        A content lambda is (b, k, v); None for a softmax layer. Either list is empty unless asked for: kept states
        would be most of the memory of reading a long text.
        """
        states, lambdas = [x] if return_states else [], []
        for layer in self.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                contexts = functools.partial(_contexts, layer)
                x, content_lambda = checkpoint(
                    layer, x, padding_mask, return_lambdas, use_reentrant=False, context_fn=contexts
                )
            else:
                x, content_lambda = layer(x, padding_mask, return_lambdas)
            if return_states:
                states.append(x)
            if return_lambdas:
                lambdas.append(content_lambda)
        return self.layer_norm(x), states, lambdas


def _contexts(layer: nn.Module) -> tuple[contextlib.AbstractContextManager, WithoutTracking]:
    """Return what surrounds a layer's forward pass, and what its repetition in the backward pass."""
    return contextlib.nullcontext(), WithoutTracking(layer)


def parse_layers(spec: str, count: int) -> frozenset[int]:
    """Return the indices of the lambda layers that ``spec`` names among ``count`` layers, counted from 0.

    ``spec`` is "all", "none", or numbers and ranges such as "0,1,3-5".

    Raises:
        ValueError: not of that form, or a layer that does not exist.
    """
    if spec in ("all", "none"):
        return frozenset(range(count) if spec == "all" else ())
    chosen = set()
    for part in str(spec).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--lambda-layers {spec}: expected 'all', 'none' or a list such as 0,1,3-5")
        chosen.update(range(int(first), int(last if dash else first) + 1))
        if dash and int(last) < int(first):
            raise ValueError(f"--lambda-layers {spec}: the range {part.strip()} runs backwards")
    if max(chosen) >= count:
        raise ValueError(
            f"--lambda-layers {spec}: layer {max(chosen)} does not exist, --encoder-layers {count} counts from 0"
        )
    return frozenset(chosen)
