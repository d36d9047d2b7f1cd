"""fairseq_lambda: BERT with lambda layers, a fairseq user-dir plugin.

``fairseq-train --user-dir fairseq_lambda`` imports this module, and everything is registered from here: fairseq itself
would import ``models/`` and ``tasks/`` only, and nothing at all if the package is already imported.
"""

try:
    import fairseq  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fairseq_lambda is a fairseq plugin and fairseq is not installed. Install the distribution that fits this "
        'Python with `pip install "fairseq_lambda[fairseq]"` (from a checkout: `pip install -e ".[fairseq]"`).'
    ) from error

from fairseq_lambda import criterions, models, tasks  # noqa: F401
from fairseq_lambda.checkpointing import fairseq_hooks

fairseq_hooks.install(lambda task: isinstance(task, tasks.MaskedLMSOPTask))

__version__ = "0.1.0"
