"""Padding, closing and shifting of ids, against rows of plain lists."""

import torch

from nar_plugin.methods import symbols
from tests.tiny import BOS, EOS, MASK, PAD, SYMBOLS, UNK, dictionary


def test_the_mask_is_one_past_the_dictionary_and_no_other_symbol() -> None:
    assert MASK == len(dictionary()) and MASK not in (BOS, PAD, EOS, UNK)


def test_compact_keeps_the_order_of_what_is_kept() -> None:
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    kept = torch.tensor([[True, False, True, False], [False, False, False, True]])
    ids, is_token = symbols.compact(tokens, kept, PAD)
    assert ids.tolist() == [[5, 7, PAD, PAD], [12, PAD, PAD, PAD]]
    assert is_token.tolist() == [[True, True, False, False], [True, False, False, False]]


def test_left_and_right_padding_become_the_same() -> None:
    left = torch.tensor([[PAD, PAD, 7, 8, EOS], [4, 5, 6, 7, EOS]])
    right = torch.tensor([[7, 8, EOS, PAD, PAD], [4, 5, 6, 7, EOS]])
    for tokens in (left, right):
        ids, is_token = symbols.right_padded(tokens, PAD)
        assert torch.equal(ids, right) and torch.equal(is_token, right != PAD)


def test_closed_drops_every_end_and_begin_and_puts_one_end() -> None:
    tokens = torch.tensor([[5, EOS, 6, EOS, PAD], [BOS, 5, 6, 7, 8], [EOS, EOS, PAD, PAD, PAD], [5, 6, 7, 8, 9]])
    ids, is_token = symbols.closed(tokens, SYMBOLS)
    expected = [[5, 6, EOS], [5, 6, 7, 8, EOS], [EOS], [5, 6, 7, 8, 9, EOS]]
    assert ids.tolist() == [row + [PAD] * (6 - len(row)) for row in expected]
    assert is_token.sum(1).tolist() == [len(row) for row in expected]


def test_closed_keeps_an_unknown_word() -> None:
    assert symbols.closed(torch.tensor([[5, UNK, 6]]), SYMBOLS)[0].tolist() == [[5, UNK, 6, EOS]]


def test_collapsed_drops_equal_neighbours_and_keeps_the_first_score() -> None:
    """LEE-34, LANMT-36: "a a b" becomes "a b"; what has no repeats stays; twice is once."""
    tokens = torch.tensor([[5, 5, 6, 5, 5, 5, EOS, PAD], [7, 8, 7, 8, EOS, PAD, PAD, PAD]])
    scores = -torch.arange(1.0, 17.0).view(2, 8)
    ids, kept = symbols.collapsed(tokens, scores, SYMBOLS)
    assert [[t for t in row if t != PAD] for row in ids.tolist()] == [[5, 6, 5, EOS], [7, 8, 7, 8, EOS]]
    assert kept[0].tolist() == [-1, -3, -4, -7, 0, 0, 0, 0]
    assert kept[1].tolist() == [-9, -10, -11, -12, -13, 0, 0, 0]
    assert all(torch.equal(a, b) for a, b in zip(symbols.collapsed(ids, kept, SYMBOLS), (ids, kept), strict=True))


def test_collapsed_reads_what_is_read() -> None:
    """LANMT-36: a repeat across ``</s>``, which no text shows, is one; the last ``</s>`` stays."""
    tokens = torch.tensor([[5, EOS, 5, EOS, EOS, 6], [EOS, EOS, 5, BOS, 5, EOS]])
    ids, _ = symbols.collapsed(tokens, torch.zeros(2, 6), SYMBOLS)
    assert [[t for t in row if t != PAD] for row in ids.tolist()] == [[5, EOS, EOS, 6], [EOS, 5, BOS, EOS]]


def test_collapsed_leaves_its_arguments_alone() -> None:
    tokens, scores = torch.tensor([[5, 5, PAD]]), torch.tensor([[-1.0, -2.0, 0.0]])
    symbols.collapsed(tokens, scores, SYMBOLS)
    assert tokens.tolist() == [[5, 5, PAD]] and scores.tolist() == [[-1.0, -2.0, 0.0]]


def test_shifted_is_the_teacher_forced_input() -> None:
    target = torch.tensor([[5, 6, EOS, PAD], [5, 6, 7, EOS], [EOS, PAD, PAD, PAD]])
    expected = [[EOS, 5, 6, PAD], [EOS, 5, 6, 7], [EOS, PAD, PAD, PAD]]
    assert symbols.shifted(target, SYMBOLS).tolist() == expected


def test_begin_padded_puts_a_begin_in_front_of_every_row() -> None:
    tokens, is_token = symbols.begin_padded(
        torch.tensor([[5, EOS], [EOS, PAD]]), torch.tensor([[True] * 2, [True, False]]), 0
    )
    assert tokens.tolist() == [[0, 5, EOS], [0, EOS, PAD]] and is_token.tolist() == [[True] * 3, [True, True, False]]
