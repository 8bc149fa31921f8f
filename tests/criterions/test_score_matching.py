"""The objective of an inference network: its value, its least, what it counts."""

import pytest
import torch
from torch import Tensor

from nar_plugin.criterions.score_matching import ScoreMatchingCriterion
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Nats, Steps
from tests.tiny import stand_in_task


def loss(step: Tensor, target: Tensor, is_counted: Tensor) -> Tensor:
    return ScoreMatchingCriterion(stand_in_task()).loss_of(Steps("step", step, target, is_counted), {})


def test_it_is_least_where_the_step_is_its_target() -> None:
    """LANMT-24: −‖t‖² there, and no gradient; ‖s − t‖² − ‖t‖² elsewhere; masked positions count for nothing."""
    generator = torch.Generator().manual_seed(1)
    target, other = (torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    is_counted = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    step = target.clone().requires_grad_()
    least = loss(step, target, is_counted)
    least.backward()
    assert step.grad is not None and not step.grad.any()
    torch.testing.assert_close(least.detach(), -target[is_counted].square().sum())
    step = other.clone().requires_grad_()
    found = loss(step, target, is_counted)
    found.backward()
    torch.testing.assert_close(
        found.detach(), ((other - target)[is_counted].square() - target[is_counted].square()).sum()
    )
    assert step.grad is not None and not step.grad[~is_counted].any() and bool(step.grad[is_counted].any())


def test_the_target_gets_no_gradient() -> None:
    target = torch.randn(1, 2, 3, requires_grad=True)
    loss(torch.randn(1, 2, 3, requires_grad=True), target, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert target.grad is None


def test_other_terms_are_refused() -> None:
    with pytest.raises(UsageError, match="lanmt_refiner"):
        ScoreMatchingCriterion(stand_in_task()).loss_of(Nats("x", torch.zeros(1)), {})
