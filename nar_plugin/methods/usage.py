"""The one error of use."""


class UsageError(Exception):
    """What the user asked for cannot be done. The message is one line that says what to change.

    A caller in Python catches it like any other error. fairseq's programs print its line and end with status 1, without
    a traceback (``compat.programs``).
    """
