"""Target lengths: classes of a softmax, candidates, windows. A length counts ``</s>`` (``methods.symbols``)."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

SHORTEST = 2
"""No canvas is shorter: one token and ``</s>`` (Ghazvininejad et al. 2019, released decoder)."""

OFFSETS = 100
"""Classes of a length as its offset from the source's: 50 tokens shorter to 49 longer (Shu et al. 2020; the released
code counts from 49 shorter to 50 longer)."""
SHORTEST_OFFSET = -50

LENGTH_WIDTH = 200
"""Hidden width of the length predictor (Lee, Shu & Cho 2020, released code)."""


def offset_classes(source_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(B,), (B,) to (B,) classes; an offset beyond them counts as the last one."""
    return (target_lengths - source_lengths - SHORTEST_OFFSET).clamp(0, OFFSETS - 1)


def of_offsets(classes: Tensor, source_lengths: Tensor, shortest: int, longest: int) -> Tensor:
    """(B,) classes to (B,) target lengths, the inverse of ``offset_classes`` within ``shortest`` and ``longest``."""
    return (source_lengths + classes + SHORTEST_OFFSET).clamp(shortest, longest)


def predictor(dim: int, classes: int) -> nn.Sequential:
    """(B, D) means of source states to (B, classes) logits."""
    return nn.Sequential(
        *(nn.Linear(dim, LENGTH_WIDTH), nn.ELU(), nn.Linear(LENGTH_WIDTH, LENGTH_WIDTH), nn.ELU()),
        nn.Linear(LENGTH_WIDTH, classes),
    )


def top_classes(log_probs: Tensor, n: int) -> Tensor:
    """The ``n`` most probable classes a sentence, best first: (B, C) to (B, n).

    More candidates than classes repeat the last one; equal candidates change nothing, the first of equals wins.
    """
    best = log_probs.topk(min(n, log_probs.size(1)), dim=1).indices
    return torch.cat([best, best[:, -1:].expand(-1, n - best.size(1))], 1)


def top_lengths(log_probs: Tensor, n: int) -> Tensor:
    """``top_classes`` where a class is a length, floored at 2."""
    return top_classes(log_probs, n).clamp(min=SHORTEST)


def window(lengths: Tensor, n: int, longest: int) -> Tensor:
    """``n`` consecutive lengths around each given one, itself first: (B,) to (B, n) within 2 and ``longest``.

    The set is N − ⌊(n−1)/2⌋ … N + ⌊n/2⌋ (released mask-predict, ``--gold-target-len``).
    """
    offsets = sorted(range(-((n - 1) // 2), n // 2 + 1), key=abs)
    return (lengths[:, None] + torch.tensor(offsets, device=lengths.device)).clamp(SHORTEST, longest)


def is_within(lengths: Tensor, width: int) -> Tensor:
    """(B,) lengths to (B, width) ``is_token``."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def canvas(lengths: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
    """(R,) lengths to (R, longest) ``is_token``, and the same for attention: None where no row has padding.

    It waits for the device: once a decode, or once a pass where lengths change from pass to pass.
    """
    shortest, longest = torch.stack(lengths.aminmax()).tolist()
    is_token = is_within(lengths, longest)
    return is_token, None if shortest == longest else is_token
