"""BERT with lambda layers in plain torch: embeddings, encoder, heads. fairseq's and transformers' models wrap it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_lambda.modules.encoder import EncoderLayer, LambdaEncoder, parse_layers
from fairseq_lambda.modules.heads import ClassificationHead, MaskedLMHead
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT, LambdaBertOptions
from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.positions import LearnedPositions, SinusoidalPositions, count_positions
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention
from fairseq_lambda.ops.documents import Documents

INITIAL_STD = 0.02  # of linear layers and embeddings, as in BERT


class LambdaBertOutput(NamedTuple):
    """``features`` (b, n, C) of the top layer; L + 1 ``states`` and L ``lambdas``, both empty unless requested.

    A content lambda is (b, k, v), or None for an attention layer.
    """

    features: Tensor
    states: list[Tensor]
    lambdas: list[Tensor | None]


class LambdaBert(nn.Module):
    """Returns features of token ids; its heads turn them into logits.

    Args:
        options: see :class:`LambdaBertOptions`.
        lm_head: build ``lm_head``, a :class:`MaskedLMHead` whose weight is tied to the token embeddings.
        sentence_head: build ``sentence_head``, a two-way :class:`ClassificationHead`. Leave it out if its loss is not
            used: its weights would never get a gradient, and DDP refuses that.

    Raises:
        ValueError: options that are out of range or contradict each other; the message names them.
    """

    def __init__(self, options: LambdaBertOptions, lm_head: bool = True, sentence_head: bool = False):
        super().__init__()
        o = self.options = options
        lambda_layers = parse_layers(o.lambda_layers, o.layers)
        positions = o.positions
        self.embed_tokens = nn.Embedding(o.vocab_size, o.embed_dim, o.padding_idx)
        self.embed_segments = nn.Embedding(2, o.embed_dim)
        self.embed_positions = None
        if positions == "learned":
            self.embed_positions = LearnedPositions(o.max_positions, o.embed_dim, o.padding_idx)
        elif positions == "sinusoidal":
            self.embed_positions = SinusoidalPositions(o.embed_dim, o.padding_idx, INITIAL_STD)
        self.layernorm_embedding = nn.LayerNorm(o.embed_dim)
        self.encoder = LambdaEncoder(
            [_build_layer(o, i in lambda_layers) for i in range(o.layers)],
            o.embed_dim,
            layerdrop=o.layerdrop,
            checkpoint_activations=o.checkpoint_activations,
            final_norm=not o.post_norm,
        )
        self.lm_head = MaskedLMHead(o.embed_dim, o.vocab_size, o.activation_fn) if lm_head else None
        self.sentence_head = self.build_head(2) if sentence_head else None
        self.max_positions = o.length_limit
        self.apply(initialise)
        if lm_head:
            self.lm_head.weight = self.embed_tokens.weight

    def build_head(self, num_classes: int, inner_dim: int | None = None, kind=ClassificationHead) -> ClassificationHead:
        """Return a new head of class ``kind`` that fits this model, by default one on ``<s>``, without storing it."""
        o = self.options
        return kind(o.embed_dim, num_classes, inner_dim, o.pooler_activation_fn, o.pooler_dropout)

    def forward(
        self,
        tokens: Tensor,
        padding_mask: Tensor | None = None,
        segments: Tensor | None = None,
        return_states: bool = False,
        return_lambdas: bool = False,
        documents: Documents | None = None,
        at: Tensor | None = None,
    ) -> LambdaBertOutput:
        """Return what :class:`LambdaBertOutput` holds.

        Args:
            tokens: (b, n) ids, right-padded; or (b, n, C), their embeddings, see :meth:`embed`.
            padding_mask: (b, n) bool, True where padded; None: no padding.
            segments: (b, n), 0 or 1; None: :func:`segment_ids`.
            documents: the layout of packed rows; each document has its own positions and segments, and the same
                features as when it is alone.
            at: positions (p,) in the flattened (b * n); features are then computed for these only, (p, C), which saves
                work in the top layer.

        Raises:
            ValueError: no token, or more than ``max_positions``; ``documents`` of another batch, or with
                ``return_lambdas``.
        """
        if self.max_positions != NO_LIMIT and tokens.size(1) > self.max_positions:  # exporters record this as a limit
            raise ValueError(
                f"{tokens.size(1)} tokens exceed the model's {self.max_positions} positions: shorten the text, or "
                "train with more positions, or with a local context and no absolute positions"
            )
        x = self.embed(tokens, padding_mask, segments, documents)
        return LambdaBertOutput(*self.encoder(x, padding_mask, return_lambdas, return_states, documents, at))

    def embed(
        self,
        tokens: Tensor,
        padding_mask: Tensor | None = None,
        segments: Tensor | None = None,
        documents: Documents | None = None,
    ) -> Tensor:
        """Return the sum of token, segment and position embeddings, normalised: (b, n, C).

        ``tokens`` may be token embeddings (b, n, C) instead of ids; without ``segments``, all segments are then 0.
        """
        if documents is not None:
            documents.check(tokens)
        if tokens.dim() == 3:
            x, none = tokens, torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
            segments = none if segments is None else segments
        else:
            x, none = self.embed_tokens(tokens), torch.zeros_like(tokens)
            segments = segment_ids(tokens, self.options.eos_idx, documents) if segments is None else segments
        x = x + self.embed_segments(segments)
        if self.embed_positions is not None:
            if documents is None:
                positions = count_positions(none.bool() if padding_mask is None else padding_mask)
            else:
                positions = documents.positions
            x = x + self.embed_positions(positions).to(x.dtype)  # sinusoids are float32
        return F.dropout(self.layernorm_embedding(x), self.options.dropout, self.training)


def segment_ids(tokens: Tensor, eos: int | None, documents: Documents | None = None) -> Tensor:
    """Return segments (b, n): 0 in ``<s> A </s>`` and 1 in ``</s> B </s>``, found by the ``</s> </s>`` between them.

    They are derived from the tokens, so that pretraining, hub interface and fine-tuning cannot disagree. Without
    ``eos`` all are 0. In packed rows, each of the ``documents`` begins with 0.
    """
    if eos is None:
        return torch.zeros_like(tokens)
    is_eos = tokens.eq(eos)
    second_eos = is_eos & F.pad(is_eos, (1, 0))[:, :-1]  # the token before it is </s> too
    if documents is None:
        return second_eos.cumsum(dim=1).clamp(max=1)
    second_eos &= documents.positions.ne(1)  # a document's first token has nothing before it
    count = second_eos.cumsum(dim=1)
    first = torch.arange(tokens.shape[1], device=tokens.device) - documents.positions.clamp(min=1) + 1
    return (count - count.gather(1, first)).clamp(max=1)


def _build_layer(o: LambdaBertOptions, is_lambda: bool) -> EncoderLayer:
    if is_lambda:
        mixing = LambdaLayer(
            o.embed_dim,
            o.heads,
            dim_k=o.dim_k,
            dim_u=o.dim_u,
            local_context=o.local_context,
            max_positions=o.max_positions,
            norm=o.norm,
            gate=o.gate,
            backend=o.backend,
            terms=o.terms,
        )
    else:
        mixing = SoftmaxAttention(o.embed_dim, o.heads, o.attention_dropout, o.attention_rotary)
    return EncoderLayer(
        mixing,
        o.embed_dim,
        o.ffn_embed_dim,
        dropout=o.dropout,
        activation_dropout=o.activation_dropout,
        activation_fn=o.activation_fn,
        post_norm=o.post_norm,
    )


def initialise(module: nn.Module) -> None:
    """Draw the weights of linear layers and embeddings as BERT does; a lambda layer then redraws all of its own."""
    if isinstance(module, LambdaLayer):
        module.reset_parameters()
    elif isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx].detach())
