"""The words that are the most probable together, against all sequences of words there are."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import deduplication, prediction

END = 1
"""The word of these tests that may be said twice in a row."""
PENALTIES = pytest.mark.parametrize("penalty", [math.inf, 1.25, 0.25])


def value(row: list[list[float]], words: tuple[int, ...], penalty: float) -> float:
    """What is to be the greatest."""
    repeats = sum(a == b != END for a, b in zip(words, words[1:]))
    return sum(scores[word] for scores, word in zip(row, words, strict=True)) - (penalty * repeats if repeats else 0)


def by_enumeration(row: list[list[float]], penalty: float) -> tuple[float, list[list[int]]]:
    """The greatest value of all sequences, and those that have it."""
    every = itertools.product(range(len(row[0])), repeat=len(row))
    values = {words: value(row, words, penalty) for words in every}
    best = max(values.values())
    return best, [list(words) for words, found in values.items() if found == best]


def chosen(log_probs: Tensor, lengths: list[int], penalty: float, choices: int = 3) -> tuple[Tensor, Tensor]:
    """By the recursion: (R, T, V) to words and their log-probabilities."""
    scores, words = prediction.greatest_few(log_probs.clone(), choices)
    is_token = torch.arange(log_probs.size(1)) < torch.tensor(lengths)[:, None]
    return deduplication.together(words, scores, is_token, penalty, END)


def drawn(seed: int, rows: int, width: int, size: int, grid: float = 0.0) -> tuple[Tensor, list[int]]:
    """Log-probabilities and lengths; on a ``grid`` sums are exact and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = -2 * torch.rand(rows, width, size, generator=generator)
    # neighbours that would say the same, as the positions of a decoder do
    log_probs -= 5 * torch.rand(rows, 1, size, generator=generator)
    if grid:
        log_probs = (log_probs / grid).round() * grid
    lengths = torch.randint(1, width + 1, (rows,), generator=generator).tolist()
    return log_probs.double() if grid else log_probs, lengths


def is_best_everywhere(penalty: float, grid: float, choices: int = 3) -> bool:
    """Whether the recursion finds the best of all sequences, in batches of sentences of several lengths."""
    repeated = 0
    for seed, (width, size) in enumerate(itertools.product((1, 2, 3, 4, 5), (3, 4, 5))):
        log_probs, lengths = drawn(seed, 24, width, size, grid)
        words, scores = chosen(log_probs, lengths, penalty, choices)
        for row, found, own, length in zip(log_probs.tolist(), words.tolist(), scores.tolist(), lengths, strict=True):
            best, all_best = by_enumeration(row[:length], penalty)
            said = tuple(found[:length])
            assert [row[i][word] for i, word in enumerate(said)] == pytest.approx(own[:length], abs=1e-6)
            if value(row[:length], said, penalty) < best - 1e-6 or not grid and list(said) not in all_best:
                return False
            greedy = [max(range(size), key=scores_of.__getitem__) for scores_of in row[:length]]
            repeated += any(a == b != END for a, b in zip(greedy, greedy[1:]))
    assert repeated > 60, "hardly a sentence has equal neighbours, so this tests nothing"
    return True


@PENALTIES
def test_the_words_are_the_best_of_all_sequences(penalty: float) -> None:
    """ODD-1: of up to five positions and five words."""
    assert is_best_everywhere(penalty, 0.0)


@PENALTIES
def test_of_many_equally_good_sequences_one_is_found(penalty: float) -> None:
    """ODD-1: with log-probabilities of which most are equal to others."""
    assert is_best_everywhere(penalty, 0.5)


def test_two_words_a_position_are_not_enough() -> None:
    """ODD-1: which is why there are three."""
    assert deduplication.CHOICES == 3
    assert not is_best_everywhere(math.inf, 0.0, choices=2)


def through_all_words(row: Tensor, penalty: float) -> float:
    """The greatest value by a recursion over the whole vocabulary."""
    total = row[0].double()
    fee = torch.zeros(row.size(1), row.size(1), dtype=torch.float64)
    fee.diagonal().masked_fill_(torch.arange(row.size(1)) != END, penalty)
    for scores in row[1:]:
        total = (total[:, None] - fee).amax(0) + scores
    return float(total.max())


