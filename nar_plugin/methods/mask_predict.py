"""Mask-predict (Ghazvininejad, Levy, Liu & Zettlemoyer 2019, "Mask-Predict: Parallel Decoding of Conditional Masked
Language Models", arXiv 1904.09324): which positions are masked, in training (section 3) and in decoding (section 4).

Differs from fairseq's ``cmlm_transformer`` on purpose: ``</s>`` is masked and predicted like any token, at least one
position is masked in every pass, no pass is skipped, and a score changes only when its position is predicted anew.
"""

import torch
from torch import Tensor

from . import noise

CONFIDENCE_GRID = 2.0**-10
"""Confidences are compared on this grid, in nats. Saturated probabilities differ by arithmetic noise alone, which
depends on the batch's shape; without the grid that noise would choose what is masked. Ties: the leftmost is masked."""


def training_counts(keys: Tensor, lengths: Tensor, release_compat: bool = False) -> Tensor:
    """How many positions to mask in training, (B,): uniform on 1 … N (paper, section 3.1).

    ``release_compat``: uniform on 1 … N − 1 as the released code draws it (1 when N is 1), which never shows a fully
    masked target, the input of the first decoding pass.
    """
    most = (lengths - 1).clamp(min=1) if release_compat else lengths
    draw = noise.uniform(noise.fold(keys, 0), 1)[:, 0]
    return torch.minimum(1 + (draw * most).long(), most)


def random_mask(keys: Tensor, is_token: Tensor, counts: Tensor) -> Tensor:
    """(B, T) True at ``counts`` (B,) of the right-padded real positions, a uniform subset."""
    return noise.subset(noise.fold(keys, 1), is_token, counts)


def training_mask(keys: Tensor, is_token: Tensor, release_compat: bool = False, span: bool = False) -> Tensor:
    """(B, T) True at the positions to mask: a uniform subset of the right-padded real ones, or one ``span`` of them."""
    lengths = is_token.sum(1)
    counts = training_counts(keys, lengths, release_compat)
    if not span:
        return random_mask(keys, is_token, counts)
    draw = noise.uniform(noise.fold(keys, 1), 1)
    first = (draw[:, 0] * (lengths - counts + 1)).long()
    place = torch.arange(is_token.size(1), device=keys.device)
    return (place >= first[:, None]) & (place < (first + counts)[:, None])


def decoding_counts(lengths: Tensor, step: int, passes: int) -> Tensor:
    """n = max(1, ⌊N · (1 − t / T)⌋) positions to predict anew in pass t of 1 … T − 1 (section 4), exact in integers."""
    return (lengths * (passes - step) // passes).clamp(min=1)


def least_confident(confidence: Tensor, lengths: Tensor | None, step: int, passes: int) -> Tensor:
    """The positions to mask in pass ``step``, lowest confidence first: (R, T) log-probabilities to (R, most).

    ``most`` is the count of a row of T tokens. ``lengths``: (R,), or None where every row fills the canvas; a shorter
    row repeats its first position once its own count is reached. Padding is never among them.
    """
    width = confidence.size(1)
    most = max(1, width * (passes - step) // passes)
    on_grid = (confidence.float() / CONFIDENCE_GRID).round_()
    place = torch.arange(width, device=confidence.device)
    if lengths is not None:
        on_grid.masked_fill_(place >= lengths[:, None], torch.inf)
    chosen = on_grid.argsort(dim=1, stable=True)[:, :most]
    if lengths is None:
        return chosen
    return torch.where(place[:most] < decoding_counts(lengths, step, passes)[:, None], chosen, chosen[:, :1])
