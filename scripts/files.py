"""Files of command-line programs: read or the program ends with one line, written whole or not at all."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, NoReturn


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)


def read(path: Path) -> bytes:
    """The file's bytes; ends the program if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")


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
    """Writes the file whole or not at all; ends the program if it cannot be written."""
    try:
        with whole(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as out:
            out.writelines(line + "\n" for line in lines)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
