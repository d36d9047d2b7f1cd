"""lambda_bert for transformers, without a task: the core module behind transformers' conventions."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fairseq_lambda.huggingface.configuration import LambdaBertConfig, core_options, own_names
from fairseq_lambda.huggingface.outputs import LambdaBertOutput
from fairseq_lambda.modules.activations import activation
from fairseq_lambda.modules.lambda_bert import LambdaBert, initialise
from fairseq_lambda.modules.norms import MaskedBatchNorm
from fairseq_lambda.ops.unrolled import is_recording


class LambdaBertPreTrainedModel(PreTrainedModel):
    """What all lambda_bert models of transformers share. The configuration writes their code into saved folders."""

    config_class = LambdaBertConfig
    base_model_prefix = "lambda_bert"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # each loss is a mean over its batch
    _supports_sdpa = True
    _no_split_modules = ["EncoderLayer"]  # noqa: RUF012  transformers' form

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the weights of ``module`` as the core does; loaded weights stay as they are.

        Only functions of torch.nn.init are used: transformers protects loaded weights from these and no others.
        """
        own = list(module.parameters(recurse=False))
        if own and all(getattr(parameter, "_is_hf_initialized", False) for parameter in own):
            return
        initialise(module)
        if isinstance(module, nn.LayerNorm | nn.RMSNorm | MaskedBatchNorm):
            nn.init.ones_(module.weight)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, MaskedBatchNorm):
            nn.init.zeros_(module.running_mean)
            nn.init.ones_(module.running_var)

    def get_input_embeddings(self) -> nn.Embedding:
        return getattr(self, self.base_model_prefix, self).core.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        getattr(self, self.base_model_prefix, self).core.embed_tokens = value


class LambdaBertPooler(nn.Module):
    """Returns features (..., C) after dropout, a dense layer and an activation: the first part of a head."""

    def __init__(self, config: LambdaBertConfig):
        super().__init__()
        options = core_options(config)
        self.dense = nn.Linear(options.embed_dim, options.embed_dim)
        self.activation_fn = activation(options.pooler_activation_fn)
        self.dropout = nn.Dropout(options.pooler_dropout)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation_fn(self.dense(self.dropout(features)))


def first_token(features: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Return the features (b, C) of the first token that is not padding, which may be on the left."""
    if padding_mask is None:
        return features[:, 0]
    index = first_index(padding_mask)
    return features.gather(1, index[:, None, None].expand(-1, 1, features.size(-1)))[:, 0]


def first_index(padding_mask: Tensor) -> Tensor:
    """Return the index (b,) of the first token that is not padding."""
    return (~padding_mask).int().argmax(dim=1)


class LambdaBertModel(LambdaBertPreTrainedModel):
    """transformers' model: features, a pooled vector, content lambdas. fairseq's model has the same ``core`` inside.

    ``fairseq_lambda.models`` has a class of the same name for fairseq.

    Args:
        config: see :class:`LambdaBertConfig`.
        add_pooling_layer: compute ``pooler_output``.
    """

    def __init__(self, config: LambdaBertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        with own_names():
            self.core = LambdaBert(core_options(config), lm_head=False)
        self.pooler = LambdaBertPooler(config) if add_pooling_layer else None
        self.post_init()

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the core recomputes the layers' activations in the backward pass."""
        return self.core.encoder.checkpoint_activations

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        self.core.encoder.checkpoint_activations = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_lambdas: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        at: Tensor | None = None,
    ) -> LambdaBertOutput | tuple:
        """Return a :class:`LambdaBertOutput`, or its fields as a tuple if ``return_dict`` is False.

        Args:
            input_ids: (b, n) token ids, padded on either side.
            attention_mask: (b, n), 0 or False where padded; None: where ``input_ids`` are ``config.pad_token_id``.
            token_type_ids: (b, n), 0 in the first text and 1 in the second; None: the second text begins where two
                ``config.eos_token_id`` follow each other.
            inputs_embeds: (b, n, C) in place of ``input_ids``: what ``get_input_embeddings()`` would return for them.
            output_lambdas, output_attentions, output_hidden_states, return_dict: None: as in the configuration.
            at: positions (p,) in the flattened (b * n); ``last_hidden_state`` then has only these, (p, C), which saves
                work in the top layer, and nothing is pooled. Not with hidden states or attentions.

        Raises:
            ValueError: neither or both of ``input_ids`` and ``inputs_embeds``; a mask of another shape; too many
                tokens; ``output_attentions`` of a model without attention layers, or in training with ``layerdrop``;
                ``at`` with hidden states.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        config = self.config
        output_lambdas = config.output_lambdas if output_lambdas is None else output_lambdas
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states

        tokens = input_ids if inputs_embeds is None else inputs_embeds
        padding_mask = self.padding_mask(tokens.shape[:2], input_ids, attention_mask)
        keeps_states = bool(output_hidden_states or output_attentions)
        if at is not None and keeps_states:
            raise ValueError("hidden states and attentions need all positions: leave out at")
        features, states, lambdas = self.core(
            tokens, padding_mask, token_type_ids, keeps_states, bool(output_lambdas), at=at
        )
        pools = self.pooler is not None and at is None
        output = LambdaBertOutput(
            last_hidden_state=features,
            pooler_output=self.pooler(first_token(features, padding_mask)) if pools else None,
            lambdas=tuple(lambdas) if output_lambdas else None,
            hidden_states=(*states[:-1], features) if output_hidden_states else None,
            attentions=self._attentions(states, padding_mask) if output_attentions else None,
        )
        return output if returns_dict(config, return_dict) else output.to_tuple()

    def padding_mask(self, shape: torch.Size, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        """Return where there is padding, (b, n) = ``shape`` bool, or None for nowhere; see ``forward``."""
        if attention_mask is not None:
            if attention_mask.shape != shape:
                given, wanted = tuple(attention_mask.shape), tuple(shape)
                raise ValueError(f"attention_mask {given}: must be (batch, tokens), which is {wanted}")
            padding = attention_mask.eq(0)
        elif input_ids is not None and self.config.pad_token_id is not None:
            padding = input_ids.eq(self.config.pad_token_id)
        else:
            return None
        is_graph = is_recording() or torch.compiler.is_compiling()  # a graph has to serve both cases
        return padding if is_graph or padding.any() else None

    def _attentions(self, states: list[Tensor], padding_mask: Tensor | None) -> tuple[Tensor | None, ...]:
        layers, layerdrop = self.core.encoder.layers, self.core.encoder.layerdrop
        if self.training and layerdrop:
            raise ValueError(
                f"output_attentions=True in training with layerdrop={layerdrop}, which leaves layers out: call eval()"
            )
        found = tuple(layer.attention_weights(x, padding_mask) for layer, x in zip(layers, states[:-1], strict=True))
        if all(weights is None for weights in found):
            raise ValueError("output_attentions=True: lambda layers have no attention weights; see output_lambdas")
        return found


def returns_dict(config: LambdaBertConfig, return_dict: bool | None) -> bool:
    """Return whether a ModelOutput is wanted rather than a tuple."""
    return config.return_dict if return_dict is None else return_dict
