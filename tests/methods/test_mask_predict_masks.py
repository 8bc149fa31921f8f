"""Which positions are masked, in training and in decoding.

``tests/test_mutations.py`` proves that these checks bite.
"""

import math

import torch
from torch import Tensor

from nar_plugin.methods import mask_predict as method
from nar_plugin.methods import noise, unmasking

ROWS = 20000
KEYS = noise.training_keys(1, 1, torch.arange(ROWS))
GRID = unmasking.GRID


def masks(length: int, width: int, *, release_compat: bool = False, span: bool = False) -> Tensor:
    is_token = (torch.arange(width) < length).expand(ROWS, width)
    return method.training_mask(KEYS, is_token, release_compat, span)


def assert_uniform(cells: Tensor) -> None:
    """χ² below a bound that a uniform draw exceeds about once in 10^5 (normal approximation, generous)."""
    expected, free = float(cells.sum()) / len(cells), len(cells) - 1
    statistic = float(((cells.float() - expected) ** 2 / expected).sum())
    assert statistic < free + 6 * math.sqrt(2 * free) + 10, (statistic, cells.tolist())


def test_mask_counts_are_uniform_on_one_to_n() -> None:
    """CMLM-4: in training 1 to N positions are masked, each number equally often."""
    counts = torch.bincount(masks(6, 8).sum(1), minlength=9)
    assert counts[0] == 0 and counts[7:].sum() == 0
    assert_uniform(counts[1:7])


def test_release_compat_masks_one_to_n_minus_one() -> None:
    """CMLM-4: as the released code draws: never the whole target."""
    counts = torch.bincount(masks(6, 8, release_compat=True).sum(1), minlength=9)
    assert counts[0] == 0 and counts[6:].sum() == 0
    assert_uniform(counts[1:6])


def test_a_target_of_one_token_is_masked() -> None:
    """CMLM-4: N = 1 leaves one choice, in both ways of drawing."""
    for release_compat in (False, True):
        mask = masks(1, 3, release_compat=release_compat)
        assert mask[:, 0].all() and not mask[:, 1:].any()


def test_every_subset_of_a_size_is_equally_frequent() -> None:
    """CMLM-4: positions are a uniform subset, the last one (``</s>``) among them like any other; padding never."""
    mask = masks(5, 7)
    assert not mask[:, 5:].any()
    code = (mask[:, :5].long() * 2 ** torch.arange(5)).sum(1)
    for size in range(1, 5):
        subsets = torch.bincount(code[mask.sum(1) == size], minlength=32)
        of_size = [c for c in range(32) if bin(c).count("1") == size]
        assert int(subsets.sum()) == int(subsets[of_size].sum())
        assert_uniform(subsets[of_size])


def test_training_masks_do_not_see_the_width_of_the_batch() -> None:
    assert torch.equal(masks(5, 9)[:, :5], masks(5, 5))


def test_a_span_is_contiguous_and_starts_anywhere_it_fits() -> None:
    mask = masks(5, 7, span=True)
    counts, place = mask.sum(1), torch.arange(7)
    first = torch.where(mask, place, 99).amin(1)
    last = torch.where(mask, place, -1).amax(1)
    assert bool((last - first + 1 == counts).all()) and int(last.max()) == 4
    assert_uniform(torch.bincount(counts, minlength=6)[1:])
    for size in (1, 2, 3, 4):
        assert_uniform(torch.bincount(first[counts == size], minlength=6 - size))


def test_decoding_counts_follow_the_paper() -> None:
    """CMLM-7: n = max(1, floor(N (T - t) / T)) for every N, T and t."""
    for passes in range(1, 21):
        for step in range(1, passes):
            canvas, lengths = canvas_of([[-1.0] * 50] * 50, list(range(1, 51)), step, passes), range(1, 51)
            counts = [len(set(row)) for row in unmasking.linear(canvas, 0.0)[0].tolist()]
            assert counts == [max(1, math.floor(n * (passes - step) / passes + 1e-9)) for n in lengths]


