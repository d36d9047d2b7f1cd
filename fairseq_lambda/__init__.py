"""fairseq_lambda: BERT with lambda layers, a fairseq user-dir plugin over a core in torch alone.

``fairseq-train --user-dir fairseq_lambda`` imports this module, and everything is registered from here: fairseq itself
would import ``models/`` and ``tasks/`` only, and nothing at all if the package is already imported. Without fairseq
``modules``, ``ops`` and what stands on them work all the same.
"""

import logging

__version__ = "0.1.0"


def require_fairseq() -> None:
    """Return if fairseq can be imported.

    Raises:
        ImportError: it cannot; the message says what to install.
    """
    root, taken = logging.getLogger(), logging.NullHandler()
    root.addHandler(taken)  # else fairseq's import sets up logging for the whole process, and advertises tensorboardX
    try:
        import fairseq  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"this part of fairseq_lambda needs fairseq ({error}). Install the distribution that fits this Python with "
            '`pip install "fairseq_lambda[fairseq]"` (from a checkout: `pip install -e ".[fairseq]"`)'
        ) from error
    finally:
        root.removeHandler(taken)


try:
    require_fairseq()
except ImportError:
    pass
else:
    from fairseq_lambda import criterions, models, tasks  # noqa: F401
