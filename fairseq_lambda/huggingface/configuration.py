"""The options of a lambda_bert as transformers stores them."""

import contextlib
import re
from dataclasses import asdict, fields
from pathlib import Path

from transformers import PretrainedConfig

from fairseq_lambda.huggingface.flat_code import AUTO_MAP, write_code
from fairseq_lambda.modules.heads import CLASSIFIERS
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT, LambdaBertOptions

# The core's options whose names differ here, where transformers' are used.
NAMES = {
    "padding_idx": "pad_token_id",
    "eos_idx": "eos_token_id",
    "layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "ffn_embed_dim": "intermediate_size",
    "heads": "num_attention_heads",
    "norm": "lambda_norm",
    "gate": "lambda_gate",
    "terms": "lambda_terms",
    "backend": "lambda_backend",
    "max_positions": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation_fn": "hidden_act",
    "pooler_activation_fn": "pooler_act",
    "pooler_dropout": "classifier_dropout",
}
ANY_LENGTH = -1  # max_position_embeddings without a limit; other libraries know this value
OWN_OF_TRANSFORMERS = ("checkpoint_activations",)  # gradient_checkpointing_enable() sets this one
ACTIVATIONS = {  # transformers' names of the core's
    "gelu_new": "gelu_accurate",
    "gelu_pytorch_tanh": "gelu_accurate",
    "relu2": "relu_squared",
    "silu": "swish",
}


