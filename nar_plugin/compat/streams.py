"""Text in and out of the host's programs."""

import contextlib
import fileinput
import io
import sys
from typing import Any, Callable


def tolerate_bad_text() -> None:
    """Let the host's programs take and give any line, whatever the locale: UTF-8, and only a line feed ends a line.

    Bad bytes of the input become U+FFFD. A line of output leaves at once, so that a program at the other end of a pipe
    can wait for its answer. Can go when the host opens its streams so.
    """
    with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # somebody has read of it, or replaced it
        sys.stdin.reconfigure(encoding="utf-8", errors="replace", newline="\n")  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)  # type: ignore[union-attr]

    def hook_encoded(encoding: str, errors: str = "replace") -> Callable[..., Any]:
        return lambda name, mode: open(name, mode, encoding=encoding, errors=errors, newline="\n")

    fileinput.hook_encoded = hook_encoded  # type: ignore[assignment]
