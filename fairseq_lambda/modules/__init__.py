from fairseq_lambda.modules.lambda_encoder import EncoderLayer, LambdaEncoder, parse_layers
from fairseq_lambda.modules.lambda_layer import LambdaLayer
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention

__all__ = ["EncoderLayer", "LambdaEncoder", "LambdaLayer", "SoftmaxAttention", "parse_layers"]
