"""Files that the tools read and write: whole or not at all, and a ToolError where that is impossible."""

import gzip
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, List

from .errors import ToolError

# All that some program takes for the end of a line, and all other control characters; a tab is an honest space.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def read(path: Path) -> bytes:
    """The bytes of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ToolError(f"cannot read {path}: {error.strerror}") from None


def read_lines(path: Path, clean: bool = False) -> List[str]:
    r"""The lines of a file, parted by ``\n`` alone; bytes that are no UTF-8 become U+FFFD.

    With ``clean``, control characters become spaces, and the number of lines and of repaired ones goes to stderr.
    """
    raw = read(path).split(b"\n")
    if not raw[-1]:
        raw.pop()
    lines = [line.decode("utf-8", errors="replace") for line in raw]
    if clean:
        lines = [CONTROL.sub(" ", line) for line in lines]
        repaired = sum(line.encode() != given for line, given in zip(lines, raw))
        note = f", {repaired} repaired (wrong encoding or control characters)" if repaired else ""
        print(f"{path}: {len(lines)} lines{note}", file=sys.stderr)
    return lines


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of ``path`` when the block ends well, and goes when it does not.

    What is no regular file, such as /dev/null or a pipe, is written to itself: renamed over, it would be gone.
    Raises OSError.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes the file whole or not at all."""
    try:
        with whole(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(line + "\n" for line in lines)
    except OSError as error:
        raise ToolError(f"cannot write {path}: {error.strerror}") from None


def gzip_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a compressed file whole or not at all; the same lines give the same bytes, whenever they are written."""
    try:
        with whole(path) as unfinished, open(unfinished, "wb") as out:
            with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
                packed.writelines(f"{line}\n".encode() for line in lines)
    except OSError as error:
        raise ToolError(f"cannot write {path}: {error.strerror}") from None


def read_gzip_lines(path: Path) -> Iterator[str]:
    """The lines of a compressed file. Raises ToolError for one that is cut or no such file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ToolError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
