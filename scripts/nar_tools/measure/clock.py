"""The parent's side of a benchmark: processes that take turns, medians of their times, quietness of the machine.

torch is not imported here: only the systems' own processes need it.
"""

import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ..errors import ToolError
from ..progress import progress
from .entrants import Entrant
from .results import Row
from .served import serve
from .timed import Timing

WARM_UP = 10
TURN = 20
"""Sentences that a system decodes before the next one has its turn."""
BUCKET = 10
"""Width of a range of source lengths."""
BUSY = 0.1
"""Processor cores that others may use while a machine counts as quiet."""


class Worker:
    """A system in a process of its own, idle unless called."""

    def __init__(self, entrant: Entrant, argv: List[str], threads: int) -> None:
        self.entrant, self.facts = entrant, {}  # type: Entrant, Dict[str, Any]
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, argv, entrant.engine, threads, entrant.simulated), daemon=True
        )
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        try:
            succeeded, value = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise ToolError(f"{self.entrant.id}: its process died with {self.process.exitcode}") from None
        if not succeeded:
            raise ToolError(f"{self.entrant.id}: {value}")
        return value

    def call(self, method: str, *arguments: Any) -> Any:
        self.pipe.send((method, arguments))
        return self.answer()

    def close(self) -> None:
        self.pipe.close()
        self.process.join(timeout=5)
        self.process.terminate()  # where it still computes
        self.process.join()


def cpu_usage(workers: Sequence[Worker]) -> Tuple[float, float]:
    """Seconds of wall, and of processor used by all but us, since some moment. Linux only."""
    try:
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        raise ToolError("cannot tell whether the machine is quiet (no /proc/stat): --allow-noise") from None
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks
    return time.monotonic(), busy - time.process_time() - sum(worker.call("cpu_seconds") for worker in workers)


def cores_of_others(since: Tuple[float, float], workers: Sequence[Worker]) -> float:
    """How many cores others have used on average, time stolen by other virtual machines included."""
    wall, busy = cpu_usage(workers)
    return (busy - since[1]) / (wall - since[0])


def is_noisy(seconds: float, allowed: bool) -> bool:
    """Watches the machine; raises ToolError where others use it and that is not allowed."""
    try:
        since = cpu_usage([])
        time.sleep(seconds)
        cores = cores_of_others(since, [])
    except ToolError:
        if allowed:
            return True
        raise
    if cores > BUSY and not allowed:
        raise ToolError(f"others use {cores:.1f} cores of this machine; wait until it is quiet, or --allow-noise")
    return cores > BUSY


def measure_times(workers: Sequence[Any], sentences: List[int], warm_up: List[int], repeats: int) -> List[List[Timing]]:
    """For each worker the timings of every sentence, repeats one after the other: (repeats * sentences) each."""
    turns = [sentences[first : first + TURN] for first in range(0, len(sentences), TURN)]
    timings: List[List[Timing]] = [[] for _ in workers]
    for worker in workers:
        worker.call("time", warm_up)
    for turn in progress(turns * repeats, "time", "turns"):
        for worker, found in zip(workers, timings):
            found += worker.call("time", turn)
    return timings


def batches_of(sentences: Sequence[int], lengths: Sequence[int], size: int) -> List[List[int]]:
    """The sentences in batches of ``size``, sorted by the ``lengths`` of all sources as fairseq-generate sorts them."""
    ordered = sorted(sentences, key=lambda i: (lengths[i], i))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


def measure_throughput(
    workers: Sequence[Any], sentences: Sequence[int], lengths: Sequence[int], sizes: Sequence[int], repeats: int
) -> List[Dict[str, float]]:
    """For each worker its sentences a second by size of batch, the median of the repeats; the workers take turns."""
    batches = {size: batches_of(sentences, lengths, size) for size in sizes}
    seconds: List[Dict[int, List[float]]] = [{size: [] for size in sizes} for _ in workers]
    for size in progress([*sizes] * repeats, "throughput", "turns"):
        for worker, found in zip(workers, seconds):
            found[size].append(worker.call("seconds", batches[size]))
    return [
        {str(size): round(len(sentences) / statistics.median(times), 3) for size, times in found.items()}
        for found in seconds
    ]


def medians(values: Sequence[float], sentences: int) -> List[float]:
    """Over the repeats, for each sentence."""
    return [statistics.median(values[i::sentences]) for i in range(sentences)]


def by_length(times: List[float], lengths: List[int]) -> Dict[str, float]:
    """The median time of each range of source lengths, shortest first."""
    ranges: Dict[int, List[float]] = {}
    for ms, length in sorted(zip(times, lengths), key=lambda pair: pair[1]):
        ranges.setdefault(max(0, length - 1) // BUCKET, []).append(ms)
    return {f"{n * BUCKET + 1}-{(n + 1) * BUCKET}": round(statistics.median(ms), 3) for n, ms in ranges.items()}


def time_fields(timings: List[Timing], lengths: List[int]) -> Row:
    """The fields of a row that say how long it took; ``lengths``: of the sentences' sources."""
    import numpy as np

    times, bare = medians([ms for ms, _, _ in timings], len(lengths)), [b for _, _, b in timings if b is not None]
    calls = [n for _, n, _ in timings if n is not None]
    return {
        "passes": round(statistics.mean(calls), 3) if calls else None,
        "ms_per_sentence": round(statistics.median(times), 3),
        "ms_mean": round(statistics.mean(times), 3),
        "ms_p95": round(float(np.percentile(times, 95)), 3),
        "ms_by_length": by_length(times, lengths),
        "bare_ms": round(statistics.median(medians(bare, len(lengths))), 3) if bare else None,
        "timed_sentences": len(lengths),
    }