def canvas_of(confidence: list[list[float]], lengths: list[int], step: int, passes: int) -> unmasking.Canvas:
    is_token = torch.arange(len(confidence[0])) < torch.tensor(lengths)[:, None]
    return unmasking.Canvas(torch.tensor(confidence), None, None, torch.tensor(lengths), is_token, step, passes)


def chosen(confidence: list[list[float]], lengths: list[int], step: int, passes: int) -> list[list[int]]:
    """The positions each row masks; what a row repeats beyond its own count must be its first position."""
    canvas = canvas_of(confidence, lengths, step, passes)
    places, done = unmasking.linear(canvas, 0.0)
    assert places.shape == (len(confidence), max(1, len(confidence[0]) * (passes - step) // passes)) and done is None
    counts = [max(1, n * (passes - step) // passes) for n in lengths]
    if all(n == len(confidence[0]) for n in lengths):
        assert places.equal(unmasking.linear(canvas._replace(is_token=None), 0.0)[0])
    for row, count in zip(places.tolist(), counts, strict=True):
        assert row[count:] == [row[0]] * (len(row) - count)
    return [row[:count] for row, count in zip(places.tolist(), counts, strict=True)]


def test_a_word_is_masked_where_the_count_is_zero() -> None:
    """CMLM-7: max(1, ...), in a canvas of its own and beside longer ones."""
    assert chosen([[-1.0]], [1], 1, 2) == [[0]]
    assert chosen([[-1.0, -2.0, 0.0, 0.0], [-0.5, -1.0, -2.0, -3.0]], [2, 4], 2, 3) == [[1], [3]]


def test_the_least_confident_positions_are_chosen_lowest_first() -> None:
    """CMLM-9: the n smallest log-probabilities among real positions."""
    rows = [[-0.5, -3.0, -0.25, -2.0, 0.0], [-0.125, -0.25, -4.0, 0.0, 0.0]]
    assert chosen(rows, [5, 3], 1, 2) == [[1, 3], [2]]
    assert chosen(rows, [5, 3], 1, 5) == [[1, 3, 0, 2], [2, 1]]


def test_equal_confidences_are_chosen_from_the_left() -> None:
    """CMLM-9: ties, also among saturated probabilities of 1, go to the leftmost."""
    assert chosen([[0.0] * 6], [6], 1, 3) == [[0, 1, 2, 3]]
    assert chosen([[-1.0, 0.0, -1.0, 0.0, -1.0, -1.0]], [6], 1, 2) == [[0, 2, 4]]
    long = [[0.0] * 300]
    assert chosen(long, [300], 6, 10) == [list(range(120))]


def test_padding_is_never_chosen_even_where_it_looks_least_confident() -> None:
    """CMLM-9: a pad carries score 0, or anything, and is not among the chosen."""
    rows = [[0.0, 0.0, 0.0, -9.0, -9.0], [0.0, -0.5, -9.0, -9.0, -9.0]]
    assert chosen(rows, [3, 2], 0, 3) == [[0, 1, 2], [1, 0]]
    assert chosen(rows, [3, 2], 1, 3) == [[0, 1], [1]]


def test_confidences_are_compared_on_a_grid() -> None:
    """CMLM-9: differences far below the grid are ties, one step of it is a difference."""
    assert chosen([[-4 * GRID, -4 * GRID - GRID / 8, -4 * GRID + GRID / 8]], [3], 2, 3) == [[0]]
    assert chosen([[-4 * GRID, -5 * GRID, -4 * GRID]], [3], 2, 3) == [[1]]


def test_a_hundredth_of_a_nat_is_a_difference() -> None:
    """CMLM-9: the grid is far finer than what tells one confidence from another."""
    assert chosen([[-0.25, -0.26, -0.25, -0.24]], [4], 1, 2) == [[1, 0]]


def test_noise_of_arithmetic_does_not_choose_the_masks() -> None:
    """CMLM-9: a saturated 0 and a -1e-7 are the same confidence."""
    assert chosen([[0.0, -1e-7, 0.0, -2e-7]], [4], 1, 2) == [[0, 1]]
