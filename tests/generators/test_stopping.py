"""Stop rules: distances, windows, and which pass ends a sentence (behaviours of iterative refinement)."""

from collections import Counter
from typing import List, Sequence

import pytest
import torch

from nar_plugin.generators.stopping import DISTANCES, StopRule, either, hamming, jaccard
from nar_plugin.methods.options import STOP_RULES
from tests.generators.stubs import padded
from tests.tiny import PAD

A, B, C = 7, 8, 9


def end(outputs: Sequence[Sequence[int]], rule: str, window: int, distance: float = 0.0) -> int:
    """The pass after which a sentence with these outputs ends, counted from 1; 0 if it never does."""
    stop_rule = StopRule(rule, window, distance, PAD)
    for number, output in enumerate(outputs, 1):
        verdict = stop_rule.verdict(torch.tensor([output]))
        if verdict is not None and bool(verdict[0]):
            return number
    return 0


def settling(at: int) -> List[List[int]]:
    """Twenty outputs without a repetition before pass ``at``, and none but that one after it."""
    return [[20 + min(i, at), A] for i in range(1, 21)]


@pytest.mark.parametrize("rule", ["fixed-point", "jaccard"])
@pytest.mark.parametrize(("fixed", "ended"), [(1, 5), (2, 6), (3, 7), (6, 10)])
def test_the_released_window_ends_four_passes_after_a_fixed_point(rule: str, fixed: int, ended: int) -> None:
    """LEE-29: a fixed point from pass i on ends it at pass i + 4."""
    assert end(settling(fixed), rule, window=5) == ended


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_circle_inside_the_window_ends_a_sentence(period: int) -> None:
    """LEE-29: never before pass 5."""
    assert end([[20 + i % period, A] for i in range(20)], "jaccard", window=5) == 5


def test_a_circle_as_long_as_the_window_does_not() -> None:
    assert end([[20 + i % 5, A] for i in range(20)], "jaccard", window=5) == 0


@pytest.mark.parametrize("fixed", [1, 2, 6])
def test_two_equal_passes_in_a_row_end_a_sentence(fixed: int) -> None:
    """LEE-30: at the first pass whose output is that of the one before it."""
    assert end(settling(fixed), "fixed-point", window=1) == fixed + 1


def test_the_distance_at_which_a_sentence_ends_is_a_choice() -> None:
    """LEE-30: 1 ends it after the first refinement."""
    outputs = [[A, A, A, A], [B, B, B, A], [C, B, B, A], [C, B, B, A]]
    assert [end(outputs, "fixed-point", 1, distance) for distance in (0.0, 0.24, 0.25, 0.74, 0.75, 1.0)] == [
        4,
        4,
        3,
        3,
        2,
        2,
    ]


def test_the_order_of_words_is_no_matter_to_jaccard() -> None:
    """LEE-31: equality implies it, but not conversely."""
    assert end([[A, B], [B, A]], "jaccard", 1) == 2 and end([[A, B], [B, A]], "fixed-point", 1) == 0


def test_jaccard_is_that_of_multisets() -> None:
    """LEE-31: {a, a, b} and {a, b} are 2/3 alike, and two empty outputs are equal."""
    cases = [([A, A, B], [A, B], 1 / 3), ([A, B], [A, B], 0), ([A], [B], 1), ([], [], 0), ([], [A], 1)]
    first, second = padded([case[0] for case in cases]), padded([case[1] for case in cases])
    width = max(first.size(1), second.size(1))
    first, second = (torch.nn.functional.pad(x, (0, width - x.size(1)), value=PAD) for x in (first, second))
    expected = torch.tensor([case[2] for case in cases])
    torch.testing.assert_close(jaccard(first, second, PAD), expected)
    torch.testing.assert_close(jaccard(second, first, PAD), expected)


def test_distances_are_those_counted_word_by_word() -> None:
    draw = torch.Generator().manual_seed(1)
    a, b = (torch.randint(5, 9, (200, 6), generator=draw) for _ in range(2))
    lengths = torch.randint(0, 7, (2, 200), generator=draw)
    a, b = (x.masked_fill(torch.arange(6) >= n[:, None], PAD) for x, n in zip((a, b), lengths, strict=True))
    for x, y, differing, apart in zip(a.tolist(), b.tolist(), hamming(a, b, PAD), jaccard(a, b, PAD), strict=True):
        filled = sum(i != PAD or j != PAD for i, j in zip(x, y, strict=True))
        assert float(differing) == pytest.approx(sum(i != j for i, j in zip(x, y, strict=True)) / max(1, filled))
        s, t = Counter(i for i in x if i != PAD), Counter(j for j in y if j != PAD)
        assert float(apart) == pytest.approx(1 - (s & t).total() / (s | t).total() if s or t else 0)


def test_rows_are_judged_each_by_its_own_past_whatever_the_width() -> None:
    rule = StopRule("fixed-point", 1, 0.0, PAD)
    assert rule.verdict(torch.tensor([[A, PAD], [A, B], [C, C]])) is None
    assert rule.verdict(torch.tensor([[A, PAD, PAD], [A, PAD, PAD], [C, C, PAD]])).tolist() == [True, False, True]  # type: ignore[union-attr]
    rule.select(torch.tensor([1]))
    assert rule.verdict(torch.tensor([[A]])).tolist() == [True]  # type: ignore[union-attr]


def test_a_rule_keeps_its_own_copy() -> None:
    rule, tokens = StopRule("fixed-point", 1, 0.0, PAD), torch.tensor([[A]])
    rule.verdict(tokens)
    assert rule.verdict(tokens.fill_(B)).tolist() == [False]  # type: ignore[union-attr]


def test_no_rule_and_no_tokens_give_no_verdict() -> None:
    assert StopRule("none", 1, 0.0, PAD).verdict(torch.tensor([[A]])) is None
    assert StopRule("fixed-point", 1, 0.0, PAD).verdict(None) is None
    assert set(STOP_RULES) == {"none", "oracle", *DISTANCES}


def test_either_verdict_counts() -> None:
    a, b = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    assert either(None, None) is None and either(a, None) is a and either(None, b) is b
    assert either(a, b).tolist() == [True, False, True]  # type: ignore[union-attr]
