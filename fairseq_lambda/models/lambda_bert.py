"""The ``lambda_bert`` models: BERT whose layers mix tokens by lambdas, masked-LM head and sentence head on top."""

import logging

import torch
import torch.nn.functional as F
from fairseq.models import FairseqEncoder, FairseqEncoderModel, register_model
from fairseq.models.roberta.model import RobertaClassificationHead, RobertaLMHead, RobertaModel
from fairseq.modules import PositionalEmbedding
from fairseq.modules.transformer_sentence_encoder import init_bert_params
from torch import Tensor, nn

from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.lambda_bert_config import SIZES, LambdaBertConfig, sized_config
from fairseq_lambda.modules import (
    EncoderLayer,
    LambdaEncoder,
    LambdaLayer,
    SoftmaxAttention,
    parse_layers,
)

logger = logging.getLogger(__name__)

EMBEDDING_STD = 0.02  # of tokens and learned positions at the start, by init_bert_params
NO_LIMIT = 2**31 - 1  # positions of a model that has no table of them


def segment_ids(tokens: Tensor, eos: int) -> Tensor:
    """Return (b, n) of 0 in ``<s> A </s>`` and 1 in ``</s> B </s>``, found by the ``</s> </s>`` between the two.

    Derived from the tokens, so that pretraining, hub and fine-tuning cannot disagree.
    """
    is_eos = tokens.eq(eos)
    second_eos = F.pad(is_eos[:, 1:] & is_eos[:, :-1], (1, 0))
    return second_eos.cumsum(dim=1).clamp(max=1)


