"""The pretraining task; importing it registers it."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask  # noqa: E402
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig  # noqa: E402

__all__ = ["MaskedLMSOPConfig", "MaskedLMSOPTask"]
