"""The one error of the tools."""


class ToolError(Exception):
    """What was asked for cannot be done; its message is one line. ``nar`` prints it and ends with status 2."""
