"""What a model's training forward returns: a list of loss terms, which the criterion weighs, sums and logs.

A term carries sums' raw material, never a mean, so that splitting a batch changes nothing.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Token predictions. ``logits``: (M, V) at the scored positions only; ``target``: (M,) ids.

    Scored positions are gathered before the vocabulary projection: it is the dearest product of a training step.
    """

    name: str
    logits: Tensor
    target: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Classes:
    """One classification a sentence (or position), never smoothed. ``logits``: (B, C); ``target``: (B,)."""

    name: str
    logits: Tensor
    target: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Values:
    """A value a position, in nats, before any hinge (a KL divergence). ``values``, ``is_counted``: (B, T)."""

    name: str
    values: Tensor
    is_counted: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Scalar:
    """One summed value in nats, as it is."""

    name: str
    value: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Moves:
    """A move of latents at each position, and the way it is to learn. ``move``, ``way``: (B, T, Z); ``is_counted``:
    (B, T)."""

    name: str
    move: Tensor
    way: Tensor
    is_counted: Tensor
    weight: float = 1.0


Term = Tokens | Classes | Values | Scalar | Moves
