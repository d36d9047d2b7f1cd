"""The pretraining task; importing it registers it."""

from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig

__all__ = ["MaskedLMSOPConfig", "MaskedLMSOPTask"]
