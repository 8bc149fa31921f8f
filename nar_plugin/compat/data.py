"""Data: threads that load it, splits without a sentence, and what today's numpy took away from the host."""

import contextlib
import functools
import queue
import re
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Set

import numpy as np
from fairseq.data import data_utils, iterators, language_pair_dataset, token_block_dataset

from ..methods.contract import UsageError

Hook = Callable[..., Any]


def end_loading(seconds: float = 10.0) -> None:
    """Let the host's threads that still load batches end, of which nobody asks for more; waits at most so long."""
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if isinstance(thread, iterators.BackgroundConsumer):
            thread._max_len = 0  # its next batch is its last
            while thread.is_alive() and time.monotonic() < deadline:
                with contextlib.suppress(queue.Empty):  # it may wait for room in its queue
                    thread._queue.get(timeout=0.05)


class NumpyOfThen:
    """numpy as the host's modules know it: what numpy 2 renamed or took away is here by its old name.

    ``--num-batch-buckets`` needs ``interpolation=`` and ``np.compat.long``. Can go when the host asks for neither.
    """

    compat = SimpleNamespace(long=int)
    int = int

    @staticmethod
    def percentile(values: Any, percents: Any, interpolation: Any = "linear") -> Any:
        return np.percentile(values, percents, method=interpolation)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def know_the_numpy_of_then() -> None:
    for module in (data_utils, language_pair_dataset, token_block_dataset):
        module.np = NumpyOfThen()


def mappable_when_empty(init: Hook) -> Hook:
    """A split without a sentence has a file of no bytes, which cannot be mapped. Can go when the host maps none."""

    def do_init(self: Any, path: str) -> None:
        real, np_memmap = np.memmap, np.memmap

        def memmap(file: Any, *args: Any, **kwargs: Any) -> Any:
            with open(file, "rb") as content:
                if content.read(1):
                    return real(file, *args, **kwargs)
            return _Nothing()

        np.memmap = memmap  # type: ignore[misc,assignment]
        try:
            init(self, path)
        finally:
            np.memmap = np_memmap  # type: ignore[misc]

    return do_init


class _Nothing(bytearray):
    """What stands for the map of a file of no bytes; it is closed as a map is."""

    @property
    def _mmap(self) -> "_Nothing":
        return self

    def close(self) -> None:
        pass


def refused_in_one_line(check: Hook) -> Hook:
    """A folder with valid sets that nobody asks for is a ValueError of the host's; what it says is a good line."""

    @functools.wraps(check)
    def raise_if_valid_subsets_unintentionally_ignored(train_cfg: Any) -> None:
        try:
            check(train_cfg)
        except ValueError as error:
            raise UsageError(f"{train_cfg.task.data}: {error}") from None

    return raise_if_valid_subsets_unintentionally_ignored


def valid_subsets(find: Callable[[str], Set[str]]) -> Callable[[str], Set[str]]:
    """The names of further valid splits. The host's have the pair and language in them, and so are never those that
    ``--valid-subset`` asks for. Can go when they do not.
    """

    def find_extra_valid_paths(dataset_path: str) -> Set[str]:
        return {re.split(r"\.", path, maxsplit=1)[0] for path in find(dataset_path)}

    return find_extra_valid_paths
