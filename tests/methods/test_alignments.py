"""Sums, maxima and words of alignments against an enumeration of everything that a small canvas can say."""

import math
from functools import cache
from itertools import groupby, product
from typing import Iterator

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import alignments
from tests.tiny import EOS, PAD, SYMBOLS

V, C, BLANK = 4, 5, 3
Said = tuple[int, ...]
BATCH = [
    ((), 1),
    ((0,), 3),
    ((1, 1), 3),
    ((2, 0, 2), 5),
    ((0, 0, 1), 4),
    ((1, 2), 2),
    ((1, 1, 2), 3),
    ((0, 1, 0, 1), 3),
]
"""Words, and positions of their canvas; the last two do not fit."""


def read(path: Said, blank: int = BLANK) -> Said:
    """The definition: repeats merged, then blanks dropped."""
    return tuple(symbol for symbol, _ in groupby(path) if symbol != blank)


@cache
def everything(width: int) -> dict[Said, list[Said]]:
    """By what is read, all alignments with a canvas."""
    found: dict[Said, list[Said]] = {}
    for path in product(range(V), repeat=width):
        found.setdefault(read(path), []).append(path)
    return found


def paths(words: Said, width: int) -> list[Said]:
    return everything(width).get(words, [])


def log_probs_of(rows: int, width: int = C, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    logits = 2 * torch.randn(rows, width, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.to(dtype).log_softmax(-1)


def brute_force(log_probs: Tensor, words: Said, width: int) -> Tensor:
    """(C, V): the log of the sum over all alignments of the first ``width`` positions."""
    return log_probs[torch.arange(width), torch.tensor(paths(words, width))].sum(1).logsumexp(0)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, words, how many, and positions of every canvas."""
    words = [list(one) + [BLANK - 1] * (C - len(one)) for one, _ in BATCH]
    sizes, widths = zip(*((len(one), width) for one, width in BATCH), strict=True)
    return log_probs_of(len(BATCH), dtype=dtype), torch.tensor(words), torch.tensor(sizes), torch.tensor(widths)


def on_canvas(widths: Tensor, width: int = C) -> Tensor:
    return torch.arange(width) < widths[:, None]


def likelihoods(log_probs: Tensor, words: Tensor, sizes: Tensor, widths: Tensor) -> Tensor:
    said = alignments.states(words, BLANK)
    emitted = alignments.emissions(log_probs, said, on_canvas(widths, log_probs.size(1)), BLANK)
    return alignments.log_likelihoods(emitted, said, sizes, BLANK)


FITTING = [i for i, (words, width) in enumerate(BATCH) if paths(words, width)]


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_the_loss_and_its_gradient_are_those_of_all_alignments(dtype: torch.dtype, close: float) -> None:
    """CTC-1: one by one, enumerated, and in a batch of canvases of other lengths."""
    logits = log_probs_of(len(BATCH), dtype=dtype) + torch.arange(C)[:, None]  # logits need not sum up to one
    logits = logits.requires_grad_()
    _, words, sizes, widths = batch()
    loss = alignments.minus_log_likelihood(logits, words, sizes, widths, BLANK)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    for i, (one, width) in enumerate(BATCH):
        exact = logits[i].detach().double().requires_grad_()
        if i not in FITTING:
            assert loss[i] == 0 and not gradient[i].any()
            continue
        expected = -brute_force(exact.log_softmax(-1), one, width)
        (slope,) = torch.autograd.grad(expected, exact)
        assert abs(loss[i].item() - expected.item()) < close
        torch.testing.assert_close(gradient[i].double(), slope, atol=close, rtol=0)
        assert not gradient[i, width:].any()


def test_the_sum_over_alignments_is_exact_and_nothing_where_there_are_none() -> None:
    """CTC-2: for every row of words that a canvas can say; all of them together are certain."""
    log_probs = log_probs_of(1)
    total = 0.0
    for words in everything(C):
        row = torch.tensor([[*words, 0]])
        found = likelihoods(log_probs, row, torch.tensor([len(words)]), torch.tensor([C])).sum().item()
        assert found == pytest.approx(brute_force(log_probs[0], words, C).item(), abs=1e-4)
        total += math.exp(found)
    assert total == pytest.approx(1, abs=1e-4)
    none = likelihoods(log_probs, torch.tensor([[1, 1, 1, 1]]), torch.tensor([4]), torch.tensor([C]))
    assert none.sum() == -math.inf and not none.isnan().any()


def test_a_word_has_its_probability_given_the_words_before() -> None:
    """CTC-2: and the end its own: p(y_k | y_1 … y_k−1), from the probabilities of everything that can be read."""
    log_probs = log_probs_of(1)
    of_all = {words: math.exp(brute_force(log_probs[0], words, C)) for words in everything(C)}

    def of_beginning(words: Said) -> float:
        return sum(p for said, p in of_all.items() if said[: len(words)] == words)

    for words in of_all:
        found = likelihoods(log_probs, torch.tensor([[*words, 0]]), torch.tensor([len(words)]), torch.tensor([C]))[0]
        beginnings = [of_beginning(words[:k]) for k in range(len(words) + 1)] + [of_all[words]]
        expected = [math.log(b / a) for a, b in zip(beginnings[:-1], beginnings[1:], strict=True)]
        assert found[: len(words) + 1].tolist() == pytest.approx(expected, abs=1e-4)
        assert not found[len(words) + 1 :].any()


def test_sums_do_not_depend_on_the_rows_beside_them_nor_on_padding() -> None:
    log_probs, words, sizes, widths = batch()
    together = likelihoods(log_probs, words, sizes, widths).sum(1)
    for i, (one, width) in enumerate(BATCH):
        alone = likelihoods(
            log_probs[i : i + 1, :width], torch.tensor([[*one, 0]]), sizes[i : i + 1], widths[i : i + 1]
        )
        torch.testing.assert_close(alone.sum(1), together[i : i + 1])
        assert (together[i] == -math.inf) == (i not in FITTING)


@pytest.mark.parametrize("scale", [0.0, 7.0])
def test_the_best_alignment_is_the_most_probable_of_all(scale: float) -> None:
    """CTC-3: against enumeration; logits, which lack the same at each position, choose the same."""
    log_probs, words, sizes, widths = batch()
    said = alignments.states(words, BLANK)
    shifted = log_probs + scale * torch.randn(len(BATCH), C, 1, generator=torch.Generator().manual_seed(2))
    found = alignments.best(alignments.emissions(shifted, said, on_canvas(widths), BLANK), said, sizes, BLANK)
    for i in FITTING:
        one, width = BATCH[i]
        expected = max(
            paths(one, width), key=lambda path, i=i: sum(float(log_probs[i, t, v]) for t, v in enumerate(path))
        )
        assert tuple(found[i, :width].tolist()) == expected
    assert ((found >= 0) & (found < V)).all(), "also where there is none"


def test_the_least_canvas_is_the_shortest_that_has_an_alignment() -> None:
    """CTC-5: a position a word, and a blank between two that are equal."""
    rows: list[Said] = [words for size in range(4) for words in product(range(2), repeat=size)]
    padded = torch.tensor([[*words, *[0] * (4 - len(words))] for words in rows])
    found = alignments.least_canvas(padded, torch.tensor([len(words) for words in rows])).tolist()
    for words, least in zip(rows, found, strict=True):
        assert least == next(width for width in range(7) if paths(words, width))


# --- what is read


def said_rows() -> Iterator[Said]:
    return product((7, 8, SYMBOLS.mask), repeat=4)


def test_what_is_read_is_what_the_definition_reads() -> None:
    """CTC-4: of every canvas of four positions and each of its beginnings, whatever stands in the padding."""
    rows = list(said_rows())
    for width in range(1, 5):
        widths = torch.full((len(rows),), width)
        scores = -torch.arange(4.0).expand(len(rows), -1)
        words, of_words = alignments.read(torch.tensor(rows), scores, on_canvas(widths, 4), SYMBOLS.mask, SYMBOLS)
        for row, found, values in zip(rows, words.tolist(), of_words.tolist(), strict=True):
            expected = read(row[:width], SYMBOLS.mask)
            assert found == [*expected, EOS, *[PAD] * (4 - len(expected))]
            firsts = [i for i in range(width) if row[i] != SYMBOLS.mask and (i == 0 or row[i - 1] != row[i])]
            assert values[: len(firsts)] == [-float(i) for i in firsts] and not any(values[len(firsts) :])


@pytest.mark.parametrize(
    ("said", "width", "words"),
    [
        ([7, SYMBOLS.mask, 7, 7], 4, [7, 7]),
        ([7, 7, 7, 7], 4, [7]),
        ([SYMBOLS.mask] * 4, 4, []),
        ([7, 8, 9, 9], 2, [7, 8]),
        ([SYMBOLS.mask, 7, 7, 8], 3, [7]),
    ],
)
def test_repeats_apart_survive_and_padding_says_nothing(said: list[int], width: int, words: list[int]) -> None:
    """CTC-4: a blank between two equal words keeps both; the last position is no word by itself."""
    scores = torch.zeros(1, 4)
    found, _ = alignments.read(torch.tensor([said]), scores, on_canvas(torch.tensor([width]), 4), SYMBOLS.mask, SYMBOLS)
    assert [token for token in found[0].tolist() if token != PAD] == [*words, EOS]