class LambdaBertEncoder(FairseqEncoder):
    """Embeddings, :class:`LambdaEncoder`, masked-LM head and, if ``sentence_head``, a two-way sentence head.

    Args:
        cfg: the model's options.
        dictionary: fairseq's, ``<mask>`` included.
        max_positions: longest input in tokens.
        sentence_head: build the head; without its loss its weights would never get a gradient, which DDP refuses.

    Raises:
        ValueError: options that contradict each other, naming flag and value.
    """

    def __init__(self, cfg, dictionary, max_positions: int, sentence_head: bool):
        super().__init__(dictionary)
        _check(cfg, max_positions)
        width, padding = cfg.encoder_embed_dim, dictionary.pad()
        self.eos, self.padding_idx = dictionary.eos(), padding
        self.embed_tokens = nn.Embedding(len(dictionary), width, padding)
        self.embed_segments = nn.Embedding(2, width)
        lambda_layers = parse_layers(cfg.lambda_layers, cfg.encoder_layers)
        positions = _absolute_positions(cfg, lambda_layers)
        learned = positions == "learned"
        self.embed_positions = None
        if positions != "none":
            self.embed_positions = PositionalEmbedding(max_positions, width, padding, learned)
            # fairseq's sinusoids are 35 times as large as a token's embedding, which would be lost in the sum.
            self.position_scale = 1.0 if learned else EMBEDDING_STD * 2**0.5
        self.layernorm_embedding = nn.LayerNorm(width)
        self.dropout = cfg.dropout

        self.encoder = LambdaEncoder(
            [_build_layer(cfg, i in lambda_layers, max_positions) for i in range(cfg.encoder_layers)],
            width,
            layerdrop=cfg.encoder_layerdrop,
            checkpoint_activations=cfg.checkpoint_activations,
            final_norm=not cfg.post_norm,
        )
        self.lm_head = RobertaLMHead(width, len(dictionary), cfg.activation_fn, weight=self.embed_tokens.weight)
        self.sentence_head = _build_head(cfg, 2) if sentence_head else None

        is_global = bool(lambda_layers) and cfg.lambda_local_context == 0
        self._max_positions = max_positions if learned or is_global else NO_LIMIT

    def forward(
        self,
        src_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        masked_tokens: Tensor | None = None,
        return_lambdas: bool = False,
        has_padding: bool | None = None,
        **unused,
    ) -> tuple[Tensor, dict]:
        """Return logits over the vocabulary, or features (b, n, C), and a dictionary of what else there is.

        Both losses come from one forward pass: the sentence logits are in the dictionary.

        Args:
            src_tokens: (b, n) token ids, right-padded.
            features_only: leave out the masked-LM head.
            return_all_hiddens: fill ``inner_states`` with L + 1 tensors (b, n, C).
            masked_tokens: (b, n) bool, or positions (masked,) in the flattened (b * n), which a GPU need not be waited
                for; the head then works on these only: (masked, V), not (b, n, V).
            return_lambdas: fill ``lambdas`` with a content lambda (b, k, v) a layer, None for softmax layers.
            has_padding: whether there is any; None: look, which waits for a GPU.

        Raises:
            ValueError: more tokens than ``max_positions``.
        """
        if src_tokens.size(1) > self._max_positions:
            raise ValueError(
                f"{src_tokens.size(1)} tokens exceed the model's {self._max_positions} positions "
                "(--max-positions); shorten the text, or train with --absolute-positions none "
                "and a local context"
            )
        padding_mask = src_tokens.eq(self.padding_idx)
        if not (padding_mask.any() if has_padding is None else has_padding):
            padding_mask = None
        x, states, lambdas = self.encoder(self.embed(src_tokens), padding_mask, return_lambdas, return_all_hiddens)
        extra = {
            "inner_states": states if return_all_hiddens else None,
            "lambdas": lambdas if return_lambdas else None,
            "sentence_logits": None if self.sentence_head is None else self.sentence_head(x),
        }
        if features_only:
            return x, extra
        if masked_tokens is not None:
            if masked_tokens.dtype == torch.bool:
                masked_tokens = masked_tokens.flatten().nonzero().squeeze(1)
            x = x.flatten(0, 1).index_select(0, masked_tokens)
        return self.lm_head(x), extra

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the sum of token, segment and position embeddings, normalised: (b, n, C)."""
        x = self.embed_tokens(tokens) + self.embed_segments(segment_ids(tokens, self.eos))
        if self.embed_positions is not None:
            x = x + self.position_scale * self.embed_positions(tokens)
        return F.dropout(self.layernorm_embedding(x), self.dropout, self.training)

    def max_positions(self) -> int:
        return self._max_positions


@register_model("lambda_bert", dataclass=LambdaBertConfig)
class LambdaBertModel(RobertaModel):
    """A RoBERTa with fairseq's hooks unchanged, but for its encoder, its options and its hub interface."""

    def __init__(self, cfg, encoder: LambdaBertEncoder):
        FairseqEncoderModel.__init__(self, encoder)
        self.args = self.cfg = cfg
        self.classification_heads = nn.ModuleDict()
        self.apply(init_bert_params)
        for module in self.modules():  # init_bert_params has just overwritten every nn.Linear in them
            if isinstance(module, LambdaLayer):
                module.reset_parameters()

    @classmethod
    def add_args(cls, parser):
        # RobertaModel lists its argparse options by hand here; ours are the dataclass's.
        super(RobertaModel, cls).add_args(parser)

    @classmethod
    def build_model(cls, cfg, task):
        max_positions = task.max_positions() if cfg.max_positions is None else cfg.max_positions
        sentence_head = getattr(task, "sentence_objective", "none") != "none"
        encoder = LambdaBertEncoder(cfg, task.source_dictionary, max_positions, sentence_head)
        return cls(cfg, encoder)

    def register_classification_head(self, name, num_classes=None, inner_dim=None, **kwargs):
        """Add a head on ``<s>`` with ``num_classes`` outputs; an existing one of that name is replaced."""
        if name in self.classification_heads:
            logger.warning("classification head %r is replaced", name)
        self.classification_heads[name] = _build_head(self.cfg, num_classes, inner_dim)

    def upgrade_state_dict_named(self, state_dict, name):
        """As RobertaModel's, and a sentence head may be missing from, or not wanted of, the checkpoint."""
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}." if name else ""
        own = self.encoder.sentence_head
        key = f"{prefix}encoder.sentence_head."
        saved = [k for k in state_dict if k.startswith(key)]
        if own is None:
            for k in saved:
                del state_dict[k]
        elif not saved:
            logger.warning("the checkpoint has no sentence head: this one starts from scratch")
            state_dict.update({key + k: v for k, v in own.state_dict().items()})

    @classmethod
    def hub_models(cls):
        return {}  # RobertaModel's addresses are of other models

    @classmethod
    def from_pretrained(cls, folder, checkpoint_file=None):
        """Return a :class:`LambdaBertHubInterface` over the model in ``folder``: see its ``from_folder``."""
        return LambdaBertHubInterface.from_folder(folder, checkpoint_file)


