"""Where the time of a decode goes, operator by operator, as torch's profiler sees it."""

import statistics
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence

from ..errors import ToolError
from .clock import batches_of
from .timed import Timed

PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "scaled_dot_product", "linear_dynamic", "linear_with_input")
"""Parts of the names of operators that multiply matrices; attention is one of them."""


@dataclass(frozen=True)
class Operator:
    """Of one decode of all sentences: milliseconds in the operator itself, and how often it was called."""

    name: str
    ms: float
    calls: float

    @property
    def is_product(self) -> bool:
        """Whether it is what no decode with these networks can do without."""
        words = self.name.removeprefix("aten::").removeprefix("quantized::").removeprefix("_")
        return words in PRODUCTS or words.startswith(PRODUCTS[4:])


@dataclass(frozen=True)
class Profile:
    """Of the sentences in batches: ``ms`` of a decode without the profiler, of its forward passes alone (None if not
    known), of it with the profiler, and operators from the dearest on. What is in no operator is Python's."""

    ms: float
    bare_ms: Optional[float]
    profiled_ms: float
    operators: List[Operator]

    @property
    def floor(self) -> float:
        """Milliseconds of products alone: a decode by these very products that did nothing else."""
        return sum(one.ms for one in self.operators if one.is_product)


class Profiled(Timed):
    def __init__(self, argv: Sequence[str], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        super().__init__(argv)

    def profile(self, size: int, sentences: int, repeats: int) -> Profile:
        """Of the first ``sentences`` in batches of ``size``, the mean of the repeats; on a CPU alone."""
        from torch.profiler import ProfilerActivity, profile

        if self.is_gpu:
            raise ToolError("profiles are of a CPU: add --cpu")
        batches = batches_of(range(min(sentences, len(self.dataset))), self.source_lengths(), size)
        samples = [self.batch_of(batch) for batch in batches]
        plain, bare = [], []
        for _ in range(repeats):
            plain.append(1000 * self.seconds(batches))
            bare.append(sum(self.bare_ms(sample) or 0.0 for sample in samples))
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            wall = sum(self.clocked(self.step, sample) for _ in range(repeats) for sample in samples)
        passes = statistics.median(bare) if self.is_ours else None
        return Profile(statistics.median(plain), passes, wall / repeats, operators(seen.key_averages(), repeats))


def operators(events: Sequence[Any], repeats: int) -> List[Operator]:
    """The profiler's, from the dearest on."""
    found = [Operator(one.key, one.self_cpu_time_total / 1000 / repeats, one.count / repeats) for one in events]
    return sorted(found, key=lambda one: -one.ms)


def lines(found: Profile, most: int) -> List[str]:
    """A table of the ``most`` dearest operators, and what stands for all."""
    shown, rest = found.operators[:most], found.operators[most:]
    inside = sum(one.ms for one in found.operators)
    rows = [(one.name[:60], one.calls, one.ms) for one in shown]
    rows.append((f"{len(rest)} other operators", sum(one.calls for one in rest), sum(one.ms for one in rest)))
    rows.append(("between operators (Python)", 0, found.profiled_ms - inside))
    table = [f"{'operator':60}  {'calls':>7}  {'ms':>8}  {'share':>6}"]
    table += [f"{name:60}  {calls:7.0f}  {ms:8.3f}  {ms / found.profiled_ms:6.1%}" for name, calls, ms in rows]
    passes = "" if found.bare_ms is None else f", of it the forward passes alone {found.bare_ms:.3f} ms"
    return [
        *table,
        f"all sentences: {found.ms:.3f} ms{passes}; under the profiler {found.profiled_ms:.3f} ms",
        f"products of matrices alone: {found.floor:.3f} ms, the floor of these networks in torch",
    ]
