"""Which words of a canvas a pass commits, and which are masked and predicted anew: rules that need no training.

After pass t of at most T, M are the positions of a row of N tokens that the pass predicted. A rule says what the next
pass masks; a row of which that is nothing is finished, and so is every row after pass T.

* ``linear``: the ⌊N (1 − t / T)⌋ least confident of all positions, which revises words by nature (Ghazvininejad et al.
  2019, arXiv 1904.09324, section 4).
* ``cosine``: ⌊N cos(πt / 2T)⌋ of them (the schedule of MaskGIT, Chang et al. 2022, arXiv 2202.04200, figure 3).
* ``threshold`` τ: those of M that are not more probable than τ, the most probable one excepted (Fast-dLLM, Wu et al.
  2025, arXiv 2505.22618). Strictly more, so that τ = 1 commits one word a pass where probabilities saturate, too.
* ``entropy`` γ: with M in the order of rising entropy, those before which the entropies sum up to more than γ nats
  (EB-Sampler, Ben-Hamu et al. 2025, arXiv 2505.24857: Σ H − max H of a committed prefix bounds what its words, drawn
  independently, can lose).
* ``gap`` s: as ``linear``, until the mean over the canvas of the best logit's lead over the second reaches s times 7.5,
  from a third of the passes on 5, from two thirds on 2.5; then nothing (Prophet, Li et al. 2025, arXiv 2508.19982,
  algorithm 1; their answer region is the canvas here, and a lead is that of the pass that predicted the word).
"""

import math
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, TypeVar

import torch
from torch import Tensor

from . import prediction
from .contract import Rows

GRID = 2.0**-10
"""What rules compare and sum lies on this grid, in nats. Saturated probabilities differ by arithmetic noise alone,
which depends on the batch's shape; without the grid that noise would choose what is masked. Ties: the leftmost is
masked."""

LEADS = 7.5, 5.0, 2.5
"""Mean leads, in nats, that end a row in the first, second and last third of the passes (Prophet, section 4)."""

N = TypeVar("N", int, Tensor)
Count = Callable[[Any, int, int], Any]
"""Of N, t and T to how many are masked: of one row, or of (R,) rows."""
Masks = tuple[Tensor, Tensor | None]
"""(R, most) positions to mask next, where a row of fewer repeats its first one; (R,) True where there is nothing to
mask, None where there always is something."""


@dataclass(frozen=True, kw_only=True)
class Plan(Rows):
    """By which rule a decode of at most ``passes`` passes commits words; ``threshold``: τ, γ or s."""

    rule: str = "linear"
    threshold: float = 0.0
    passes: int


class Canvas(NamedTuple):
    """What a rule sees of R rows after pass ``step`` of at most ``passes``.

    ``confidence``: (R, T) log-probability of each word in nats, and ``evidence`` what the rule measured (None if
    nothing), both at the pass that predicted the word and 0 at pads. ``predicted``: (R, M) positions that this pass
    predicted, repeats allowed; None: all. ``lengths``: (R,); ``is_token``: (R, T), None where no row has padding.
    """

    confidence: Tensor
    evidence: Tensor | None
    predicted: Tensor | None
    lengths: Tensor
    is_token: Tensor | None
    step: int
    passes: int

    @property
    def masked(self) -> Tensor:
        """(R, T) True at M."""
        if self.predicted is not None:
            return torch.zeros_like(self.confidence, dtype=torch.bool).scatter_(1, self.predicted, True)
        return torch.ones_like(self.confidence, dtype=torch.bool) if self.is_token is None else self.is_token


def on_grid(x: Tensor) -> Tensor:
    """Nats as whole numbers of ``GRID``."""
    return (x.float() / GRID).round_()


def rising(steps: Tensor, allowed: Tensor | None) -> Tensor:
    """(R, T) positions by values on the grid, of equals the leftmost first; those that are not ``allowed`` last."""
    if allowed is not None:
        steps = steps.masked_fill(~allowed, torch.inf)
    return steps.argsort(dim=1, stable=True)


