"""All lambda_bert models of transformers: the file that ``auto_map`` of a saved folder names."""

from fairseq_lambda.huggingface.base import LambdaBertModel, LambdaBertPreTrainedModel
from fairseq_lambda.huggingface.classification import (
    LambdaBertForQuestionAnswering,
    LambdaBertForSequenceClassification,
    LambdaBertForTokenClassification,
)
from fairseq_lambda.huggingface.pretraining import LambdaBertForMaskedLM, LambdaBertForPreTraining

__all__ = [
    "LambdaBertForMaskedLM",
    "LambdaBertForPreTraining",
    "LambdaBertForQuestionAnswering",
    "LambdaBertForSequenceClassification",
    "LambdaBertForTokenClassification",
    "LambdaBertModel",
    "LambdaBertPreTrainedModel",
]