def _absolute_positions(cfg, lambda_layers: frozenset[int]) -> str:
    """Return "learned", "sinusoidal" or "none"."""
    if cfg.no_token_positional_embeddings:
        return "none"
    if cfg.absolute_positions != "auto":
        return cfg.absolute_positions
    lambdas_see_offsets = cfg.lambda_terms != "content" or not lambda_layers
    softmax_sees_offsets = cfg.attention_rotary or len(lambda_layers) == cfg.encoder_layers
    return "none" if lambdas_see_offsets and softmax_sees_offsets else "learned"


def _build_layer(cfg, is_lambda: bool, max_positions: int) -> EncoderLayer:
    if is_lambda:
        mixing = LambdaLayer(
            cfg.encoder_embed_dim,
            cfg.encoder_attention_heads,
            dim_k=cfg.lambda_key_depth,
            dim_u=cfg.lambda_intra_depth,
            local_context=cfg.lambda_local_context,
            max_positions=max_positions,
            norm=cfg.lambda_norm,
            backend=cfg.lambda_backend,
            terms=cfg.lambda_terms,
            position_scale=cfg.lambda_position_scale,
            position_decay=cfg.lambda_position_decay,
        )
    else:
        mixing = SoftmaxAttention(
            cfg.encoder_embed_dim,
            cfg.encoder_attention_heads,
            cfg.attention_dropout,
            cfg.attention_rotary,
            gate=cfg.attention_gate == "silu",
        )
    return EncoderLayer(
        mixing,
        cfg.encoder_embed_dim,
        cfg.encoder_ffn_embed_dim,
        dropout=cfg.dropout,
        activation_dropout=cfg.activation_dropout,
        activation_fn=cfg.activation_fn,
        post_norm=cfg.post_norm,
        gate=is_lambda and cfg.lambda_gate == "silu",
        output_projection=is_lambda and cfg.lambda_output_projection,
    )


def _build_head(cfg, num_classes: int, inner_dim: int | None = None) -> RobertaClassificationHead:
    return RobertaClassificationHead(
        cfg.encoder_embed_dim,
        inner_dim or cfg.encoder_embed_dim,
        num_classes,
        cfg.pooler_activation_fn,
        cfg.pooler_dropout,
    )


def _check(cfg, max_positions: int) -> None:
    for flag, value in {
        "--encoder-layers": cfg.encoder_layers,
        "--encoder-embed-dim": cfg.encoder_embed_dim,
        "--encoder-ffn-embed-dim": cfg.encoder_ffn_embed_dim,
        "--max-positions": max_positions,
    }.items():
        if value < 1:
            raise ValueError(f"{flag} {value}: must be at least 1")
    for flag, value in {
        "--dropout": cfg.dropout,
        "--attention-dropout": cfg.attention_dropout,
        "--activation-dropout": cfg.activation_dropout,
        "--encoder-layerdrop": cfg.encoder_layerdrop,
        "--pooler-dropout": cfg.pooler_dropout,
    }.items():
        if not 0 <= value < 1:
            raise ValueError(f"{flag} {value}: a probability, at least 0 and below 1")
    local = cfg.lambda_local_context
    if local > max_positions and cfg.lambda_layers != "none":
        raise ValueError(
            f"--lambda-local-context {local} is longer than --max-positions {max_positions} "
            "(default: --tokens-per-sample): shorten the context, or use 0 for all positions"
        )


for _size, (_layers, _width, _heads) in SIZES.items():
    register_model(f"lambda_bert_{_size}", dataclass=sized_config(_layers, _width, _heads))(
        type(f"LambdaBert{_size.capitalize()}Model", (LambdaBertModel,), {})
    )
