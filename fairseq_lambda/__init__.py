"""fairseq_lambda: BERT with lambda layers, a fairseq plugin (--user-dir) on top of a core that needs torch alone.

``fairseq-train --user-dir fairseq_lambda`` imports this module, which registers everything: fairseq itself would import
``models/`` and ``tasks/`` only, and nothing at all if the package is already imported. ``modules``, ``ops`` and what
builds on them work without fairseq.
"""

from fairseq_lambda.fairseq_import import require_fairseq
from fairseq_lambda.version import __version__  # noqa: F401

try:
    require_fairseq()
except ImportError:
    pass
else:
    from fairseq_lambda import criterions, models, optim, tasks  # noqa: F401
