"""Options of ``lambda_bert`` and the shapes of its sizes."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.utils import get_available_activation_fns

from fairseq_lambda.modules.lambda_encoder import GATES
from fairseq_lambda.modules.lambda_layer import NORMS, TERMS
from fairseq_lambda.ops import BACKENDS

# BERT's miniatures (Turc et al., 2019), base and large (Devlin et al., 2019): layers, width, heads.
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


@dataclass
class LambdaBertConfig(FairseqDataclass):
    encoder_layers: int = field(default=12, metadata={"help": "number of layers"})
    encoder_embed_dim: int = field(default=768, metadata={"help": "width of the model"})
    encoder_ffn_embed_dim: int = field(default=3072, metadata={"help": "inner width of the feed-forward networks"})
    encoder_attention_heads: int = field(default=12, metadata={"help": "heads of each lambda or softmax layer"})
    lambda_layers: str = field(
        default="all",
        metadata={
            "help": "which layers are lambda layers: all, none, or a list such as 0,1,3-5; the others are "
            "softmax self-attention, so 'none' is the equal-size RoBERTa twin"
        },
    )
    lambda_key_depth: int = field(default=16, metadata={"help": "query and key depth k"})
    lambda_intra_depth: int = field(default=1, metadata={"help": "intra-depth u"})
    lambda_local_context: int = field(
        default=23,
        metadata={"help": "positions around a token that its position lambda sees, odd; 0: all of them"},
    )
    lambda_norm: ChoiceEnum(NORMS) = field(
        default="layer", metadata={"help": "norm of queries and values; batch is the paper's"}
    )
    lambda_backend: ChoiceEnum(BACKENDS) = field(
        default="auto", metadata={"help": "implementation of the lambda products"}
    )
    lambda_terms: ChoiceEnum(TERMS) = field(
        default="both", metadata={"help": "content: no position lambdas; position: no content lambda (ablations)"}
    )
    lambda_position_scale: float = field(
        default=1.0,
        metadata={"help": "initial scale of the position embeddings, 1 gives outputs of unit variance (ablations)"},
    )
    lambda_position_decay: float = field(
        default=0.0,
        metadata={"help": "p: position embeddings at the offset d start in proportion to max(1, |d|)^-p; 0: all alike"},
    )
    # benchmarks/README.md, "Ablations", has the rows that decided for a gate here and for none in softmax layers.
    lambda_gate: ChoiceEnum(GATES) = field(
        default="silu",
        metadata={"help": "factor of each lambda layer's output, silu(x W) with W width x width; none: the paper's"},
    )
    lambda_output_projection: bool = field(
        default=False, metadata={"help": "a width x width projection behind each lambda layer"}
    )
    # benchmarks/README.md, "Ablations", has the rows that decided for none where the order is known without.
    absolute_positions: ChoiceEnum(["auto", "learned", "sinusoidal", "none"]) = field(
        default="auto",
        metadata={
            "help": "kind of absolute position embeddings; auto: none where every layer sees offsets "
            "(position lambdas, --attention-rotary), else learned"
        },
    )
    no_token_positional_embeddings: bool = field(
        default=False, metadata={"help": "fairseq's name for --absolute-positions none"}
    )
    max_positions: Optional[int] = field(  # noqa: UP045  fairseq's argparse bridge knows this form only
        default=None,
        metadata={"help": "longest input in tokens (default: --tokens-per-sample)"},
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout of the embeddings and the residual branches"})
    attention_dropout: float = field(
        default=0.0,
        metadata={"help": "dropout of softmax attention weights; torch's fused CPU kernel needs 0"},
    )
    attention_rotary: bool = field(
        default=False, metadata={"help": "rotary positions in the softmax layers: they then see offsets, too"}
    )
    attention_gate: ChoiceEnum(GATES) = field(
        default="none", metadata={"help": "the same factor in the softmax layers, before their output projection"}
    )
    activation_dropout: float = field(
        default=0.0, metadata={"help": "dropout after the activation of the feed-forward networks"}
    )
    activation_fn: ChoiceEnum(get_available_activation_fns()) = field(
        default="gelu", metadata={"help": "activation of the feed-forward networks"}
    )
    post_norm: bool = field(
        default=False,
        metadata={"help": "LayerNorm after the residual sums, as in BERT; default is before"},
    )
    encoder_layerdrop: float = field(default=0.0, metadata={"help": "probability of leaving out a layer in training"})
    checkpoint_activations: bool = field(
        default=False,
        metadata={"help": "recompute activations in the backward pass to save memory"},
    )
    pooler_activation_fn: ChoiceEnum(get_available_activation_fns()) = field(
        default="tanh", metadata={"help": "activation of the sentence and classification heads"}
    )
    pooler_dropout: float = field(default=0.0, metadata={"help": "dropout of the sentence and classification heads"})


def sized_config(layers: int, width: int, heads: int) -> type[LambdaBertConfig]:
    """Return a config class with the shape as its defaults, the feed-forward width four times the model's.

    A class a size, and not an architecture function that edits the options: fairseq calls those on the command line
    only, whereas defaults of a dataclass hold there and under fairseq-hydra-train alike.
    """

    @dataclass
    class SizedConfig(LambdaBertConfig):
        encoder_layers: int = layers
        encoder_embed_dim: int = width
        encoder_ffn_embed_dim: int = 4 * width
        encoder_attention_heads: int = heads

    return SizedConfig
