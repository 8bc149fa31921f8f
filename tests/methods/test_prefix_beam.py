"""The prefix beam against everything that a small canvas can say."""

import math

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import prefix_beam
from tests.methods.test_alignments import BLANK, C, Said, brute_force, everything, log_probs_of

EVERYTHING = sorted(everything(C))


def found(log_probs: Tensor, is_canvas: Tensor, n: int) -> list[list[Said]]:
    words, sizes, is_there = prefix_beam.search(log_probs, is_canvas, n)
    return [
        [tuple(one[:size].tolist()) for one, size, there in zip(*row, strict=True) if there]
        for row in zip(words, sizes.tolist(), is_there.tolist(), strict=True)
    ]


def whole(rows: int, width: int = C) -> Tensor:
    return torch.ones(rows, width, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_as_wide_as_all_words_ranks_them_by_their_sums(seed: int) -> None:
    """CTC-7: exhaustive search, over all alignments of all that can be said."""
    log_probs = log_probs_of(1, seed=seed)
    ranked = sorted(EVERYTHING, key=lambda words: -float(brute_force(log_probs[0], words, C)))
    assert found(log_probs, whole(1), len(EVERYTHING) + 3) == [ranked]


@pytest.mark.parametrize(("n", "least"), [(2, 50), (3, 55), (5, 58), (8, 60)])
def test_a_narrow_beam_holds_different_words_and_nearly_always_the_best(n: int, least: int) -> None:
    """CTC-7."""
    log_probs = log_probs_of(60)
    beams, right = found(log_probs, whole(60), n), 0
    for row, beam in zip(log_probs, beams, strict=True):
        assert len(beam) == n == len(set(beam)) and set(beam) <= set(EVERYTHING)
        best = max(EVERYTHING, key=lambda words, row=row: float(brute_force(row, words, C)))
        right += beam[0] == best
    assert right >= least


def plain(log_probs: Tensor, n: int) -> list[Said]:
    """The search as it is written down for one sentence, with a dictionary of beginnings."""
    beam: dict[Said, tuple[float, float]] = {(): (1.0, 0.0)}
    for position in log_probs.exp().tolist():
        longer: dict[Said, tuple[float, float]] = {}

        def add(words: Said, of_blank: float, of_word: float, longer: dict[Said, tuple[float, float]] = longer) -> None:
            before = longer.get(words, (0.0, 0.0))
            longer[words] = (before[0] + of_blank, before[1] + of_word)

        best = sorted(range(BLANK), key=lambda word, p=position: -p[word])[: n + 1]
        for words, (of_blank, of_word) in beam.items():
            add(words, (of_blank + of_word) * position[BLANK], of_word * position[words[-1]] if words else 0.0)
            for word in range(BLANK):
                if word in best or (*words, word) in beam:
                    own = of_blank if words and words[-1] == word else of_blank + of_word
                    add((*words, word), 0.0, own * position[word])
        beam = dict(sorted(longer.items(), key=lambda one: -sum(one[1]))[:n])
    return list(beam)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_beam_is_that_of_the_algorithm_as_written(n: int) -> None:
    """CTC-7: all sentences at once, on the longer canvas of others, or one by one with a dictionary."""
    log_probs = log_probs_of(40, width=9, seed=3)
    widths = torch.arange(40) % 9 + 1
    is_canvas = torch.arange(9) < widths[:, None]
    for i, beam in enumerate(found(log_probs, is_canvas, n)):
        assert beam == plain(log_probs[i, : int(widths[i])], n)


def test_fewer_words_than_asked_for_are_given_once_each() -> None:
    log_probs = log_probs_of(2, width=1)
    is_canvas = whole(2, 1)
    for row, beam in zip(log_probs, found(log_probs, is_canvas, 9), strict=True):
        assert sorted(beam) == [(), (0,), (1,), (2,)]
        assert beam[0] == max(beam, key=lambda words, row=row: float(row[0, words[0] if words else BLANK]))


def test_a_word_that_may_not_be_said_is_in_no_hypothesis() -> None:
    log_probs = log_probs_of(10)
    log_probs[..., 1] = -math.inf
    for beam in found(log_probs, whole(10), 30):
        assert all(1 not in words for words in beam) and len(beam) > 20


def test_a_full_canvas_keeps_its_last_word() -> None:
    """Every position says another word, and nothing else: there is no room behind them."""
    log_probs = torch.full((1, 4, 6), -30.0)
    for i in range(4):
        log_probs[0, i, i] = 0.0
    assert found(log_probs.log_softmax(-1), whole(1, 4), 3)[0][0] == (0, 1, 2, 3)
