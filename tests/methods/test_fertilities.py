"""Fertilities: copies, choices, searches and losses against definitions as loops."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import fertility_nat as method
from nar_plugin.methods import noise


def drawn_log_probs(rows: int, width: int, classes: int = 50, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, width, classes, generator=generator)).log_softmax(-1)


def log_probs_of(*rows: list[float]) -> Tensor:
    """(1, S, C) of probabilities."""
    return torch.tensor([rows]).log()


# --- copies


@pytest.mark.parametrize(
    ("fertilities", "places"),
    [
        ([2, 0, 1, 3], [0, 0, 2, 3, 3, 3]),
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 1], [2]),
        ([0, 5, 0, 1], [1, 1, 1, 1, 1, 3]),
    ],
)
def test_a_word_is_copied_as_often_as_its_fertility_says(fertilities: list[int], places: list[int]) -> None:
    """FERT-2: with fertilities of 1 every word stays where it is."""
    found = method.source_places(torch.tensor([fertilities]), torch.tensor([len(fertilities)]), len(places))
    assert found.tolist() == [places]


def test_copies_of_a_batch_are_those_of_each_sentence() -> None:
    """FERT-2: as many as the fertilities add up to, in order, whatever else is in the batch."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 9, (40,), generator=generator)
    fertilities = torch.randint(0, 4, (40, 8), generator=generator) * (torch.arange(8) < lengths[:, None])
    width = int(fertilities.sum(1).max()) + 2
    found = method.source_places(fertilities, lengths, width)
    for row, counts, length in zip(found.tolist(), fertilities.tolist(), lengths.tolist(), strict=True):
        wanted = [place for place, count in enumerate(counts) for _ in range(count)]
        assert row == wanted + [length - 1] * (width - len(wanted))


# --- what can be


def plainly_bounded(row: list[int], unlikely: list[float], length: int, longest: int) -> list[int]:
    """``bounded`` as a loop: ``unlikely`` are the log-probabilities of no word."""
    most, kept = min(2 * length, longest) - 1, []
    for count in row[: length - 1]:
        kept.append(min(count, most - sum(kept)))
    if kept and not sum(kept):
        kept[min(range(length - 1), key=lambda i: unlikely[i])] = 1
    return kept + [1] + [0] * (len(row) - length)


