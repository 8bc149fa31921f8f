"""The way of latents from source to target positions."""

import math

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import lanmt
from nar_plugin.methods import lengths as length_classes

ONE = torch.tensor(1.0)


def weights(
    sizes: list[int], lengths: list[int], sigma: float = 1.0, width: int = 0, is_prefix: bool = False
) -> Tensor:
    is_source = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    return lanmt.attention(is_source, torch.tensor(lengths), width or max(lengths), torch.tensor(sigma), is_prefix)


def by_hand(n: int, length: int, sigma: float) -> Tensor:
    rows = [[math.exp(-((k - j * n / length) ** 2) / (2 * sigma**2)) for k in range(n)] for j in range(length)]
    return torch.tensor([[x / sum(row) for x in row] for row in rows])


@pytest.mark.parametrize("sigma", [0.05, 1.0, 5.0])
def test_rows_sum_to_one_on_the_source_and_are_zero_elsewhere(sigma: float) -> None:
    """LANMT-8: for any spread, one source token included."""
    found = weights([1, 4, 7], [5, 3, 7], sigma)
    for row, (n, length) in enumerate(zip((1, 4, 7), (5, 3, 7), strict=True)):
        torch.testing.assert_close(found[row, :length].sum(-1), torch.ones(length))
        assert not found[row, :, n:].any() and not found[row, length:].any()


@pytest.mark.parametrize("is_prefix", [False, True])
def test_a_spread_of_zero_gives_weights_too(is_prefix: bool) -> None:
    """LANMT-8: they are finite and sum to 1 on the source, all on the nearest place."""
    found = weights([1, 4, 7], [5, 3, 7], 0.0, is_prefix=is_prefix)
    assert bool(found.isfinite().all())
    for row, (n, length) in enumerate(zip((1, 4, 7), (5, 3, 7), strict=True)):
        torch.testing.assert_close(found[row, :length, :n].sum(-1), torch.ones(length))
    assert is_prefix or found[2].equal(torch.eye(7))


def test_the_product_is_taken_in_float32_under_autocast_too() -> None:
    is_source, lengths = torch.ones(1, 7, dtype=torch.bool), torch.tensor([5])
    values = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(1))
    plain = lanmt.length_transform(values, is_source, lengths, 5, ONE)
    with torch.autocast("cpu", torch.bfloat16):
        assert lanmt.length_transform(values, is_source, lengths, 5, ONE).equal(plain)


def test_equal_lengths_have_a_diagonal_that_becomes_the_identity() -> None:
    """LANMT-9: the diagonal is the greatest, 0.399 inside at a spread of 1, and 1 as it goes to 0."""
    found = weights([8], [8])[0]
    assert found.argmax(-1).tolist() == list(range(8))
    assert found.diagonal()[3:5].sub(0.399).abs().max() < 1e-3 and abs(float(found[0, 0]) - 0.570) < 1e-3
    assert weights([8], [8], 0.25)[0].sub(torch.eye(8)).abs().max() < 1e-3


@pytest.mark.parametrize(("n", "length"), [(6, 12), (12, 6), (5, 5), (1, 4)])
def test_the_kernel_is_the_papers(n: int, length: int) -> None:
    """LANMT-10, LANMT-11: as by hand: centres j · n / l, symmetric, and the expected place never goes back."""
    found = weights([n], [length], 0.8)[0]
    torch.testing.assert_close(found, by_hand(n, length, 0.8), rtol=1e-4, atol=1e-6)
    places = found @ torch.arange(n).float()
    assert bool((places.diff() >= -1e-6).all())
    even = weights([9], [9], 1.5)[0]
    assert even[4, 5] == pytest.approx(float(even[4, 3]), rel=1e-5)


def test_the_prefix_kernel_is_that_of_the_released_code() -> None:
    found = weights([6], [6], is_prefix=True)[0]
    assert [round(float(x), 2) for x in found[5]] == [0.19, 0.19, 0.18, 0.17, 0.15, 0.12]


def test_a_constant_stays_constant() -> None:
    """LANMT-10: whatever the lengths."""
    is_source = torch.ones(1, 5, dtype=torch.bool)
    found = lanmt.length_transform(torch.full((1, 5, 3), 2.5), is_source, torch.tensor([8]), 8, ONE)
    torch.testing.assert_close(found, torch.full((1, 8, 3), 2.5))


def test_a_sentence_is_transformed_alone_as_in_a_batch() -> None:
    """LANMT-11: padding of either side changes nothing."""
    together = weights([3, 7], [4, 9])
    torch.testing.assert_close(together[0, :4, :3], weights([3], [4])[0])


def test_the_spread_is_learnt_and_its_sign_means_nothing() -> None:
    """LANMT-12: with an ordinary gradient."""
    sigma = torch.tensor(0.9, requires_grad=True)
    values = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1))
    source, lengths = torch.ones(1, 5, dtype=torch.bool), torch.tensor([4])
    found = lanmt.length_transform(values, source, lengths, 4, sigma)
    found.square().sum().backward()
    assert sigma.grad is not None and sigma.grad.abs() > 1e-4
    assert found.equal(lanmt.length_transform(values, source, lengths, 4, torch.tensor(-0.9)))


def test_classes_of_lengths_are_inverted() -> None:
    """LANMT-6: every difference from −50 to 49; beyond them the last class, and never a length out of bounds."""
    targets = torch.arange(10, 110)
    sources = torch.full_like(targets, 60)
    classes = length_classes.offset_classes(sources, targets)
    assert classes.tolist() == list(range(100))
    assert length_classes.of_offsets(classes, sources, 2, 1000).equal(targets)
    assert length_classes.offset_classes(torch.tensor([5, 200]), torch.tensor([200, 5])).tolist() == [99, 0]
    assert length_classes.of_offsets(torch.tensor([0, 99]), torch.tensor([3, 60]), 2, 64).tolist() == [2, 64]
