"""The error of corpus preparation, shared by its modules."""


class PrepareError(ValueError):
    """What a user can put right: the message is one line that says what to do.

    The command line prints it as ``error: ...``, without a traceback.
    """
