"""The criterions of pretraining and fine-tuning; importing them registers them."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.criterions.fine_tuning import LambdaSentencePredictionCriterion, LambdaSequenceTaggingCriterion  # noqa: E402
from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterion  # noqa: E402

__all__ = ["LambdaSentencePredictionCriterion", "LambdaSequenceTaggingCriterion", "MaskedLMSOPCriterion"]
