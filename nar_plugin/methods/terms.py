"""What a model's training forward returns: a list of loss terms, which the criterion weighs, sums and logs.

A term carries sums' raw material, never a mean, so that splitting a batch changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Token predictions. ``logits``: (M, V) at the scored positions only; ``target``: (M,) ids, or (M, V) soft targets.

    Scored positions are gathered before the vocabulary projection: it is the dearest product of a training step.
    ``is_counted``: the M positions count towards the sample size, by which all sums are divided. ``is_reported``: they
    are in ``nll_loss``, ``ppl`` and ``accuracy``, which are of words: codes, and what else is no output, are not.
    """

    name: str
    logits: Tensor
    target: Tensor
    weight: float = 1.0
    is_counted: bool = True
    is_reported: bool = True


@dataclass(frozen=True)
class Classes:
    """One classification a sentence (or position), never smoothed. ``logits``: (B, C); ``target``: (B,).

    ``weights``: (B,) how many times each counts in the loss; None: once.
    """

    name: str
    logits: Tensor
    target: Tensor
    weight: float = 1.0
    weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Fertilities(Classes):
    """Those of all words of a batch, and what an objective needs that tries others.

    ``log_probs``: (B, S, 50) in nats, what is certain at ends and pads; ``lengths``: (B,) tokens of the sources;
    ``is_token``: (B, T) of the targets. ``write``: (B, S) fertilities to the (M, V) logits of the words that the
    decoder puts in their place, without a gradient, and (B, U) where these stand.
    """

    log_probs: Tensor
    lengths: Tensor
    is_token: Tensor
    write: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Nats:
    """Values in nats that are added up: a divergence, a commitment, minus the log-probability of all alignments.

    ``values``: (B,) a sentence or (B, T) a position. ``is_counted``: the same shape, False where a value is padding;
    None: all count. ``has_free_bits``: a divergence a position, of which an objective may leave some for nothing.
    """

    name: str
    values: Tensor
    is_counted: Tensor | None = None
    weight: float = 1.0
    has_free_bits: bool = False


@dataclass(frozen=True, kw_only=True)
class Alignments(Nats):
    """Minus the log-probability of each target, summed over its alignments with a canvas, (B,).

    Those that do not fit on their canvas are not counted. ``factor``: how many times as long as its source a canvas is;
    ``least_factor``: (B,) at least how many times it would have to be.
    """

    factor: int
    least_factor: Tensor


@dataclass(frozen=True)
class Steps:
    """A step of latents at each position, and its target, (B, T, Z) each; ``is_counted``: (B, T)."""

    name: str
    step: Tensor
    step_target: Tensor
    is_counted: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Usage:
    """No loss: which of ``size`` codes were used, ``codes``: (N,) ids."""

    name: str
    codes: Tensor
    size: int
    weight: float = 0.0


Term = Tokens | Classes | Nats | Steps | Usage