class LambdaBertConfig(PretrainedConfig):
    """Options of transformers' lambda_bert models; the defaults are the base size over BERT's vocabulary.

    The core's options, :class:`fairseq_lambda.modules.LambdaBertOptions`, have transformers' names where transformers
    has one. ``local_context_size``, ``key_depth``, ``intra_depth`` and ``output_lambda_params`` are other names of
    ``local_context``, ``dim_k``, ``dim_u`` and ``output_lambdas``, for reading and writing.

    Args:
        vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: the shape.
        hidden_act, pooler_act: activations of the feed-forward networks and of the pooler, by transformers' or
            fairseq's names.
        hidden_dropout_prob, attention_probs_dropout_prob, activation_dropout, classifier_dropout, layerdrop:
            probabilities, 0 unless given.
        lambda_layers: which layers are lambda layers: "all", "none" or a list such as "0,1,3-5"; the others are softmax
            layers.
        dim_k, dim_u, local_context, lambda_norm, lambda_gate, lambda_terms, lambda_backend: of the lambda layers.
        attention_rotary: rotary positions in the attention layers.
        absolute_positions: "learned", "sinusoidal" or "none"; "auto": none if every layer sees relative positions, else
            learned.
        max_position_embeddings: longest input, if ``absolute_positions`` are learned or ``local_context`` is 0
            (global). Otherwise any length is read, and the value becomes -1.
        post_norm: LayerNorm after the residual sums, as in BERT.
        classifier_pooling: what :class:`LambdaBertForSequenceClassification` reads: "cls" (the first token) or "mean"
            (the mean of all tokens that are not padding).
        output_lambdas: return the content lambdas of all layers.
        sentence_loss_weight: of :class:`LambdaBertForPreTraining`'s sentence loss; that of the masked LM is 1.
        label_mean, label_deviation: a regression's number is ``label_mean + label_deviation * output of the head``.
        sparse_prediction: in training, the masked-LM head works on the labelled tokens only.
        pad_token_id: padding, where no ``attention_mask`` is given; None, without absolute positions: nothing is.
        eos_token_id: ends a text; two in a row stand between the texts of a pair, where no ``token_type_ids`` is given;
            None: there are no pairs then.

    Raises:
        ValueError: an option out of its range, or two that contradict each other, naming them; or the configuration is
            that of a folder for fairseq.
    """

    model_type = "lambda_bert"
    attribute_map = {  # noqa: RUF012  transformers' form
        "local_context_size": "local_context",
        "key_depth": "dim_k",
        "intra_depth": "dim_u",
        "output_lambda_params": "output_lambdas",
    }
    keys_to_ignore_at_inference = ["lambdas", "hidden_states", "attentions"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_act="gelu",
        pooler_act="tanh",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        activation_dropout=0.0,
        classifier_dropout=0.0,
        classifier_pooling="cls",
        layerdrop=0.0,
        lambda_layers="all",
        dim_k=16,
        dim_u=1,
        local_context=23,
        lambda_norm="layer",
        lambda_gate="silu",
        lambda_terms="both",
        lambda_backend="auto",
        attention_rotary=False,
        absolute_positions="auto",
        max_position_embeddings=512,
        post_norm=False,
        output_lambdas=False,
        sentence_loss_weight=1.0,
        label_mean=0.0,
        label_deviation=1.0,
        sparse_prediction=True,
        pad_token_id=0,
        bos_token_id=101,
        eos_token_id=102,
        tie_word_embeddings=True,
        **kwargs,
    ):
        if {"criterion", "sha256"} <= kwargs.keys():
            raise ValueError("this is a folder of lambda-bert export: convert it with lambda-bert to-transformers")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.pooler_act = pooler_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.activation_dropout = activation_dropout
        self.classifier_dropout = classifier_dropout or 0.0  # None in many configurations
        if classifier_pooling not in CLASSIFIERS:
            raise ValueError(f"classifier_pooling={classifier_pooling}: choose one of {', '.join(CLASSIFIERS)}")
        self.classifier_pooling = classifier_pooling
        self.layerdrop = layerdrop
        self.lambda_layers = lambda_layers
        self.dim_k = dim_k
        self.dim_u = dim_u
        self.local_context = local_context
        self.lambda_norm = lambda_norm
        self.lambda_gate = lambda_gate
        self.lambda_terms = lambda_terms
        self.lambda_backend = lambda_backend
        self.attention_rotary = attention_rotary
        self.absolute_positions = absolute_positions
        self.max_position_embeddings = max_position_embeddings
        self.post_norm = post_norm
        self.output_lambdas = output_lambdas
        self.sentence_loss_weight = sentence_loss_weight
        self.label_mean = label_mean
        self.label_deviation = label_deviation
        self.sparse_prediction = sparse_prediction
        special = {"pad_token_id": pad_token_id, "bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
        super().__init__(tie_word_embeddings=tie_word_embeddings, **special, **{"auto_map": dict(AUTO_MAP), **kwargs})
        options = core_options(self)
        if options.length_limit == NO_LIMIT:
            self.max_position_embeddings = ANY_LENGTH

    def save_pretrained(self, save_directory, *args, **options):
        """Save as transformers does, and write the code that loads the folder where this package is not installed.

        The configuration does this because a model saves it with its other files, before any of them is uploaded.
        """
        self.auto_map = dict(AUTO_MAP)  # that of a downloaded model would refer to the files there
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        write_code(save_directory)
        super().save_pretrained(save_directory, *args, **options)


def core_options(config: LambdaBertConfig) -> LambdaBertOptions:
    """Return the core's options of a configuration.

    Raises:
        ValueError: an option out of its range, by its name in the configuration.
    """
    values = {
        field.name: getattr(config, NAMES.get(field.name, field.name))
        for field in fields(LambdaBertOptions)
        if field.name not in OWN_OF_TRANSFORMERS
    }
    for name in ("activation_fn", "pooler_activation_fn"):
        values[name] = ACTIVATIONS.get(values[name], values[name])
    if any_length := values["max_positions"] == ANY_LENGTH:
        values["max_positions"] = 1  # without effect, or refused below
    with own_names():
        options = LambdaBertOptions(**values)
    if any_length and options.length_limit != NO_LIMIT:
        raise ValueError(
            f"max_position_embeddings={ANY_LENGTH}: with {options.positions} absolute positions and "
            f"local_context={options.local_context} there is a table of positions, so give the longest input"
        )
    return options


@contextlib.contextmanager
def own_names():
    """Raise the core's ValueErrors again, with the names of :class:`LambdaBertConfig` for its options."""
    try:
        yield
    except ValueError as error:
        names = "|".join(NAMES)
        message = re.sub(rf"\b({names})=(?=\S)", lambda match: f"{NAMES[match[1]]}=", str(error))
        raise ValueError(message) from error


def of_core(options: LambdaBertOptions) -> dict:
    """Return the keyword arguments of :class:`LambdaBertConfig` for the core's options."""
    values = {name: value for name, value in asdict(options).items() if name not in OWN_OF_TRANSFORMERS}
    return {NAMES.get(name, name): value for name, value in values.items()}
