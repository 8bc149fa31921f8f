"""Glancing: in training a model is shown part of what it should say, the less the more of it is right by itself.

Qian et al. 2021 (GLAT, arXiv 2008.07905, section 3.2). A first pass without a gradient says how many positions are
wrong, d; ⌊ratio · d⌋ positions, drawn from all, are shown in a second one, which is taught.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from . import noise, schedules
from .usage import UsageError


class Schedule:
    """The ratio of ``--glance START:END``: from the first update to the last in a line."""

    def __init__(self, text: str, updates: int) -> None:
        """``updates``: of the training. Raises UsageError for anything else than two shares, or without an end."""
        self.update, self.updates, self.first, self.last = 0, updates, 0.0, 0.0
        if not text:
            return
        try:
            self.first, self.last = map(float, text.split(":"))
        except ValueError:
            self.first = self.last = -1.0
        if not (0 <= self.first <= 1 and 0 <= self.last <= 1):
            raise UsageError(f"--glance {text}: it takes START:END, two numbers from 0 to 1, as 0.5:0.1")
        if not updates:
            raise UsageError("--glance needs --max-update, over which the share changes")

    @property
    def ratio(self) -> float:
        """At the present update."""
        return self.last + schedules.falling(self.update, self.first - self.last, 0, self.updates)


def shown(keys: Tensor, is_place: Tensor, wrong: Tensor, ratio: float) -> Tensor:
    """(B, T) True at ⌊ratio · wrong⌋ of the places, of which ``wrong`` (B,) are; ``keys`` (B,) draw them."""
    return noise.subset(keys, is_place, (ratio * wrong).long())


@contextmanager
def first_pass(device: torch.device) -> Iterator[None]:
    """Within it there are no gradients, and a pass draws the dropout that the next one, behind it, draws again."""
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    torch.clear_autocast_cache()  # weights that were cast here would have no gradient
