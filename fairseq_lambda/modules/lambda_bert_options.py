"""Options of the core model, :class:`fairseq_lambda.modules.LambdaBert`, checked as soon as they are given."""

from dataclasses import asdict, dataclass

from fairseq_lambda.modules.activations import ACTIVATIONS
from fairseq_lambda.modules.encoder import parse_layers
from fairseq_lambda.modules.lambda_layer import check_lambda_layer, is_whole
from fairseq_lambda.modules.softmax_attention import check_attention
from fairseq_lambda.ops import known_backend

POSITIONS = ("auto", "learned", "sinusoidal", "none")
# Options that change neither the meaning of the weights nor, apart from noise in training and rounding, the results.
HARMLESS = frozenset(
    "backend checkpoint_activations max_positions dropout attention_dropout activation_dropout pooler_dropout "
    "layerdrop vocab_size padding_idx eos_idx".split()  # the last three: the dictionary is compared separately
)
NO_LIMIT = 2**31 - 1  # positions of a model without a table of positions


@dataclass
class LambdaBertOptions:
    """Options of :class:`LambdaBert`; the defaults are lambda_bert_base with a vocabulary of 8,000.

    ``lambda_layers`` names the layers that are lambda layers, see :func:`parse_layers`; the others are
    :class:`SoftmaxAttention`, with rotary positions if ``attention_rotary``. ``dim_k``, ``dim_u``, ``local_context``,
    ``norm``, ``gate``, ``terms`` and ``backend`` are those of :class:`LambdaLayer`. ``absolute_positions`` "auto" means
    "none" if every layer sees offsets (position lambdas, rotary positions), else "learned".

    Raises:
        ValueError: a value out of range, naming the option.
    """

    vocab_size: int = 8000
    padding_idx: int | None = 1
    eos_idx: int | None = 2
    layers: int = 12
    embed_dim: int = 768
    ffn_embed_dim: int = 3072
    heads: int = 12
    lambda_layers: str = "all"
    dim_k: int = 16
    dim_u: int = 1
    local_context: int = 23
    norm: str = "layer"
    gate: str = "silu"
    terms: str = "both"
    backend: str = "auto"
    absolute_positions: str = "auto"
    attention_rotary: bool = False
    max_positions: int = 512
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layerdrop: float = 0.0
    activation_fn: str = "gelu"
    post_norm: bool = False
    checkpoint_activations: bool = False
    pooler_activation_fn: str = "tanh"
    pooler_dropout: float = 0.0

    def __post_init__(self):
        """Raise ValueError for an option out of its range, naming it and its value."""
        for name in ("vocab_size", "layers", "embed_dim", "ffn_embed_dim", "heads", "max_positions"):
            if not is_whole(getattr(self, name)) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be a whole number of at least 1")
        for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop", "pooler_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: a probability, at least 0 and below 1")
        if self.absolute_positions not in POSITIONS:
            raise ValueError(f"absolute_positions={self.absolute_positions}: choose one of {', '.join(POSITIONS)}")
        for name in ("padding_idx", "eos_idx"):
            if getattr(self, name) is not None and not is_whole(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: must be one token's id, or None")
        if self.padding_idx is None and self.positions != "none":
            raise ValueError(f"padding_idx=None: {self.positions} positions are counted from it, so give an id")
        for name in ("activation_fn", "pooler_activation_fn"):
            if getattr(self, name) not in ACTIVATIONS:
                raise ValueError(f"{name}={getattr(self, name)}: choose one of {', '.join(ACTIVATIONS)}")
        self._check_layers()

    def _check_layers(self):
        o, lambda_layers = self, parse_layers(self.lambda_layers, self.layers)
        known_backend(o.backend)  # whether it can run here is seen when the model is built
        if lambda_layers:
            check_lambda_layer(
                o.embed_dim, o.heads, o.dim_k, o.dim_u, o.local_context, o.max_positions, o.norm, o.gate, o.terms
            )
        if len(lambda_layers) < o.layers:
            check_attention(o.embed_dim, o.heads, o.attention_rotary)

    @property
    def positions(self) -> str:
        """The kind of absolute positions, with "auto" resolved: "learned", "sinusoidal" or "none"."""
        if self.absolute_positions != "auto":
            return self.absolute_positions
        lambda_layers = parse_layers(self.lambda_layers, self.layers)
        lambdas_see_offsets = self.terms != "content" or not lambda_layers
        softmax_sees_offsets = self.attention_rotary or len(lambda_layers) == self.layers
        return "none" if lambdas_see_offsets and softmax_sees_offsets else "learned"

    @property
    def length_limit(self) -> int:
        """The longest input in tokens: ``max_positions`` where there is a table of positions, else NO_LIMIT."""
        is_global = bool(parse_layers(self.lambda_layers, self.layers)) and self.local_context == 0
        return self.max_positions if self.positions == "learned" or is_global else NO_LIMIT

    def meaning(self) -> dict:
        """Return the options that two models must share for the weights of one to work in the other."""
        options = {name: value for name, value in asdict(self).items() if name not in HARMLESS}
        lambda_layers = parse_layers(self.lambda_layers, self.layers)
        spec = ",".join(map(str, sorted(lambda_layers))) or "none"
        options |= {"absolute_positions": self.positions, "lambda_layers": spec}
        if len(lambda_layers) == self.layers:
            del options["attention_rotary"]
        return options
