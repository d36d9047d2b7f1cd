"""The optimizer of the recipes; importing it registers it."""

from fairseq_lambda.fairseq_import import require_fairseq

require_fairseq()

from fairseq_lambda.optim.fused_adam import FusedAdam  # noqa: E402

__all__ = ["FusedAdam"]
