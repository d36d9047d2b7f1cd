"""The error of corpus preparation, shared by its modules."""


class PrepareError(ValueError):
    """Something that the user can fix; the message is one line that says how.

    The command line prints it as ``error: ...``, without a traceback.
    """
