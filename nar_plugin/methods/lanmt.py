"""LaNMT: Gaussian latents on source positions, and how they come to stand on target positions.

Shu, Lee, Nakayama & Cho 2020, "Latent-Variable Non-Autoregressive Neural Machine Translation with Deterministic
Inference using a Delta Posterior", arXiv 1908.07181, section 3.
"""

import torch
from torch import Tensor

OFFSETS = 100
"""Classes of the length: a target is 50 tokens shorter to 49 longer than its source. (The released code counts from 49
shorter to 50 longer.)"""
SHORTEST_OFFSET = -50


def length_classes(source_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(B,), (B,) to (B,) classes; a difference beyond them counts as the last one."""
    return (target_lengths - source_lengths - SHORTEST_OFFSET).clamp(0, OFFSETS - 1)


def lengths_of(classes: Tensor, source_lengths: Tensor, shortest: int, longest: int) -> Tensor:
    """(B,) classes to (B,) target lengths, the inverse of ``length_classes`` within ``shortest`` and ``longest``."""
    return (source_lengths + classes + SHORTEST_OFFSET).clamp(shortest, longest)


def length_transform(
    values: Tensor, is_source: Tensor, lengths: Tensor, width: int, sigma: Tensor, is_prefix: bool = False
) -> Tensor:
    """Monotonic location-based attention (section 3.3): (B, S, D) on sources to (B, width, D) on targets, 0 beyond.

    Position j of a target of l tokens attends around j · n / l of a source of n, with a Gaussian of spread ``sigma``, a
    learnt scalar. ``is_prefix`` has the kernel of the released code, whose base and exponent changed places: −2^(k − μ)
    in place of −(k − μ)², an average of all that stands before.
    """
    weights = attention(is_source, lengths, width, sigma, is_prefix)
    with torch.autocast(values.device.type, enabled=False):  # which would take the product in half precision
        return (weights @ values.float()).to(values.dtype)


def attention(is_source: Tensor, lengths: Tensor, width: int, sigma: Tensor, is_prefix: bool = False) -> Tensor:
    """The weights of ``length_transform``: (B, width, S), rows sum to 1 on real sources, 0 beyond a target's end."""
    sizes, device = is_source.sum(1, keepdim=True).float(), is_source.device
    targets = torch.arange(width, device=device).float()
    centres = targets * sizes / lengths[:, None].clamp(min=1)
    distance = torch.arange(is_source.size(1), device=device).float() - centres[..., None]
    kernel = 2.0 ** distance.clamp(-100, 100) if is_prefix else distance.square()
    logits = -kernel / (2 * sigma.float().square()).clamp(min=1e-8)
    weights = logits.masked_fill(~is_source[:, None], -torch.inf).softmax(-1)
    return weights.masked_fill((targets >= lengths[:, None])[..., None], 0.0)
