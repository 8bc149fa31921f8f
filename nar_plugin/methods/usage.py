"""The one error of use."""


class UsageError(SystemExit):
    """What the user asked for cannot be done. The message is one line that says what to change.

    It derives from SystemExit, so that a program prints that line and ends with status 1, without a traceback; a
    caller who wants to go on catches UsageError.
    """
