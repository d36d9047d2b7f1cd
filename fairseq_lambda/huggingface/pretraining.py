"""lambda_bert for transformers with the heads of pretraining: masked LM, and sentence order or next sentence."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_lambda.huggingface.base import LambdaBertModel, LambdaBertPreTrainedModel, first_index, returns_dict
from fairseq_lambda.huggingface.configuration import LambdaBertConfig, core_options
from fairseq_lambda.huggingface.outputs import LambdaBertForPreTrainingOutput, LambdaBertTaskOutput
from fairseq_lambda.modules.heads import MaskedLMHead

IGNORED = -100  # transformers' label of what is not predicted
# Rows of the masked-LM head are padded to a multiple of this: oneDNN makes a bfloat16 kernel for each new shape.
HEAD_MULTIPLE = 32


class _WithMaskedLMHead(LambdaBertPreTrainedModel):
    """The masked-LM head over the tied token embeddings, and its loss."""

    _tied_weights_keys = {"lm_head.weight": "lambda_bert.core.embed_tokens.weight"}  # noqa: RUF012

    def _make_head(self, config: LambdaBertConfig) -> MaskedLMHead:
        options = core_options(config)
        return MaskedLMHead(options.embed_dim, options.vocab_size, options.activation_fn)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Use the weight and bias of a resized projection; the rest of the head stays."""
        self.lm_head.weight, self.lm_head.bias = value.weight, value.bias
        self.lm_head.out_features = value.out_features

    def labelled(self, labels: Tensor | None) -> Tensor | None:
        """Return the labelled positions (p,) in the flattened (b * n), padded with zeros; None: the head reads all."""
        if labels is None or not (self.training and self.config.sparse_prediction) or torch.compiler.is_compiling():
            return None
        positions = labels.flatten().ne(IGNORED).nonzero().squeeze(1)
        count = positions.numel()
        return F.pad(positions, (0, -count % HEAD_MULTIPLE if count else HEAD_MULTIPLE))

    def keeps_states(self, output_attentions: bool | None, output_hidden_states: bool | None) -> bool:
        """Return whether the top layer has to compute all positions, whatever the head reads."""
        given = (
            (output_attentions, self.config.output_attentions),
            (output_hidden_states, self.config.output_hidden_states),
        )
        return any(default if wanted is None else wanted for wanted, default in given)

    def predict(
        self, features: Tensor, labels: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits of the masked LM and their mean loss; see :class:`LambdaBertTaskOutput`.

        ``features`` are those of all tokens, (b, n, C), or of the labelled ``positions``, (p, C).
        """
        if positions is not None and features.dim() == 3:
            features = features.flatten(0, 1).index_select(0, positions)
        logits = self.lm_head(features)
        if labels is None:
            return logits, None
        labels = labels.flatten()
        if positions is None:
            return logits, _cross_entropy(logits.flatten(0, 1), labels)
        count = labels.ne(IGNORED).sum()
        is_label = torch.arange(len(positions), device=labels.device) < count
        return logits[:count], _cross_entropy(logits, labels[positions].where(is_label, IGNORED))


class LambdaBertForMaskedLM(_WithMaskedLMHead):
    """lambda_bert for masked language modelling."""

    # the heads of LambdaBertForPreTraining
    _keys_to_ignore_on_load_unexpected = [r"^lambda_bert\.pooler\.", r"^sentence_classifier\."]  # noqa: RUF012

    def __init__(self, config: LambdaBertConfig):
        super().__init__(config)
        self.lambda_bert = LambdaBertModel(config, add_pooling_layer=False)
        self.lm_head = self._make_head(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_lambdas: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LambdaBertTaskOutput | tuple:
        """Return a :class:`LambdaBertTaskOutput`; for the other arguments see :class:`LambdaBertModel`.

        Args:
            labels: (b, n) token ids to predict, -100 elsewhere.
        """
        positions = self.labelled(labels)
        at = None if self.keeps_states(output_attentions, output_hidden_states) else positions
        out = self.lambda_bert(
            input_ids, attention_mask, token_type_ids, inputs_embeds,
            output_lambdas, output_attentions, output_hidden_states, return_dict=True, at=at,
        )  # fmt: skip
        logits, loss = self.predict(out.last_hidden_state, labels, positions)
        output = LambdaBertTaskOutput(loss, logits, out.lambdas, out.hidden_states, out.attentions)
        return output if returns_dict(self.config, return_dict) else output.to_tuple()


class LambdaBertForPreTraining(_WithMaskedLMHead):
    """lambda_bert as it is pretrained: masked LM, and sentence order or next sentence on top of the pooler."""

    def __init__(self, config: LambdaBertConfig):
        super().__init__(config)
        self.lambda_bert = LambdaBertModel(config)
        self.lm_head = self._make_head(config)
        self.sentence_classifier = nn.Linear(config.hidden_size, 2)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_lambdas: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LambdaBertForPreTrainingOutput | tuple:
        """Return a :class:`LambdaBertForPreTrainingOutput`; for the other arguments see :class:`LambdaBertModel`.

        Args:
            labels: (b, n) token ids to predict, -100 elsewhere.
            next_sentence_label: (b,), 0 for texts in order (or next to each other), 1 for swapped (or random) ones,
                -100 for a single text.
        """
        positions = self.labelled(labels)
        at = None
        if positions is not None and not self.keeps_states(output_attentions, output_hidden_states):
            at = torch.cat([self.first_positions(labels.shape, input_ids, attention_mask), positions])
        out = self.lambda_bert(
            input_ids, attention_mask, token_type_ids, inputs_embeds,
            output_lambdas, output_attentions, output_hidden_states, return_dict=True, at=at,
        )  # fmt: skip
        features, pooled = out.last_hidden_state, out.pooler_output
        if at is not None:
            first, features = features.split([len(labels), len(positions)])
            pooled = self.lambda_bert.pooler(first)
        logits, loss = self.predict(features, labels, positions)
        sentence_logits = self.sentence_classifier(self.dropout(pooled))
        if next_sentence_label is not None:
            sentence_loss = self.config.sentence_loss_weight * _cross_entropy(sentence_logits, next_sentence_label)
            loss = sentence_loss if loss is None else loss + sentence_loss
        output = LambdaBertForPreTrainingOutput(
            loss, logits, sentence_logits, out.lambdas, out.hidden_states, out.attentions
        )
        return output if returns_dict(self.config, return_dict) else output.to_tuple()

    def first_positions(self, shape: torch.Size, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Return the positions (b,) of the first tokens in the flattened (b * n)."""
        batch, length = shape
        mask = self.lambda_bert.padding_mask(shape, input_ids, attention_mask)
        starts = torch.arange(0, batch * length, length, device=self.lm_head.weight.device)
        return starts if mask is None else starts + first_index(mask)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the labels that are not ``IGNORED``, in float32 at least; 0 if there are none."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(wide, labels, ignore_index=IGNORED, reduction="sum")
    return total / labels.ne(IGNORED).sum().clamp(min=1)
