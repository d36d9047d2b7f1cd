"""The lambda layer and the models made of it, in torch alone."""

from fairseq_lambda.modules.encoder import EncoderLayer, LambdaEncoder, parse_layers
from fairseq_lambda.modules.heads import ClassificationHead, MaskedLMHead
from fairseq_lambda.modules.lambda_bert import LambdaBert, LambdaBertOptions
from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention

__all__ = [
    "ClassificationHead",
    "EncoderLayer",
    "LambdaBert",
    "LambdaBertOptions",
    "LambdaEncoder",
    "LambdaLayer",
    "MaskedLMHead",
    "SoftmaxAttention",
    "parse_layers",
]
