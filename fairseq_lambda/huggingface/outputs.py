"""What the models return: transformers' outputs, with content lambdas."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class LambdaBertOutput(ModelOutput):
    """Returned by :class:`LambdaBertModel`.

    ``lambdas``, ``hidden_states`` and ``attentions`` are None unless asked for.

    Attributes:
        last_hidden_state: features (b, n, C).
        pooler_output: (b, C), of the first token; None without a pooler.
        lambdas: a content lambda (b, k, v) per layer, None for an attention layer.
        hidden_states: the embeddings and the states after each layer (b, n, C); the last is ``last_hidden_state``.
        attentions: attention weights (b, h, n, n) per layer, None for a lambda layer.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    lambdas: tuple[Tensor | None, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor | None, ...] | None = None


@dataclass
class LambdaBertTaskOutput(ModelOutput):
    """Returned by the models with one head: ``loss`` if labels were given, ``logits``, and :class:`LambdaBertOutput`'s.

    From :class:`LambdaBertForMaskedLM` in training, with labels, the logits are those of the labelled tokens only,
    (labelled, V), unless ``config.sparse_prediction`` is off.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    lambdas: tuple[Tensor | None, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor | None, ...] | None = None


@dataclass
class LambdaBertForPreTrainingOutput(ModelOutput):
    """Returned by :class:`LambdaBertForPreTraining`.

    ``prediction_logits`` are those of the masked LM, as in :class:`LambdaBertTaskOutput`; ``sentence_logits`` (b, 2).
    """

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    sentence_logits: Tensor | None = None
    lambdas: tuple[Tensor | None, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor | None, ...] | None = None


@dataclass
class LambdaBertForQuestionAnsweringOutput(ModelOutput):
    """Returned by :class:`LambdaBertForQuestionAnswering`; both logits (b, n)."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    lambdas: tuple[Tensor | None, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor | None, ...] | None = None