def first(order: Tensor, counts: Tensor | None, most: int) -> Tensor:
    """(R, most) of (R, T) ordered positions. A row of fewer, its (R,) ``counts``, repeats its first one, which it keeps
    even where it has none; None: all have ``most``."""
    chosen = order[:, :most]
    if counts is None:
        return chosen
    place = torch.arange(most, device=order.device)
    return torch.where(place < counts[:, None], chosen, chosen[:, :1])


def linear_count(n: N, step: int, passes: int) -> N:
    """⌊N (1 − t / T)⌋, exact in integers."""
    return n * (passes - step) // passes


def cosine_count(n: N, step: int, passes: int) -> N:
    """⌊N cos(πt / 2T)⌋, the cosine in integers, so that devices agree."""
    return n * int(2**30 * math.cos(math.pi * step / (2 * passes))) // 2**30


def scheduled(canvas: Canvas, count: Count) -> Tensor:
    """The least confident of all positions, as many as ``count`` says, one at least. It never waits for the device."""
    step, passes = canvas.step, canvas.passes
    most: int = max(1, count(canvas.confidence.size(1), step, passes))
    counts = None if canvas.is_token is None else count(canvas.lengths, step, passes)
    return first(rising(on_grid(canvas.confidence), canvas.is_token), counts, most)


def linear(canvas: Canvas, value: float) -> Masks:
    return scheduled(canvas, linear_count), None


def cosine(canvas: Canvas, value: float) -> Masks:
    return scheduled(canvas, cosine_count), None


def uncommitted(order: Tensor, counts: Tensor) -> Masks:
    """The first ``counts``, (R,), of ordered positions. It waits for the device, as the loop does where rows end."""
    return first(order, counts, max(1, int(counts.max()))), counts == 0


def threshold(canvas: Canvas, value: float) -> Masks:
    confidence, masked = on_grid(canvas.confidence), canvas.masked
    limit = round(math.log(value) / GRID) if value else -math.inf
    doubtful = (masked & (confidence <= limit)).sum(1)
    return uncommitted(rising(confidence, masked), torch.minimum(doubtful, masked.sum(1) - 1))


def entropy(canvas: Canvas, value: float) -> Masks:
    assert canvas.evidence is not None
    uncertainty, masked = on_grid(canvas.evidence), canvas.masked
    order = rising(-uncertainty, masked)
    falling = uncertainty.masked_fill(~masked, 0.0).gather(1, order)
    before = falling.flip(1).cumsum(1).flip(1) - falling  # of all words that are committed before this one
    return uncommitted(order, (before > value / GRID).sum(1))


def gap(canvas: Canvas, value: float) -> Masks:
    assert canvas.evidence is not None
    needed = value * LEADS[3 * canvas.step // canvas.passes]
    return scheduled(canvas, linear_count), on_grid(canvas.evidence).sum(1) >= needed / GRID * canvas.lengths


def entropies(log_probs: Tensor, best: Tensor) -> Tensor:
    """(…) entropies in nats, of the words that may be given."""
    return torch.special.entr(log_probs.exp_()).sum(-1)


def leads(log_probs: Tensor, best: Tensor) -> Tensor:
    """(…) nats by which the best word leads the second."""
    highest = log_probs.gather(-1, best[..., None])[..., 0]
    return highest - prediction.greatest(log_probs.scatter_(-1, best[..., None], -torch.inf))[0]


class Rule(NamedTuple):
    """``masks``: what is masked next, of a canvas and a threshold. ``measure``: the evidence, from (…, V)
    log-probabilities, which are overwritten, and the (…) places of the best words; None: the confidence is enough."""

    masks: Callable[[Canvas, float], Masks]
    measure: Callable[[Tensor, Tensor], Tensor] | None = None


RULES = {
    "linear": Rule(linear),
    "cosine": Rule(cosine),
    "threshold": Rule(threshold),
    "entropy": Rule(entropy, entropies),
    "gap": Rule(gap, leads),
}
"""By their names in ``methods.options.UNMASKINGS``."""
