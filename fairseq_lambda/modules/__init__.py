"""The lambda layer and the models built from it, in plain torch."""

from fairseq_lambda.modules.encoder import EncoderLayer, LambdaEncoder, parse_layers
from fairseq_lambda.modules.heads import ClassificationHead, MaskedLMHead
from fairseq_lambda.modules.lambda_bert import LambdaBert
from fairseq_lambda.modules.lambda_bert_options import LambdaBertOptions
from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention
from fairseq_lambda.ops.documents import Documents

__all__ = [
    "ClassificationHead",
    "Documents",
    "EncoderLayer",
    "LambdaBert",
    "LambdaBertOptions",
    "LambdaEncoder",
    "LambdaLayer",
    "MaskedLMHead",
    "SoftmaxAttention",
    "parse_layers",
]
