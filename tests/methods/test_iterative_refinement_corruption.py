"""Iterative refinement: behaviours that need no network (tests/BEHAVIOURS.md)."""

import random
from typing import List

import pytest
import torch

from nar_plugin.methods import iterative_refinement as method
from nar_plugin.methods import noise
from nar_plugin.methods.iterative_refinement import REPEAT, REPLACE, SWAP

FIRST, SIZE, EOS, PAD = 4, 30, 2, 1


@pytest.mark.parametrize(
    ("source", "target", "places"),
    [
        (5, 5, [0, 1, 2, 3, 4]),
        (7, 4, [0, 2, 4, 6]),
        (4, 2, [0, 3]),
        (3, 7, [0, 0, 1, 1, 1, 2, 2]),
        (5, 9, [0, 0, 1, 2, 2, 2, 3, 4, 4]),
        (6, 1, [0]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_the_first_pass_copies_the_source_evenly(source: int, target: int, places: List[int]) -> None:
    """LEE-10: the vectors of the released formula, one token on either side included."""
    alone = method.copied_places(torch.tensor([source]), torch.tensor([target]), target)
    beside = method.copied_places(torch.tensor([source, 40]), torch.tensor([target, 50]), 50)
    assert alone.tolist() == [places] and beside[0, :target].tolist() == places


def test_every_copied_place_is_in_the_source_and_no_row_goes_back() -> None:
    """LEE-10: first to first, last to last, monotone."""
    pairs = torch.cartesian_prod(torch.arange(1, 40), torch.arange(1, 40))
    places = method.copied_places(pairs[:, 0], pairs[:, 1], 40)
    assert (places >= 0).all() and (places < pairs[:, :1]).all()
    for (source, target), row in zip(pairs.tolist(), places):
        assert row[:target].diff().ge(0).all() and row[0] == 0
        assert target == 1 or row[target - 1] == source - 1


@pytest.mark.parametrize(
    ("refinements", "rates"), [(1, [0.1]), (2, [0.5, 0.1]), (3, [19 / 30, 11 / 30, 0.1]), (4, [0.7, 0.5, 0.3, 0.1])]
)
def test_the_first_refinement_reads_the_noisiest_text(refinements: int, rates: List[float]) -> None:
    """LEE-21: the lists of the released code, without their unused last entry."""
    assert method.corruption_rates(refinements) == pytest.approx(rates)


def step_by_step(tokens: List[int], operations: List[int], drawn: List[int]) -> List[int]:
    """What the operations mean, one after the other and in place."""
    tokens = list(tokens)
    for i, operation in enumerate(operations):
        if operation == REPEAT:
            tokens[i + 1] = tokens[i]
        elif operation == SWAP:
            tokens[i], tokens[i + 1] = tokens[i + 1], tokens[i]
        elif operation == REPLACE:
            tokens[i] = drawn[i]
    return tokens


def test_operations_follow_each_other_from_left_to_right() -> None:
    draw = random.Random(1)
    for width in range(2, 12):
        rows = [[draw.randrange(FIRST, SIZE) for _ in range(width - 1)] + [EOS] for _ in range(60)]
        operations = [[draw.choice((-1, REPEAT, REPLACE, SWAP)) for _ in range(width - 2)] + [-1, -1] for _ in rows]
        keys = torch.arange(len(rows))
        tokens = torch.tensor(rows)
        replaced = method.corrupted(keys, tokens, torch.full_like(tokens, REPLACE), FIRST, SIZE).tolist()
        found = method.corrupted(keys, tokens, torch.tensor(operations), FIRST, SIZE).tolist()
        assert found == [step_by_step(*case) for case in zip(rows, operations, replaced, strict=True)]
        assert tokens.tolist() == rows, "the input was changed"


@pytest.mark.parametrize(("operation", "expected"), [(SWAP, [11, 10]), (REPEAT, [10, 10])])
def test_one_operation_on_two_words(operation: int, expected: List[int]) -> None:
    """LEE-22: a true swap, where fairseq's repeats a token."""
    found = method.corrupted(
        torch.tensor([1]), torch.tensor([[10, 11, EOS]]), torch.tensor([[operation, -1, -1]]), FIRST, SIZE
    )
    assert found.tolist() == [[*expected, EOS]]


def sentences(rows: int, width: int) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Keys, targets of 1 … width tokens with distinct neighbours, and their lengths."""
    lengths = 1 + torch.arange(rows) % width
    tokens = FIRST + (torch.arange(width) + torch.arange(rows)[:, None]) % (SIZE - FIRST)
    tokens = tokens.scatter(1, lengths[:, None] - 1, EOS)
    return torch.arange(rows), tokens.masked_fill(torch.arange(width) >= lengths[:, None], PAD), lengths


@pytest.mark.parametrize("by_count", [True, False])
def test_specials_stay_where_they_are(by_count: bool) -> None:
    """LEE-22: length, pads and ``</s>`` stay, the input is not touched, keys decide."""
    keys, tokens, lengths = sentences(2000, 9)
    before = tokens.clone()
    noisy = method.corruption(keys, tokens, lengths, 0.9, FIRST, SIZE, by_count)
    assert ((noisy < FIRST) == (tokens < FIRST)).all() and noisy[tokens < FIRST].equal(tokens[tokens < FIRST])
    assert noisy.max() < SIZE and tokens.equal(before) and not noisy.equal(tokens)
    assert noisy.equal(method.corruption(keys, tokens, lengths, 0.9, FIRST, SIZE, by_count)), "not reproducible"
    assert not noisy.equal(method.corruption(keys + 1, tokens, lengths, 0.9, FIRST, SIZE, by_count))


def test_no_probability_no_noise() -> None:
    """LEE-22: at 0 it is the identity."""
    keys, tokens, lengths = sentences(500, 9)
    assert method.corruption(keys, tokens, lengths, 0.0, FIRST, SIZE, by_count=False).equal(tokens)


def test_every_word_is_chosen_at_probability_one() -> None:
    """LEE-22: at 1 it touches every eligible position."""
    _, tokens, lengths = sentences(500, 9)
    chosen = method.chosen_words(torch.arange(500), lengths, 9, 1.0, by_count=False)
    assert chosen.equal(tokens >= FIRST)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_a_fixed_count_of_words_is_chosen(rate: float) -> None:
    """LEE-23: exactly so many distinct positions, never ``</s>``."""
    _, tokens, lengths = sentences(900, 30)
    chosen = method.chosen_words(torch.arange(900), lengths, 30, rate, by_count=True)
    assert not chosen[tokens < FIRST].any()
    counts = [min(max(int(rate * length + 1e-9), 1), length - 1) for length in lengths.tolist()]
    assert chosen.sum(1).tolist() == counts


@pytest.mark.parametrize("by_count", [True, False])
def test_every_operation_is_as_frequent_and_every_word_as_often_chosen(by_count: bool) -> None:
    """LEE-22: within three standard deviations."""
    n, rate = 30000, 0.25
    keys, lengths = torch.arange(n), torch.full((n,), 5)
    tokens = torch.tensor([[10, 11, 12, 13, EOS]]).expand(n, -1)
    chosen = method.chosen_words(keys, lengths, 5, rate, by_count)
    assert (chosen.float().mean(0)[:4] - 0.25).abs().max() < 3 * (0.25 * 0.75 / n) ** 0.5
    only = chosen[:, 0] & (chosen.sum(1) == 1)
    noisy = method.corruption(keys, tokens, lengths, rate, FIRST, SIZE, by_count)[only]
    repeated, swapped = (noisy[:, 1] == 10) & (noisy[:, 0] == 10), (noisy[:, 0] == 11) & (noisy[:, 1] == 10)
    for share in (repeated.float().mean(), swapped.float().mean()):
        assert abs(share - 1 / 3) < 3 * (2 / 9 / len(noisy)) ** 0.5


def test_a_replacement_is_any_word() -> None:
    keys = torch.arange(26000)
    tokens = torch.full((len(keys), 2), 10)
    drawn = method.corrupted(keys, tokens, torch.full_like(tokens, REPLACE), FIRST, SIZE)[:, 0]
    counts = drawn.bincount(minlength=SIZE)[FIRST:]
    assert drawn.min() >= FIRST and len(counts) == SIZE - FIRST
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-square of 25 degrees of freedom
    assert noise.uniform(keys, 1).shape == (26000, 1)


@pytest.mark.parametrize("by_count", [True, False])
def test_a_replacement_is_any_word_wherever_it_was_chosen(by_count: bool) -> None:
    """The numbers that chose a word and its operation say nothing of the word that takes its place."""
    n, outside = 40000, 90
    tokens = torch.tensor([[outside, outside, outside, EOS]]).expand(n, -1)
    lengths = torch.full((n,), 4)
    noisy = method.corruption(torch.arange(n), tokens, lengths, 0.5, FIRST, SIZE, by_count)
    for place in range(3):
        replaced = noisy[:, place][noisy[:, place] < outside]
        counts, expected = replaced.bincount(minlength=SIZE)[FIRST:], len(replaced) / (SIZE - FIRST)
        assert len(replaced) > n / 10
        assert ((counts - expected) ** 2 / expected).sum() < 60  # chi-square of 25 degrees of freedom
