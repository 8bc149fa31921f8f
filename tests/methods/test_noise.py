"""Noise: what it depends on, what it does not, and that it is uniform. Keys are fixed: nothing here is flaky."""

import torch
from torch import Tensor

from nar_plugin.methods import noise

KEYS = noise.mix(torch.arange(1, 4001) * 977)
CHI_SQUARE_99_999 = {9: 41.0, 15: 51.0, 63: 125.0}
"""Upper quantiles at about 1 - 1e-5 by degrees of freedom; a fixed draw either passes or the mixer is broken."""


def chi_square(cells: Tensor, expected: float) -> float:
    return float(((cells.float() - expected) ** 2 / expected).sum())


def histogram(values: Tensor, cells: int) -> Tensor:
    return torch.bincount((values * cells).long().flatten(), minlength=cells)


def test_the_same_key_gives_the_same_numbers_whatever_the_width() -> None:
    wide = noise.uniform(KEYS, 40)
    for width in (1, 7, 39):
        assert torch.equal(noise.uniform(KEYS, width), wide[:, :width])


def test_the_same_key_gives_the_same_numbers_in_any_batch() -> None:
    together, order = noise.uniform(KEYS, 9), torch.randperm(len(KEYS), generator=torch.Generator().manual_seed(1))
    assert torch.equal(noise.uniform(KEYS[order], 9), together[order])
    assert torch.equal(noise.uniform(KEYS[5:6], 9), together[5:6])


def test_numbers_lie_in_the_half_open_unit_interval() -> None:
    numbers = noise.uniform(KEYS, 50)
    assert numbers.dtype == torch.float32 and 0 <= float(numbers.min()) and float(numbers.max()) < 1


def test_the_largest_number_is_below_one() -> None:
    """24 bits fit a float32: the largest draw must not be rounded up to 1."""
    assert float(torch.tensor(2**24 - 1).float() * 2.0**-24) < 1
    assert float(noise.uniform(KEYS, 500).max()) > 0.99999


def test_numbers_are_uniform_over_keys_and_over_positions() -> None:
    numbers = noise.uniform(KEYS, 16)
    for column in numbers.T:
        assert chi_square(histogram(column, 10), len(KEYS) / 10) < CHI_SQUARE_99_999[9]
    row = noise.uniform(KEYS[:1], 16000)
    assert chi_square(histogram(row, 16), 1000) < CHI_SQUARE_99_999[15]


def test_neighbouring_positions_are_independent() -> None:
    numbers = (noise.uniform(KEYS, 9) * 8).long()
    pairs = numbers[:, :-1] * 8 + numbers[:, 1:]
    assert chi_square(torch.bincount(pairs.flatten(), minlength=64), pairs.numel() / 64) < CHI_SQUARE_99_999[63]


def test_neighbouring_keys_are_independent() -> None:
    numbers = noise.uniform(noise.training_keys(1, 1, torch.arange(16001)), 1)[:, 0]
    pairs = (numbers[:-1] * 8).long() * 8 + (numbers[1:] * 8).long()
    assert chi_square(torch.bincount(pairs, minlength=64), len(pairs) / 64) < CHI_SQUARE_99_999[63]


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs of SplitMix64 for seed 0 (Vigna's reference implementation): states are k * golden ratio."""
    states = torch.arange(1, 4) * noise._GOLDEN
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % 2**64 for value in noise.mix(states).tolist()] == known


def test_the_mixer_repeats_no_value() -> None:
    assert len(noise.mix(torch.arange(-50000, 50000)).unique()) == 100000


def test_training_keys_depend_on_seed_epoch_and_sentence() -> None:
    ids = torch.arange(50)
    keys = [noise.training_keys(seed, epoch, ids) for seed in range(5) for epoch in range(5)]
    assert len(torch.cat(keys).unique()) == 5 * 5 * 50


def test_training_keys_of_a_sentence_do_not_depend_on_its_batch() -> None:
    ids = torch.tensor([4, 9, 2])
    assert torch.equal(noise.training_keys(3, 2, ids)[1:2], noise.training_keys(3, 2, torch.tensor([9])))


def test_folding_parts_in_another_order_gives_another_key() -> None:
    key = torch.tensor([5])
    assert noise.fold(noise.fold(key, 1), 2) != noise.fold(noise.fold(key, 2), 1)


def test_a_part_may_be_one_number_or_one_a_row() -> None:
    keys = torch.tensor([5, 6])
    assert torch.equal(noise.fold(keys, 3), noise.fold(keys, torch.tensor([3, 3])))


def test_source_keys_do_not_see_padding() -> None:
    narrow, wide = torch.tensor([[7, 8, 2]]), torch.tensor([[7, 8, 2, 1, 1], [9, 9, 9, 9, 2]])
    assert noise.source_keys(narrow, narrow != 1)[0] == noise.source_keys(wide, wide != 1)[0]


def test_keys_of_a_decode_depend_on_seed_words_order_and_length() -> None:
    rows = torch.tensor([[7, 8, 2, 1], [8, 7, 2, 1], [7, 9, 2, 1], [7, 8, 8, 2], [7, 2, 1, 1]])
    keys = torch.cat([noise.decoding_keys(seed, noise.source_keys(rows, rows != 1)) for seed in (1, 2)])
    assert len(keys.unique()) == 10


def test_candidates_of_a_sentence_have_keys_of_their_own() -> None:
    keys = torch.tensor([5, 6])
    found = noise.candidate_keys(keys, 3)
    assert len(found.unique()) == 6
    for row, candidate in ((0, 0), (0, 2), (1, 1)):
        assert found[3 * row + candidate] == noise.fold(keys[row : row + 1], candidate)[0]
