"""When a sentence needs no further refinement.

A rule holds the oldest of the last outputs against each later one and ends a sentence where the least distance is small
enough. With ``--stop-window 1`` these are the outputs of two passes in a row; with a window of W > 1 they are the last
W outputs, so that no sentence ends before pass W, and one that goes in a circle of fewer than W passes ends as well
(Lee, Mansimov & Cho 2018, released code: W = 5, jaccard). The rule ``oracle`` looks back from the end, at references
(``generators.oracle``).
"""

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor, int], Tensor]
"""Of two outputs, (R, T) padded ids each, to (R,) in 0 … 1."""


def hamming(a: Tensor, b: Tensor, pad: int) -> Tensor:
    """The share of the positions filled in either output at which they differ; 0 where both are empty."""
    filled = (a != pad) | (b != pad)
    return (a != b).sum(1) / filled.sum(1).clamp(min=1)


def jaccard(a: Tensor, b: Tensor, pad: int) -> Tensor:
    """1 − |A ∩ B| / |A ∪ B| of the multisets of ids, whatever their order; 0 where both are empty."""
    in_a, in_b = a != pad, b != pad
    # the n-th occurrence of an id in A has a partner if B holds it n times
    occurrence = (a[:, :, None] == a[:, None, :]).tril().sum(2)
    available = (a[:, :, None] == b[:, None, :]).sum(2)
    common = (in_a & (occurrence <= available)).sum(1)
    union = in_a.sum(1) + in_b.sum(1) - common
    return (union - common) / union.clamp(min=1)


DISTANCES: dict[str, Distance] = {"fixed-point": hamming, "jaccard": jaccard}
"""By the name of the rule in ``methods.options.STOP_RULES``; its others compare no outputs."""


class StopRule:
    """A rule, and what it remembers of the rows that are decoded: their last outputs, oldest first."""

    def __init__(self, rule: str, window: int, distance: float, pad: int) -> None:
        self.between, self.window, self.distance, self.pad = DISTANCES.get(rule), max(2, window), distance, pad
        self.outputs: list[Tensor] = []

    def verdict(self, tokens: Tensor | None) -> Tensor | None:
        """(R,) True where the outputs up to this one, (R, T) ids, end the decode; None while there is none."""
        if self.between is None or tokens is None:
            return None
        self.outputs = [*self.outputs, tokens.clone()][-self.window :]  # the next pass may write into its state
        if len(self.outputs) < self.window:
            return None
        width = max(output.size(1) for output in self.outputs)
        oldest, *later = (F.pad(output, (0, width - output.size(1)), value=self.pad) for output in self.outputs)
        distances = self.between(oldest.repeat(len(later), 1), torch.cat(later), self.pad)
        return distances.view(len(later), -1).amin(0) <= self.distance

    def select(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self.outputs = [output.index_select(0, rows) for output in self.outputs]


def either(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """(R,) True where one of two verdicts is; None, which costs no look at the device, where there is none."""
    if first is None or second is None:
        return second if first is None else first
    return first | second
