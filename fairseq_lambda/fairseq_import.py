"""The check that fairseq is installed."""

import logging
import warnings


def require_fairseq() -> None:
    """Check that fairseq can be imported.

    Raises:
        ImportError: it cannot; the message says what to install.
    """
    root, taken = logging.getLogger(), logging.NullHandler()
    root.addHandler(taken)  # else importing fairseq sets up logging for the whole process and advertises tensorboardX
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch from 2.14 on, about decorators inside fairseq
            import fairseq  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"this part of fairseq_lambda needs fairseq ({error}). Install the distribution that fits this Python with "
            '`pip install -e ".[fairseq]"` in a checkout'
        ) from error
    finally:
        root.removeHandler(taken)
