"""The pretraining task; importing it registers it."""

from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPConfig, MaskedLMSOPTask

__all__ = ["MaskedLMSOPConfig", "MaskedLMSOPTask"]
