"""The search for codes, against enumeration."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import autoregressive

CODES = 4


class Chain:
    """A row's logits depend on the row and on all that it has read: a table drawn from a hash of both."""

    def __init__(self, codes: int = CODES) -> None:
        self.codes = codes

    def logits(self, row: int, read: tuple[int, ...]) -> Tensor:
        seed = hash((row, read)) % (2**31)
        return 2 * torch.randn(self.codes, generator=torch.Generator().manual_seed(seed))

    def read(self, state: list[tuple[int, tuple[int, ...]]], codes: Tensor | None, step: int) -> tuple[Tensor, Any]:
        if codes is not None:
            state = [(row, (*seen, int(code))) for (row, seen), code in zip(state, codes, strict=True)]
        assert all(len(seen) == step for _, seen in state)
        return torch.stack([self.logits(row, seen) for row, seen in state]), state

    @staticmethod
    def select(state: list[Any], rows: Tensor) -> list[Any]:
        return [state[i] for i in rows.tolist()]

    def log_prob(self, row: int, codes: tuple[int, ...]) -> float:
        return sum(float(self.logits(row, codes[:i]).log_softmax(0)[code]) for i, code in enumerate(codes))


LENGTHS = torch.tensor([3, 1, 4, 2])
START = [(row, ()) for row in range(4)]


def of_row(found: autoregressive.Sequences, row: int, length: int) -> tuple[int, ...]:
    assert found.codes[row, length:].eq(0).all()
    return tuple(found.codes[row, :length].tolist())


def test_the_most_probable_code_at_each_step() -> None:
    """LT-15: a chain of argmaxes, each given those before; a row's own number of codes, whatever its mates'."""
    chain = Chain()
    found = autoregressive.drawn(chain.read, START, LENGTHS, None, 1.0)
    for row, length in enumerate(LENGTHS.tolist()):
        codes = of_row(found, row, length)
        for i, code in enumerate(codes):
            assert code == int(chain.logits(row, codes[:i]).argmax())
        assert float(found.scores[row]) == pytest.approx(chain.log_prob(row, codes), abs=1e-5)


def test_a_wide_beam_is_exhaustive() -> None:
    """LT-15: in the order of all sequences; one as narrow as 1 is a chain of argmaxes."""
    chain, n = Chain(), CODES**4
    found = autoregressive.beam(chain.read, chain.select, START, LENGTHS, n)
    for row, length in enumerate(LENGTHS.tolist()):
        ways = sorted(itertools.product(range(CODES), repeat=length), key=lambda codes: -chain.log_prob(row, codes))
        for i in range(n):
            codes = of_row(found, row * n + i, length)
            assert codes == (ways[i] if i < len(ways) else ways[0])
            assert float(found.scores[row * n + i]) == pytest.approx(chain.log_prob(row, codes), abs=1e-4)
    narrow = autoregressive.beam(chain.read, chain.select, START, LENGTHS, 1)
    greedy = autoregressive.drawn(chain.read, START, LENGTHS, None, 1.0)
    assert torch.equal(narrow.codes, greedy.codes) and torch.allclose(narrow.scores, greedy.scores)


def test_a_beam_keeps_the_best_beginnings() -> None:
    """LT-15: by a plain beam, sentence by sentence."""
    chain, n = Chain(), 3
    found = autoregressive.beam(chain.read, chain.select, START, LENGTHS, n)
    for row, length in enumerate(LENGTHS.tolist()):
        kept: list[tuple[int, ...]] = [()]
        for _ in range(length):
            longer = [(*codes, code) for codes in kept for code in range(CODES)]
            kept = sorted(longer, key=lambda codes: -chain.log_prob(row, codes))[:n]
        assert [of_row(found, row * n + i, length) for i in range(n)] == kept


def test_draws_follow_the_probabilities() -> None:
    """LT-15: at the temperature that is asked for; key 0 takes the most probable; scores are the model's own."""
    chain, count = Chain(), 4000
    state, lengths = [(0, ())] * count, torch.ones(count, dtype=torch.int64)
    keys = torch.arange(count)
    logits = chain.logits(0, ())
    for temperature in (1.0, 0.5):
        found = autoregressive.drawn(chain.read, state, lengths, keys, temperature)
        assert int(found.codes[0, 0]) == int(logits.argmax())
        shares = torch.bincount(found.codes[1:, 0], minlength=CODES) / (count - 1)
        assert torch.allclose(shares, (logits / temperature).softmax(0), atol=0.03)
        assert torch.allclose(found.scores, logits.log_softmax(0)[found.codes[:, 0]], atol=1e-5)


def test_no_code_of_an_empty_batch() -> None:
    chain = Chain()
    found = autoregressive.drawn(chain.read, [], LENGTHS[:0], None, 1.0)
    assert found.codes.shape == (0, 0) and found.scores.shape == (0,)
