"""The objective of an inference network: its value, its least, what it counts."""

import pytest
import torch
from torch import Tensor

from nar_plugin.criterions.score_matching import ScoreMatchingCriterion
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Moves, Scalar
from tests.tiny import stand_in_task


def loss(move: Tensor, way: Tensor, is_counted: Tensor) -> Tensor:
    return ScoreMatchingCriterion(stand_in_task()).loss_of(Moves("step", move, way, is_counted), {})


def test_it_is_least_where_the_step_is_the_way() -> None:
    """LANMT-24: −‖way‖² there, and no gradient; ‖s − way‖² − ‖way‖² elsewhere; masked positions count for nothing."""
    generator = torch.Generator().manual_seed(1)
    way, other = (torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    is_counted = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    move = way.clone().requires_grad_()
    least = loss(move, way, is_counted)
    least.backward()
    assert move.grad is not None and not move.grad.any()
    torch.testing.assert_close(least.detach(), -way[is_counted].square().sum())
    move = other.clone().requires_grad_()
    found = loss(move, way, is_counted)
    found.backward()
    torch.testing.assert_close(found.detach(), ((other - way)[is_counted].square() - way[is_counted].square()).sum())
    assert move.grad is not None and not move.grad[~is_counted].any() and bool(move.grad[is_counted].any())


def test_the_way_gets_no_gradient() -> None:
    way = torch.randn(1, 2, 3, requires_grad=True)
    loss(torch.randn(1, 2, 3, requires_grad=True), way, torch.ones(1, 2, dtype=torch.bool)).backward()
    assert way.grad is None


def test_other_terms_are_refused() -> None:
    with pytest.raises(UsageError, match="lanmt_refiner"):
        ScoreMatchingCriterion(stand_in_task()).loss_of(Scalar("x", torch.zeros(())), {})
