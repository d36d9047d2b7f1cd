from fairseq_lambda.models.lambda_bert import LambdaBertModel

__all__ = ["LambdaBertModel"]
