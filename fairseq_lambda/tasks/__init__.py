"""The tasks of pretraining and fine-tuning; importing them registers them."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.tasks.lambda_sentence_prediction import LambdaSentencePredictionTask  # noqa: E402
from fairseq_lambda.tasks.lambda_sequence_tagging import LambdaSequenceTaggingTask  # noqa: E402
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask  # noqa: E402
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig  # noqa: E402

__all__ = ["LambdaSentencePredictionTask", "LambdaSequenceTaggingTask", "MaskedLMSOPConfig", "MaskedLMSOPTask"]
