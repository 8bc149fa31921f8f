"""Length candidates."""

import pytest
import torch

from nar_plugin.methods import lengths


def log_probs(rows: int = 5, classes: int = 12) -> torch.Tensor:
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(7))
    logits[:, 0] = -torch.inf
    return logits.log_softmax(1)


def test_one_candidate_is_the_most_probable_length() -> None:
    """CMLM-12: a single candidate is the argmax (of the lengths that a canvas can have)."""
    scores = log_probs(64)
    assert lengths.top_lengths(scores, 1)[:, 0].tolist() == scores.argmax(1).clamp(min=2).tolist()


@pytest.mark.parametrize("n", [2, 3, 7])
def test_candidates_are_the_most_probable_lengths_best_first(n: int) -> None:
    """CMLM-12: the n candidates are the n best classes, in order, floored at 2."""
    scores = log_probs(64)
    for row, chosen in zip(scores.tolist(), lengths.top_lengths(scores, n).tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda length: -row[length])[:n]
        assert chosen == [max(2, length) for length in best]


def test_lengths_below_two_are_raised_to_two() -> None:
    scores = torch.tensor([[-torch.inf, -0.1, -3.0, -4.0]])
    assert lengths.top_lengths(scores, 3).tolist() == [[2, 2, 3]]


def test_more_candidates_than_classes_repeat_the_last() -> None:
    scores = torch.tensor([[-torch.inf, -3.0, -1.0, -0.5]])
    assert lengths.top_lengths(scores, 6).tolist() == [[3, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("n", "expected"), [(1, {10}), (2, {10, 11}), (3, {9, 10, 11}), (4, {9, 10, 11, 12}), (5, {8, 9, 10, 11, 12})]
)
def test_a_window_has_n_lengths_around_the_reference(n: int, expected: set[int]) -> None:
    """CMLM-13: the window is N - (n-1)//2 to N + n//2, the reference's own length first."""
    chosen = lengths.window(torch.tensor([10, 10]), n, 50).tolist()
    assert [set(row) for row in chosen] == [expected, expected]
    assert [row[0] for row in chosen] == [10, 10] and all(len(row) == n for row in chosen)


def test_a_window_stays_between_two_and_the_longest() -> None:
    """CMLM-13: lengths are floored at 2 and stop at the longest canvas."""
    assert sorted(lengths.window(torch.tensor([2]), 5, 50)[0].tolist()) == [2, 2, 2, 3, 4]
    assert sorted(lengths.window(torch.tensor([50]), 5, 50)[0].tolist()) == [48, 49, 50, 50, 50]


def test_is_within_marks_the_first_positions() -> None:
    expected = [[False, False, False], [True, False, False], [True, True, True]]
    assert lengths.is_within(torch.tensor([0, 1, 3]), 3).tolist() == expected


def test_a_canvas_is_masked_only_where_rows_differ() -> None:
    is_token, mask = lengths.canvas(torch.tensor([3, 2]))
    assert is_token.tolist() == [[True, True, True], [True, True, False]] and mask is is_token
    is_token, mask = lengths.canvas(torch.tensor([2, 2]))
    assert is_token.all() and is_token.shape == (2, 2) and mask is None
