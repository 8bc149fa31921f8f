"""Diagonal Gaussians over latents, a mean and a standard deviation for each of Z dimensions at each position.

Shapes: ``(B, P, Z)``, P positions. All in float32, whatever the network computes in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import noise
from .transformer import Memory, Stack

LEAST_STD = 1e-4
"""A floor that keeps divergences finite in any precision."""


def std(raw: Tensor) -> Tensor:
    """Standard deviations from a network's output: softplus, no less than ``LEAST_STD`` (Shu et al. 2020)."""
    return F.softplus(raw.float()).clamp(min=LEAST_STD)


def split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, 2 Z) to mean and standard deviation, (B, P, Z) each."""
    mean, spread = raw.float().chunk(2, -1)
    return mean, std(spread)


def divergence(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """KL(q ‖ p) in nats at each position, summed over dimensions: (B, P)."""
    ratio = (std_q / std_p).square()
    return 0.5 * (ratio + ((mean_q - mean_p) / std_p).square() - 1 - ratio.log()).sum(-1)


def draws(keys: Tensor, positions: int, size: int) -> Tensor:
    """(B,) keys to (B, positions, size) standard normal numbers, a position's whatever the number of positions."""
    halves = noise.uniform(keys, positions * size).double() + 2.0**-25  # never 0 or 1
    return torch.special.ndtri(halves).float().view(len(keys), positions, size)


def sample(mean: Tensor, std: Tensor, keys: Tensor) -> Tensor:
    """(B, P, Z) mean + std ⊙ ε, with the ε of (B,) keys; the gradient reaches mean and std."""
    return mean + std * draws(keys, mean.size(1), mean.size(2))


def searched(mean: Tensor, std: Tensor, keys: Tensor, is_drawn: Tensor) -> Tensor:
    """(R, P, Z) latents of candidates: a sample at the (R,) rows that are drawn, else the mean (latent search)."""
    return torch.where(is_drawn[:, None, None], sample(mean, std, keys), mean)


class GaussianStack(nn.Module):
    """A stack over a source, and at each position a mean and a standard deviation."""

    def __init__(self, stack: Stack, dim: int, latent_size: int) -> None:
        super().__init__()
        self.stack, self.output = stack, nn.Linear(dim, 2 * latent_size)

    def forward(
        self, x: Tensor, mask: Tensor | None, memory: tuple[Memory, ...], is_source: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) to (B, T, Z) twice."""
        return split(self.output(self.stack(x, mask, memory, is_source)))