def test_no_sum_is_beyond_twice_the_sentence_and_none_is_without_a_word() -> None:
    """FERT-3: the limit is that of the sentence, not of its batch; where all words have none, the one that least
    probably has none gets one."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([1, 2, 2, 3, 5, 8, 8, 4, 6] * 9)
    fertilities = torch.randint(0, 5, (81, 8), generator=generator)
    fertilities[::4] = 0
    log_probs = drawn_log_probs(81, 8, 5)
    for longest in (6, 100):
        found = method.bounded(fertilities, log_probs, lengths, longest).tolist()
        for row, given, likely, length in zip(found, fertilities.tolist(), log_probs, lengths.tolist(), strict=True):
            assert row == plainly_bounded(given, likely[:, 0].tolist(), length, longest)
            assert 1 <= sum(row) <= min(2 * length, longest)
        assert max(map(sum, found)) == min(16, longest), "nothing was cut, so this tests nothing"


@pytest.mark.parametrize("total", [1, 2, 7, 400])
def test_expected_fertilities_are_scaled_to_any_length(total: int) -> None:
    """FERT-21: each within one of its share."""
    lengths, totals = torch.tensor([6, 4, 2]), torch.tensor([total] * 3)
    log_probs = method.pinned(drawn_log_probs(3, 6), lengths)
    found = method.apportioned(log_probs, lengths, totals)
    assert found.sum(1).tolist() == [total] * 3 and bool((found >= 0).all())
    expected = (log_probs.exp() * torch.arange(50)).sum(-1)
    for row, share, length in zip(found, expected, lengths.tolist(), strict=True):
        words = share[: length - 1] / share[: length - 1].sum() * (total - 1)
        assert bool(((row[: length - 1] - words).abs() < 1.01).all()) and row[length - 1] == 1
        assert not row[length:].any()


# --- what is certain


def test_the_end_has_the_fertility_one_and_padding_none() -> None:
    """FERT-6: whatever the model says, with certainty; words keep what it says, and the gradient reaches them alone."""
    given, lengths = drawn_log_probs(3, 5).requires_grad_(), torch.tensor([5, 3, 1])
    found = method.pinned(given, lengths)
    assert method.most_probable(found)[:, :].tolist()[2] == [1, 0, 0, 0, 0]
    for row, plain, length in zip(found, given, lengths.tolist(), strict=True):
        assert torch.equal(row[: length - 1], plain[: length - 1])
        assert row[length - 1].exp().tolist() == [0, 1, *[0] * 48]
        assert all(one.exp().tolist() == [1, *[0] * 49] for one in row[length:])
    method.log_prob(found, method.most_probable(found)).sum().backward()
    assert given.grad is not None and bool(given.grad.isfinite().all())
    assert given.grad.abs().sum(-1).gt(0).tolist() == [[True] * 4 + [False], [True, True] + [False] * 3, [False] * 5]


# --- choices


@pytest.mark.parametrize(
    ("probabilities", "best", "mean"),
    [([0.1, 0.2, 0.7], 2, 2), ([0.5, 0.0, 0.5], 0, 1), ([0.9, 0.05, 0.05], 0, 0), ([0.0, 0.3, 0.7], 2, 2)],
)
def test_the_most_probable_and_the_average_fertility(probabilities: list[float], best: int, mean: int) -> None:
    """FERT-11: the average may be one of probability 0."""
    log_probs = log_probs_of(probabilities)
    assert method.most_probable(log_probs).tolist() == [[best]]
    assert method.average(log_probs).tolist() == [[mean]]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_follow_the_probabilities(temperature: float) -> None:
    """FERT-15: by a χ² test at one in a thousand, at every temperature; near 0 they are the argmax."""
    count, log_probs = 20_000, log_probs_of([0.1, 0.2, 0.3, 0.4])
    draws = noise.uniform(noise.training_keys(1, 1, torch.arange(count)), 1)
    many = log_probs.expand(count, -1, -1)
    found = torch.bincount(method.sampled(many, draws, temperature).flatten(), minlength=4)
    wanted = count * (log_probs[0, 0] / temperature).softmax(-1)
    assert float(((found - wanted) ** 2 / wanted).sum()) < 16.3
    assert method.sampled(many, draws, 1e-3).unique().tolist() == [3]


def by_brute_force(log_probs: Tensor, n: int) -> list[tuple[float, tuple[int, ...]]]:
    """The ``n`` most probable vectors of one sentence of (S, C)."""
    places, classes = log_probs.shape
    every = itertools.product(range(classes), repeat=places)
    ranked = sorted(((float(sum(log_probs[i, f] for i, f in enumerate(v))), v) for v in every), reverse=True)
    return ranked[:n]


@pytest.mark.parametrize("n", [1, 2, 7, 30, 200])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_a_search_finds_the_most_probable_vectors_best_first(n: int, width: int) -> None:
    """FERT-16: all different, as by brute force, the first the argmax; where there are fewer, the best is repeated."""
    log_probs = drawn_log_probs(3, width, 4, seed=width)
    found = method.searched(log_probs, n)
    assert found.shape == (3, n, width)
    for rows, given in zip(found.tolist(), log_probs, strict=True):
        wanted = [list(vector) for _, vector in by_brute_force(given, n)]
        assert rows == wanted + wanted[:1] * (n - len(wanted))
        assert rows[0] == given.argmax(-1).tolist()


def test_a_search_does_not_depend_on_its_batch() -> None:
    """FERT-19: nor on padding; to the bit."""
    lengths = torch.tensor([3, 9, 2, 6])
    log_probs = method.pinned(drawn_log_probs(4, 9), lengths)
    together = method.searched(log_probs, 20)
    for row, length in enumerate(lengths.tolist()):
        alone = method.searched(log_probs[row : row + 1, :length], 20)
        assert torch.equal(alone[0], together[row, :, :length]) and not together[row, :, length:].any()


@pytest.mark.parametrize("n", [1, 2, 9, 50, 144])
def test_the_best_sums_of_two_lists_are_among_the_pairs_that_are_tried(n: int) -> None:
    """FERT-16: as many pairs as are needed, and each once."""
    first, second = (pair.tolist() for pair in method.rank_pairs(12, n, torch.device("cpu")))
    pairs = list(zip(first, second, strict=True))
    assert len(set(pairs)) == len(pairs) and set(pairs) >= {(0, 0)}
    some, other = (drawn_log_probs(1, 1, 12, seed)[0, 0].sort(descending=True).values for seed in (4, 5))
    every = sorted((float(a + b) for a in some for b in other), reverse=True)[:n]
    tried = sorted((float(some[i] + other[j]) for i, j in pairs), reverse=True)[:n]
    assert tried == every


def test_the_most_probable_fertilities_of_a_length_are_those_of_brute_force() -> None:
    """FERT-20: and the argmax where that has the length; no fertilities, −∞."""
    log_probs = drawn_log_probs(1, 4, 4, seed=6)
    ranked = by_brute_force(log_probs[0], 4**4)
    totals = torch.arange(13)
    found, best = method.of_length(log_probs.expand(13, -1, -1), totals)
    for total, row, value in zip(totals.tolist(), found.tolist(), best.tolist(), strict=True):
        wanted = next((score, list(vector)) for score, vector in ranked if sum(vector) == total)
        assert row == wanted[1] and value == pytest.approx(wanted[0], abs=1e-5)
    assert ranked[0][1] in [tuple(row) for row in found.tolist()]
    assert method.of_length(log_probs, torch.tensor([14]))[1].tolist() == [-torch.inf]


# --- losses


def test_a_divergence_is_that_of_its_definition() -> None:
    """FERT-8: a uniform teacher costs log V and a student that is sure the teacher's surprise, with and without its
    entropy, which is 0 then; of equals the divergence is 0. The gradient is the student's."""
    torch.manual_seed(1)
    logits, teacher = torch.randn(5, 9, requires_grad=True), torch.randn(5, 9).log_softmax(-1).requires_grad_()
    uniform = torch.full((5, 9), -math.log(9))
    torch.testing.assert_close(method.divergence(logits, uniform, False), torch.full((5,), math.log(9)))
    sure = torch.zeros(5, 9).scatter(1, torch.arange(5)[:, None], 60.0)
    surprise = -teacher.detach()[range(5), range(5)]
    for has_entropy in (True, False):
        torch.testing.assert_close(method.divergence(sure, teacher.detach(), has_entropy), surprise)
    own = logits.detach().log_softmax(-1)
    assert float(method.divergence(logits.detach(), own, True).abs().max()) < 1e-6
    plain = sum(p * (p.log() - q) for p, q in zip(own[0].exp(), teacher[0].detach(), strict=True))
    assert float(method.divergence(logits, teacher.detach(), True)[0].detach()) == pytest.approx(float(plain), abs=1e-5)
    method.divergence(logits, teacher.detach(), True).sum().backward()
    assert bool(logits.grad is not None and logits.grad.abs().sum() > 0) and teacher.grad is None