@PENALTIES
def test_long_sentences_of_many_words_are_as_good_as_a_search_among_all_words(penalty: float) -> None:
    """ODD-1: where most words are improbable, also in sums of hundreds of nats."""
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(6, 80, 200, generator=generator) + 6 * torch.randn(6, 1, 200, generator=generator)
    log_probs = logits.log_softmax(-1)
    words, scores = chosen(log_probs, [80] * 6, penalty)
    for row, said, own in zip(log_probs, words.tolist(), scores, strict=True):
        repeats = sum(a == b != END for a, b in zip(said, said[1:]))
        found = float(own.double().sum()) - (penalty * repeats if repeats else 0)
        assert found == pytest.approx(through_all_words(row, penalty), abs=1e-4)


@pytest.mark.parametrize("grid", [0.0, 0.5])
@PENALTIES
def test_where_no_word_is_repeated_nothing_changes(penalty: float, grid: float) -> None:
    """ODD-2: the most probable word of each position, of equals the first, as without the option."""
    unchanged = 0
    for seed in range(20):
        log_probs, lengths = drawn(seed, 24, 6, 24, grid)
        words, _ = chosen(log_probs, lengths, penalty)
        _, greedy = prediction.greatest(log_probs)
        for found, plain, length in zip(words.tolist(), greedy.tolist(), lengths, strict=True):
            if all(a != b or a == END for a, b in zip(plain[:length], plain[1:length])):
                assert found[:length] == plain[:length]
                unchanged += 1
    assert unchanged > 50


def test_a_penalty_goes_from_nothing_to_no_repeats_at_all() -> None:
    """ODD-3: 0 is the argmax; the more it costs, the fewer words are repeated and the less probable they are; what
    costs more than any word is as good as infinite."""
    log_probs, lengths = drawn(1, 200, 8, 12)
    counts, sums = [], []
    for penalty in (0.0, 0.1, 0.3, 1.0, 3.0, 100.0, math.inf):
        words, scores = chosen(log_probs, lengths, penalty)
        is_token = torch.arange(8) < torch.tensor(lengths)[:, None]
        is_pair = is_token[:, 1:] & (words[:, 1:] == words[:, :-1]) & (words[:, 1:] != END)
        counts.append(int(is_pair.sum()))
        sums.append(float(scores.masked_fill(~is_token, 0.0).double().sum()))
    assert words.equal(chosen(log_probs, lengths, 100.0)[0])
    assert chosen(log_probs, lengths, 0.0)[0].equal(prediction.greatest(log_probs)[1])
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] > counts[-1] == counts[-2] == 0
    assert sums == sorted(sums, reverse=True)


def test_the_end_may_be_said_at_several_places() -> None:
    """ODD-4: `</s>` is no word, and what stands beyond a sentence has no say."""
    row = torch.full((1, 5, 4), -9.0)
    for place, word in enumerate([2, END, END, END, END]):
        row[0, place, word] = -0.1
    assert chosen(row, [5], math.inf)[0].tolist() == [[2, END, END, END, END]]
    row[0, 1:, END], row[0, 1:, 2] = -9.0, -0.1
    row[0, 1:, 3] = -0.5
    assert chosen(row, [5], math.inf)[0].tolist() == [[2, 3, 2, 3, 2]]
    assert chosen(row, [1], math.inf)[0].tolist()[0][:1] == [2]


@PENALTIES
def test_sentences_are_chosen_as_if_they_were_alone(penalty: float) -> None:
    """ODD-4: whatever stands beside them, and behind their ends."""
    for grid in (0.0, 0.5):
        log_probs, lengths = drawn(2, 32, 7, 6, grid)
        words, scores = chosen(log_probs, lengths, penalty)
        for i, length in enumerate(lengths):
            alone, own = chosen(log_probs[i : i + 1, :length], [length], penalty)
            assert alone[0].equal(words[i, :length]) and own[0].equal(scores[i, :length])


def test_a_word_that_cannot_be_is_not_chosen_to_be_unlike_its_neighbour() -> None:
    """ODD-4: as where but two words may be given (`--shortlist`)."""
    row = torch.tensor([[[-0.1, -5.0, -math.inf, -math.inf]]]).expand(1, 3, 4)
    words, scores = chosen(row, [3], math.inf)
    assert words.tolist() == [[0, END, 0]] and scores.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (7, 40), (2, 5, 300)])
def test_the_few_greatest_are_those_of_a_sort(shape: tuple[int, ...]) -> None:
    x = torch.randint(-4, 4, shape, generator=torch.Generator().manual_seed(1)).float()
    values, places = prediction.greatest_few(x.clone(), 3)
    wanted: Any = torch.sort(x, dim=-1, descending=True, stable=True)
    assert values.equal(wanted.values[..., :3]) and places.equal(wanted.indices[..., :3])
