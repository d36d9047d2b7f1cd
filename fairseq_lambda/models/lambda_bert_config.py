"""Options of ``lambda_bert`` and the shapes of its sizes."""

# ruff: noqa: RUF009  what _option returns is a field
import re
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import DictConfig, OmegaConf

from fairseq_lambda.modules import LambdaBertOptions
from fairseq_lambda.modules.activations import ACTIVATIONS
from fairseq_lambda.modules.lambda_bert_options import POSITIONS
from fairseq_lambda.modules.lambda_layer import GATES, NORMS, TERMS
from fairseq_lambda.ops import BACKENDS, OLD_NAMES

# BERT's miniatures (Turc et al., 2019), base and large (Devlin et al., 2019): layers, width, heads.
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


def _option(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass
class LambdaBertConfig(FairseqDataclass):
    encoder_layers: int = _option(12, "number of layers")
    encoder_embed_dim: int = _option(768, "width of the model")
    encoder_ffn_embed_dim: int = _option(3072, "inner width of the feed-forward networks")
    encoder_attention_heads: int = _option(12, "heads of each lambda or attention layer")
    lambda_layers: str = _option(
        "all", "which layers are lambda layers: all, none, or a list such as 0,1,3-5; the others are attention layers"
    )
    lambda_key_depth: int = _option(16, "query and key depth k")
    lambda_intra_depth: int = _option(1, "intra-depth u")
    lambda_local_context: int = _option(
        23, "number of positions that a token's position lambda covers, centred on the token; odd; 0: all positions"
    )
    lambda_norm: ChoiceEnum(NORMS) = _option("layer", "norm of queries and values; batch: as in the paper")
    lambda_backend: ChoiceEnum((*BACKENDS, *OLD_NAMES)) = _option(
        "auto", "implementation of the lambda products; 'chunked' is the old name of 'banded'"
    )
    lambda_terms: ChoiceEnum(TERMS) = _option(
        "both", "content: no position lambdas; position: no content lambda (ablations)"
    )
    # docs/ablations.md has the results behind the gate, and behind no absolute positions where layers see the order.
    lambda_gate: ChoiceEnum(GATES) = _option(
        "silu", "silu: multiply each lambda layer's output by silu(x W), W width x width; none: as in the paper"
    )
    absolute_positions: ChoiceEnum(POSITIONS) = _option(
        "auto",
        "kind of absolute position embeddings; auto: none if every layer sees relative positions (position lambdas, "
        "--attention-rotary), else learned",
    )
    max_positions: Optional[int] = _option(  # noqa: UP045  fairseq's argparse bridge supports only this form
        None, "longest input in tokens (default: --tokens-per-sample)"
    )
    dropout: float = _option(0.0, "dropout of the embeddings and the residual branches")
    attention_dropout: float = _option(0.0, "dropout of softmax attention weights; torch's fused CPU kernel needs 0")
    attention_rotary: bool = _option(False, "rotary (relative) positions in the attention layers")
    activation_dropout: float = _option(0.0, "dropout after the activation of the feed-forward networks")
    activation_fn: ChoiceEnum(ACTIVATIONS) = _option("gelu", "activation of the feed-forward networks")
    post_norm: bool = _option(False, "LayerNorm after the residual sums, as in BERT (default: before each sublayer)")
    encoder_layerdrop: float = _option(0.0, "probability of skipping a layer in training")
    checkpoint_activations: bool = _option(False, "recompute activations in the backward pass to save memory")
    pooler_activation_fn: ChoiceEnum(ACTIVATIONS) = _option(
        "tanh", "activation of the sentence and classification heads"
    )
    pooler_dropout: float = _option(0.0, "dropout of the sentence and classification heads")
    load_checkpoint_heads: bool = _option(False, "register and load the classification heads of a loaded checkpoint")


# Flags whose names differ from the core's options, which are those of LambdaBertOptions.
FLAGS = {
    "layers": "encoder_layers",
    "embed_dim": "encoder_embed_dim",
    "ffn_embed_dim": "encoder_ffn_embed_dim",
    "heads": "encoder_attention_heads",
    "layerdrop": "encoder_layerdrop",
    "dim_k": "lambda_key_depth",
    "dim_u": "lambda_intra_depth",
    "local_context": "lambda_local_context",
    "norm": "lambda_norm",
    "gate": "lambda_gate",
    "terms": "lambda_terms",
    "backend": "lambda_backend",
}
OF_DICTIONARY = ("vocab_size", "padding_idx", "eos_idx")


def core_options(cfg: LambdaBertConfig, dictionary, max_positions: int) -> LambdaBertOptions:
    """Return the core's options for this configuration and fairseq's ``dictionary``, ``<mask>`` included.

    Raises:
        ValueError: an option out of its range, naming flag and value.
    """
    names = [f.name for f in fields(LambdaBertOptions) if f.name not in OF_DICTIONARY]
    values = {name: getattr(cfg, FLAGS.get(name, name)) for name in names}
    values |= {"max_positions": max_positions, "vocab_size": len(dictionary)}
    values |= {"padding_idx": dictionary.pad(), "eos_idx": dictionary.eos()}
    try:
        return LambdaBertOptions(**{name: v.value if isinstance(v, Enum) else v for name, v in values.items()})
    except ValueError as error:
        raise ValueError(in_flags(str(error))) from error


def plain(cfg) -> DictConfig:
    """Return a configuration of plain values: no enumerations, no interpolations, no dataclass behind it."""
    return OmegaConf.create(OmegaConf.to_container(OmegaConf.create(cfg), resolve=True, enum_to_str=True))


def in_flags(message: str) -> str:
    """Return an error message of the core with ``option=value`` as ``--flag value``."""
    names = "|".join(f.name for f in fields(LambdaBertOptions))
    return re.sub(rf"\b({names})=(?=\S)", lambda match: f"{flag_of(match[1])} ", message)


def flag_of(option: str) -> str:
    """Return the command-line flag of one of the core's options."""
    return "--" + FLAGS.get(option, option).replace("_", "-")


def sized_config(layers: int, width: int, heads: int) -> type[LambdaBertConfig]:
    """Return a config class with the shape as its defaults; the feed-forward width is four times the model's.

    A class per size, not an architecture function that edits the options: fairseq calls such functions only for a
    command line, whereas the defaults of a dataclass also apply under fairseq-hydra-train.
    """

    @dataclass
    class SizedConfig(LambdaBertConfig):
        encoder_layers: int = layers
        encoder_embed_dim: int = width
        encoder_ffn_embed_dim: int = 4 * width
        encoder_attention_heads: int = heads

    return SizedConfig
