"""lambda_bert for transformers (4.57 or later), without fairseq; the import registers it with the Auto classes."""

try:
    import transformers
    from transformers.modeling_layers import GradientCheckpointingLayer as _of_4_57  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fairseq_lambda.huggingface needs transformers 4.57 or later: pip install 'transformers>=4.57'"
    ) from error

from fairseq_lambda.huggingface import modeling
from fairseq_lambda.huggingface.configuration import LambdaBertConfig
from fairseq_lambda.huggingface.flat_code import CLASSES
from fairseq_lambda.huggingface.modeling import (
    LambdaBertForMaskedLM,
    LambdaBertForPreTraining,
    LambdaBertForQuestionAnswering,
    LambdaBertForSequenceClassification,
    LambdaBertForTokenClassification,
    LambdaBertModel,
)

transformers.AutoConfig.register(LambdaBertConfig.model_type, LambdaBertConfig, exist_ok=True)
for _auto, _name in CLASSES.items():
    getattr(transformers, _auto).register(LambdaBertConfig, getattr(modeling, _name), exist_ok=True)

__all__ = [
    "LambdaBertConfig",
    "LambdaBertForMaskedLM",
    "LambdaBertForPreTraining",
    "LambdaBertForQuestionAnswering",
    "LambdaBertForSequenceClassification",
    "LambdaBertForTokenClassification",
    "LambdaBertModel",
]
