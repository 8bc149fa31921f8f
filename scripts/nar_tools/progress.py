"""How far a long loop has come: a bar on stderr, on a terminal only."""

from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterable, Iterator, Optional, TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, unit: str, total: Optional[int] = None) -> Iterator[Item]:
    """The items; ``what`` is done stands before the bar, ``unit`` is what an item is called."""
    from tqdm import tqdm

    return iter(tqdm(items, what, total, unit=f" {unit}", leave=False, disable=None))  # None: where stderr is a file


@contextmanager
def reading(path: Path, what: str) -> Iterator[IO[bytes]]:
    """A file opened for reading; the bar shows how much of it has been read. Raises OSError."""
    from tqdm import tqdm

    options = {"desc": what, "unit": "B", "unit_scale": True, "leave": False, "disable": None}
    with open(path, "rb") as file, tqdm.wrapattr(file, "read", path.stat().st_size, **options) as watched:
        yield watched
