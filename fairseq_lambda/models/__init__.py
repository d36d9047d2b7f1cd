"""The fairseq model; importing it registers it and its sizes."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.models.lambda_bert import LambdaBertModel  # noqa: E402

__all__ = ["LambdaBertModel"]
