"""fairseq_lambda: BERT with lambda layers, a fairseq user-dir plugin over a core in torch alone.

``fairseq-train --user-dir fairseq_lambda`` imports this module, and everything is registered from here: fairseq itself
would import ``models/`` and ``tasks/`` only, and nothing at all if the package is already imported. Without fairseq
``modules``, ``ops`` and what stands on them work all the same.
"""

from fairseq_lambda.fairseq_import import require_fairseq

__version__ = "0.1.0"

try:
    require_fairseq()
except ImportError:
    pass
else:
    from fairseq_lambda import criterions, models, optim, tasks  # noqa: F401
