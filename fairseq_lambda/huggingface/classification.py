"""lambda_bert for transformers with heads for fine-tuning: a label per text or per token, the span of an answer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_lambda.huggingface.base import (
    LambdaBertModel,
    LambdaBertPooler,
    LambdaBertPreTrainedModel,
    returns_dict,
)
from fairseq_lambda.huggingface.configuration import LambdaBertConfig
from fairseq_lambda.huggingface.outputs import LambdaBertForQuestionAnsweringOutput, LambdaBertTaskOutput
from fairseq_lambda.modules.heads import mean_of_tokens

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


class LambdaBertForSequenceClassification(LambdaBertPreTrainedModel):
    """lambda_bert for a label, several labels or a number per text, depending on ``config.problem_type``.

    ``problem_type`` None: a number if ``num_labels`` is 1, one label if the labels given are integers, else several.
    """

    def __init__(self, config: LambdaBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.lambda_bert = LambdaBertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
            labels: (b,) classes or numbers, or (b, num_labels) zeros and ones for several labels.

        Raises:
            ValueError: an unknown ``config.problem_type``.
        """
        out = self.lambda_bert(
            input_ids, attention_mask, token_type_ids, inputs_embeds,
            output_lambdas, output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        pooled = out.pooler_output
        if self.config.classifier_pooling == "mean":
            features = out.last_hidden_state
            padding_mask = self.lambda_bert.padding_mask(features.shape[:2], input_ids, attention_mask)
            pooled = self.lambda_bert.pooler(mean_of_tokens(features, padding_mask))
        logits = self.classifier(self.dropout(pooled))
        problem = self.config.problem_type or ("regression" if self.num_labels == 1 else None)
        if problem == "regression":
            # in float32 at least: after 1992 bfloat16 has 2000
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            logits = wide * self.config.label_deviation + self.config.label_mean
        loss = None if labels is None else self._loss(logits.float(), labels, problem)
        output = LambdaBertTaskOutput(loss, logits, out.lambdas, out.hidden_states, out.attentions)
        return output if returns_dict(self.config, return_dict) else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor, problem: str | None) -> Tensor:
        if problem is None:
            problem = PROBLEMS[1] if labels.dtype in (torch.long, torch.int) else PROBLEMS[2]
        self.config.problem_type = problem  # as transformers' own models do: saved with the model
        if problem == "regression":
            return F.mse_loss(logits.view(labels.shape), labels.float())
        if problem == "single_label_classification":
            return F.cross_entropy(logits, labels.view(-1))
        if problem == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.float())
        raise ValueError(f"problem_type={problem}: choose one of {', '.join(PROBLEMS)}")


class LambdaBertForTokenClassification(LambdaBertPreTrainedModel):
    """lambda_bert for a label per token: dense layer, activation and projection, as in fairseq."""

    def __init__(self, config: LambdaBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.lambda_bert = LambdaBertModel(config, add_pooling_layer=False)
        self.transform = LambdaBertPooler(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
            labels: (b, n) classes, -100 where there is none.
        """
        out = self.lambda_bert(
            input_ids, attention_mask, token_type_ids, inputs_embeds,
            output_lambdas, output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.classifier(self.dropout(self.transform(out.last_hidden_state)))
        loss = None if labels is None else F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        output = LambdaBertTaskOutput(loss, logits, out.lambdas, out.hidden_states, out.attentions)
        return output if returns_dict(self.config, return_dict) else output.to_tuple()


class LambdaBertForQuestionAnswering(LambdaBertPreTrainedModel):
    """lambda_bert for extractive question answering: where the answer starts and ends."""

    def __init__(self, config: LambdaBertConfig):
        super().__init__(config)
        self.lambda_bert = LambdaBertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_lambdas: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LambdaBertForQuestionAnsweringOutput | tuple:
        """Return a :class:`LambdaBertForQuestionAnsweringOutput`; for the other arguments see :class:`LambdaBertModel`.

        Args:
            start_positions, end_positions: (b,) the answer's first and last token; those outside the text are ignored.
        """
        out = self.lambda_bert(
            input_ids, attention_mask, token_type_ids, inputs_embeds,
            output_lambdas, output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        start, end = self.qa_outputs(self.dropout(out.last_hidden_state)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start.size(1)
            ends = [positions.view(-1).clamp(0, length) for positions in (start_positions, end_positions)]
            losses = [
                F.cross_entropy(logits.float(), positions, ignore_index=length)
                for logits, positions in zip((start, end), ends, strict=True)
            ]
            loss = sum(losses) / 2
        output = LambdaBertForQuestionAnsweringOutput(loss, start, end, out.lambdas, out.hidden_states, out.attentions)
        return output if returns_dict(self.config, return_dict) else output.to_tuple()