def losses(fertilities: Any) -> float:
    """Some loss of every vector of fertilities of two words."""
    return float(3.0 * fertilities[0] - fertilities[1] ** 2 + 0.5 * fertilities[0] * fertilities[1])


def test_the_estimate_is_on_average_the_gradient_of_the_expected_loss() -> None:
    """FERT-10: of two words of three fertilities each, against enumeration, whatever the baseline."""
    logits = torch.tensor([[0.3, -0.5, 0.8], [1.0, 0.2, -0.4]], dtype=torch.float64)

    def gradient(loss: Any) -> Tensor:
        wanted = logits.clone().requires_grad_()
        loss(wanted.log_softmax(-1)).backward()
        assert wanted.grad is not None
        return wanted.grad

    every = list(itertools.product(range(3), repeat=2))
    exact = gradient(lambda p: sum((p[0, a] + p[1, b]).exp() * losses((a, b)) for a, b in every))
    vectors, reward = torch.tensor(every), torch.tensor([losses(v) for v in every], dtype=torch.float64)
    chances = (logits.log_softmax(-1)[0, vectors[:, 0]] + logits.log_softmax(-1)[1, vectors[:, 1]]).exp()
    for baseline in (0.0, 2.5):
        mean = gradient(
            lambda p, b=baseline: (
                chances * method.reinforced(p.expand(9, -1, -1), vectors, reward, torch.full_like(reward, b))
            ).sum()
        )
        torch.testing.assert_close(mean, exact)
    count = 40_000
    draws = noise.uniform(noise.training_keys(1, 1, torch.arange(count)), 2)
    some = method.sampled(logits.log_softmax(-1).expand(count, -1, -1), draws)
    found = torch.tensor([losses(v) for v in some.tolist()], dtype=torch.float64)
    drawn = gradient(lambda p: method.reinforced(p.expand(count, -1, -1), some, found, found.mean()).mean())
    torch.testing.assert_close(drawn, exact, atol=0.03, rtol=0.05)
