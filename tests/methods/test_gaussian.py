"""Diagonal Gaussians: divergence, density, draws by key."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from nar_plugin.methods import gaussian, noise


def parameters(seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return gaussian.split(scale * torch.randn(3, 5, 8, generator=generator))


def test_the_divergence_is_that_of_torch() -> None:
    """LANMT-1: KL ≥ 0, torch's own for scale = softplus(r), and 0 where the two are one."""
    (mean_q, std_q), (mean_p, std_p) = parameters(1), parameters(2)
    ours = gaussian.divergence(mean_q, std_q, mean_p, std_p)
    expected = kl_divergence(Normal(mean_q, std_q), Normal(mean_p, std_p)).sum(-1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert bool((ours > 0).all()) and not gaussian.divergence(mean_q, std_q, mean_q, std_q).abs().gt(1e-6).any()


def test_the_standard_deviation_is_the_softplus_and_has_a_floor() -> None:
    """LANMT-34: finite for r = ±20, also from a network in half precision."""
    raw = torch.tensor([-200.0, -20.0, 0.0, 20.0])
    found = gaussian.std(raw)
    assert found.tolist() == pytest.approx([gaussian.LEAST_STD, gaussian.LEAST_STD, math.log(2), 20.0])
    for kind in (torch.float16, torch.bfloat16):
        assert gaussian.std(raw.to(kind)).dtype == torch.float32
    zeros = torch.zeros(1, 1, 4)
    kl = gaussian.divergence(zeros, found.view(1, 1, 4), zeros, found.flip(0).view(1, 1, 4))
    assert bool(kl.isfinite().all())


def test_draws_are_standard_normal_and_hang_on_key_and_place_alone() -> None:
    """LANMT-2: the moments of N(0, 1); the same number whatever follows it or stands in the batch."""
    keys = torch.arange(4000)
    drawn = gaussian.draws(keys, 3, 4)
    assert drawn.mean().abs() < 0.02 and (drawn.std() - 1).abs() < 0.02
    assert (drawn.pow(4).mean() - 3).abs() < 0.15 and bool(drawn.isfinite().all())
    assert drawn[7].equal(gaussian.draws(keys[7:8], 9, 4)[0, :3])
    assert torch.corrcoef(drawn.flatten(1).T).fill_diagonal_(0).abs().max() < 0.08


def test_the_least_and_the_greatest_uniform_number_give_finite_draws() -> None:
    """Both are in the middle of their 2⁻²⁴: an exact 0 is no −∞, and what is next to 1 no ∞."""
    for uniform, expected in ((0.0, 2.0**-25), (1 - 2.0**-24, 1 - 2.0**-25)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise, "uniform", lambda keys, width, x=uniform: torch.full((len(keys), width), x))
            drawn = gaussian.draws(torch.arange(2), 3, 4)
        assert bool(drawn.isfinite().all())
        torch.testing.assert_close(drawn, torch.full((2, 3, 4), NormalDist().inv_cdf(expected)))
