"""The pretraining criterion; importing it registers it."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterion  # noqa: E402

__all__ = ["MaskedLMSOPCriterion"]
