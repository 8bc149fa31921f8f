"""The key-value cache, against reading each row's own words anew, one row at a time, without a cache."""

from dataclasses import FrozenInstanceError, replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from nar_plugin.methods.cache import KVCache
from nar_plugin.methods.transformer import Memory, Stack

DIM, WORDS, LONGEST = 16, 12, 32
SIZES = (5, 3, 4, 1)
"""Source lengths, one a row."""
ROWS = len(SIZES)
BEGIN, END = 0, 1

Words = list[int]

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
NORMS = pytest.mark.parametrize("is_prenorm", [False, True])
SOURCES = pytest.mark.parametrize("has_source", [False, True])


class Verifier:
    """A small decoder of random weights, and a batch of sources that it may read."""

    def __init__(
        self,
        dtype: torch.dtype,
        *,
        is_prenorm: bool = False,
        has_source: bool = True,
        seed: int = 5,
        spread: float = 1.5,
    ) -> None:
        """``spread``: of the weights; large, so that attention is anything but a mean."""
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        options: dict[str, Any] = {"activation": "gelu", "has_source": has_source, "is_prenorm": is_prenorm}
        drops = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
        torch.manual_seed(seed)
        self.stack = Stack(3, DIM, 24, 4, **options, **drops).eval()
        self.stack = self.stack.double() if dtype == torch.float64 else self.stack
        with torch.no_grad():
            for weight in self.stack.parameters():
                if weight.dim() == 2:
                    weight.copy_(drawn(*weight.shape) * spread / weight.size(1) ** 0.5)
        self.words, self.places, self.output = drawn(WORDS, DIM), drawn(LONGEST, DIM), drawn(WORDS, DIM)
        self.sources = drawn(ROWS, max(SIZES), DIM)
        self.is_source = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
        self.has_source = has_source

    @torch.no_grad()
    def states(self, row: int, words: Words) -> Tensor:
        """The oracle: (n, D) states of all words of one row, which has read nothing before and has no padding."""
        x = self.words[torch.tensor(words)] + self.places[: len(words)]
        is_causal = torch.ones(1, len(words), len(words), dtype=torch.bool).tril()
        memory = self.stack.memory(self.sources[row : row + 1, : SIZES[row]]) if self.has_source else None
        return self.stack(x[None], is_causal, memory)[0]

    def next_word(self, row: int, words: Words) -> int:
        """What the oracle says after these words."""
        return int((self.states(row, words)[-1] @ self.output.T).argmax())

    def source(self, rows: list[int]) -> tuple[tuple[Memory, ...] | None, Tensor | None]:
        return (self.stack.memory(self.sources[rows]), self.is_source[rows]) if self.has_source else (None, None)

    @torch.no_grad()
    def read(
        self, cache: KVCache, before: list[Words], new: list[Words], rows: list[int] | None = None
    ) -> tuple[Tensor, KVCache]:
        """(R, K, D) states of new words of each row, after as many as were read before; K is that of the longest."""
        width = max(map(len, new))
        is_token = torch.arange(width) < torch.tensor([len(words) for words in new])[:, None]
        padded = torch.tensor([words + [BEGIN] * (width - len(words)) for words in new])
        place = torch.tensor([len(words) for words in before])[:, None] + torch.arange(width)
        x = self.words[padded] + self.places[place.clamp(max=LONGEST - 1)]
        memory, is_source = self.source(list(range(ROWS)) if rows is None else rows)
        return cache.read(self.stack, x, is_token, memory, is_source)


class Reading(NamedTuple):
    """A cache with dead columns, and the words of each row that live in it."""

    verifier: Verifier
    cache: KVCache
    said: list[Words]


BLOCKS: list[list[Words]] = [
    [[2, 7, 4, 5], [3, 3, 8, 2], [9, 4, 6, 6], [5, 10, 2, 11]],
    [[6, 9, 3], [4, 11], [2], [7, 8, 5]],
    [[11, 2, 10, 8], [6, 7, 9, 3], [8, 5, 4], [4]],
    [[3, 5], [10, 2], [7, 11], [6, 9]],
]
"""New words of every row, block by block; some rows have fewer than others."""
KEPT = [[4, 0, 2, 1], [1, 2, 0, 3], [0, 3, 3, 1], [2, 1, 0, 0]]
"""How many of them each row keeps."""
AFTER: list[Words] = [[4, 6, 2], [8, 9], [5, 5, 7], [10]]
"""What is read next."""


def is_first(counts: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(counts)[:, None]


def reading(verifier: Verifier) -> Reading:
    """All blocks read, and all but the kept words rejected."""
    cache, said = KVCache.empty(verifier.stack, ROWS), [[] for _ in range(ROWS)]
    for block, kept in zip(BLOCKS, KEPT, strict=True):
        states, cache = verifier.read(cache, said, block)
        cache = cache.kept(is_first(kept, states.size(1)))
        said = [old + new[:n] for old, new, n in zip(said, block, kept, strict=True)]
    return Reading(verifier, cache, said)


def assert_as_recomputed(
    verifier: Verifier, states: Tensor, said: list[Words], new: list[Words], rows: list[int] | None = None
) -> None:
    """Every new word's state is that of the row's own words, read anew."""
    for i, row in enumerate(range(ROWS) if rows is None else rows):
        if not new[i]:
            continue
        expected = verifier.states(row, said[i] + new[i])[len(said[i]) :]
        torch.testing.assert_close(states[i, : len(new[i])], expected)


def real(states: Tensor, new: list[Words]) -> Tensor:
    """(N, D) states of the words, without padding."""
    return torch.cat([of_row[: len(words)] for of_row, words in zip(states, new, strict=True)])


def with_dead(cache: KVCache, value: float | Tensor) -> KVCache:
    """The same cache with other numbers in its dead columns."""
    is_dead = ~cache.is_live[:, None, :, None]
    return replace(cache, layers=tuple(tuple(torch.where(is_dead, value, x) for x in pair) for pair in cache.layers))


# --- what is appended


@TYPES
@NORMS
@SOURCES
@pytest.mark.parametrize("sizes", [[1] * 9, [3, 1, 4, 1], [9], [2, 7]])
def test_words_read_a_few_at_a_time_have_the_states_of_one_causal_pass(
    dtype: torch.dtype, is_prenorm: bool, has_source: bool, sizes: list[int]
) -> None:
    verifier = Verifier(dtype, is_prenorm=is_prenorm, has_source=has_source)
    ids = torch.randint(2, WORDS, (ROWS, 9), generator=torch.Generator().manual_seed(1))
    x, is_causal = verifier.words[ids] + verifier.places[:9], torch.ones(9, 9, dtype=torch.bool).tril()
    memory, is_source = verifier.source(list(range(ROWS)))
    with torch.no_grad():
        whole = verifier.stack(x, is_causal.expand(ROWS, 9, 9), memory, is_source)
        cache, parts = KVCache.empty(verifier.stack, ROWS), []
        for part in x.split(sizes, 1):
            is_token = torch.ones(part.shape[:2], dtype=torch.bool)
            states, cache = cache.read(verifier.stack, part, is_token, memory, is_source)
            parts.append(states)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert cache.is_live.shape == (ROWS, 9) and bool(cache.is_live.all())
    acausal = verifier.stack(x, None, memory, is_source)
    assert not torch.allclose(acausal, whole, atol=0.1), "what comes later matters to this stack"


@TYPES
def test_an_empty_cache_has_the_layers_heads_and_type_of_its_stack(dtype: torch.dtype) -> None:
    cache = KVCache.empty(Verifier(dtype).stack, 2)
    assert cache.is_live.shape == (2, 0) and cache.is_live.dtype == torch.bool
    shapes = [(x.shape, x.dtype) for pair in cache.layers for x in pair]
    assert shapes == [((2, 4, 0, 4), dtype)] * 6


def test_a_new_word_sees_what_is_live_and_the_new_ones_up_to_itself() -> None:
    is_live = torch.tensor([[True, False], [False, False]])
    is_token = torch.tensor([[True, True, False], [False, False, False]])
    seen = KVCache(layers=(), is_live=is_live).seen(is_token)
    assert seen.int().tolist() == [
        [[1, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 1, 1, 1]],
        [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]],
    ]


def test_reading_leaves_the_cache_before_as_it_was() -> None:
    verifier, cache, said = reading(Verifier(torch.float32))
    copies = [x.clone() for pair in cache.layers for x in pair]
    live = cache.is_live.clone()
    _, grown = verifier.read(cache, said, AFTER)
    grown.kept(torch.zeros(ROWS, 3, dtype=torch.bool))
    assert torch.equal(cache.is_live, live) and not torch.equal(grown.is_live[:, -3:], torch.zeros(ROWS, 3).bool())
    assert all(map(torch.equal, copies, (x for pair in cache.layers for x in pair)))
    with pytest.raises(FrozenInstanceError):
        cache.is_live = live  # type: ignore[misc]


# --- what is rejected


@TYPES
@NORMS
@SOURCES
def test_rows_that_keep_different_numbers_of_words_go_on_as_their_own_words_alone(
    dtype: torch.dtype, is_prenorm: bool, has_source: bool
) -> None:
    verifier = Verifier(dtype, is_prenorm=is_prenorm, has_source=has_source)
    cache, said = KVCache.empty(verifier.stack, ROWS), [[] for _ in range(ROWS)]
    for block, kept in zip(BLOCKS, KEPT, strict=True):
        states, cache = verifier.read(cache, said, block)
        assert_as_recomputed(verifier, states, said, block)
        cache = cache.kept(is_first(kept, states.size(1)))
        said = [old + new[:n] for old, new, n in zip(said, block, kept, strict=True)]
        assert cache.is_live.sum(1).tolist() == [len(words) for words in said]
    states, _ = verifier.read(cache, said, AFTER)
    assert_as_recomputed(verifier, states, said, AFTER)
    assert len({len(words) for words in said}) == ROWS - 1, "rows of many lengths"


def test_a_rejected_word_would_have_made_a_difference() -> None:
    verifier, cache, said = reading(Verifier(torch.float64))
    honest, _ = verifier.read(cache, said, AFTER)
    believed, _ = verifier.read(replace(cache, is_live=torch.ones_like(cache.is_live)), said, AFTER)
    assert float((real(honest, AFTER) - real(believed, AFTER)).abs().amax(1).min()) > 0.01


def test_padding_cannot_be_kept() -> None:
    verifier = Verifier(torch.float32)
    _, cache = verifier.read(KVCache.empty(verifier.stack, ROWS), [[]] * ROWS, AFTER)
    cache = cache.kept(torch.ones(ROWS, 3, dtype=torch.bool))
    assert cache.is_live.sum(1).tolist() == [3, 2, 3, 1]


def test_only_the_last_columns_are_judged() -> None:
    is_live = torch.tensor([[True, False, True, True], [True, True, True, False]])
    kept = KVCache(layers=(), is_live=is_live).kept(torch.tensor([[False, True], [False, True]]))
    assert kept.is_live.tolist() == [[True, False, False, True], [True, True, False, False]]
    nothing = KVCache(layers=(), is_live=is_live).kept(torch.empty(2, 0, dtype=torch.bool))
    assert torch.equal(nothing.is_live, is_live)


# --- compaction


@TYPES
@NORMS
@SOURCES
def test_compaction_changes_no_later_state(dtype: torch.dtype, is_prenorm: bool, has_source: bool) -> None:
    verifier, cache, said = reading(Verifier(dtype, is_prenorm=is_prenorm, has_source=has_source))
    compact = cache.compacted()
    counts = [len(words) for words in said]
    assert cache.is_live.size(1) == 13 and compact.is_live.size(1) == max(counts) == 7
    assert compact.is_live.sum(1).tolist() == counts
    assert {x.size(2) for pair in compact.layers for x in pair} == {7}
    for new in (AFTER, [words[::-1] + [3] for words in AFTER]):
        states, cache = verifier.read(cache, said, new)
        of_compact, compact = verifier.read(compact, said, new)
        torch.testing.assert_close(real(of_compact, new), real(states, new))
        assert_as_recomputed(verifier, of_compact, said, new)
        said = [old + words for old, words in zip(said, new, strict=True)]


def test_compaction_keeps_a_rows_live_columns_in_their_order() -> None:
    _, cache, _ = reading(Verifier(torch.float32))
    compact = cache.compacted()
    for pair, compact_pair in zip(cache.layers, compact.layers, strict=True):
        for x, y in zip(pair, compact_pair, strict=True):
            for row in range(ROWS):
                assert torch.equal(y[row][:, compact.is_live[row]], x[row][:, cache.is_live[row]])
    assert bool((compact.is_live.int().diff(dim=1) <= 0).all()), "live columns first"


def test_what_is_compact_is_compacted_to_itself() -> None:
    _, cache, _ = reading(Verifier(torch.float32))
    once = cache.compacted()
    twice = once.compacted()
    assert torch.equal(once.is_live, twice.is_live)
    for pair, other in zip(once.layers, twice.layers, strict=True):
        assert all(map(torch.equal, pair, other))


def test_a_cache_of_no_row_or_of_no_live_column_is_compacted_to_no_column() -> None:
    verifier, cache, _ = reading(Verifier(torch.float32))
    assert cache.select(torch.tensor([], dtype=torch.int64)).compacted().is_live.shape == (0, 0)
    bare = replace(cache, is_live=torch.zeros_like(cache.is_live)).compacted()
    assert bare.is_live.shape == (ROWS, 0) and bare.layers[0][0].shape == (ROWS, 4, 0, 4)
    states, _ = verifier.read(bare, [[]] * ROWS, AFTER)
    assert_as_recomputed(verifier, states, [[]] * ROWS, AFTER)


# --- rows


@TYPES
@pytest.mark.parametrize("rows", [[2], [0, 3], [3, 1, 0, 2], [1, 1, 2, 1, 0]])
@pytest.mark.parametrize("is_compact", [False, True])
def test_rows_may_be_dropped_repeated_and_put_in_another_order(
    dtype: torch.dtype, rows: list[int], is_compact: bool
) -> None:
    verifier, cache, said = reading(Verifier(dtype))
    new = [[2 + i, 9 - i, 4 + i] for i in range(len(rows))]  # copies of a row go different ways
    chosen = (cache.compacted() if is_compact else cache).select(torch.tensor(rows))
    chosen_said = [said[row] for row in rows]
    states, chosen = verifier.read(chosen, chosen_said, new, rows)
    assert_as_recomputed(verifier, states, chosen_said, new, rows)
    kept = [i % 4 for i in range(len(rows))]
    chosen = chosen.kept(is_first(kept, 3))
    chosen_said = [old + words[:n] for old, words, n in zip(chosen_said, new, kept, strict=True)]
    states, _ = verifier.read(chosen, chosen_said, new[::-1], rows)
    assert_as_recomputed(verifier, states, chosen_said, new[::-1], rows)


def test_a_selected_row_has_the_states_that_it_had_among_all() -> None:
    verifier, cache, said = reading(Verifier(torch.float64))
    states, _ = verifier.read(cache, said, AFTER)
    rows = [3, 0, 0, 2]
    again, _ = verifier.read(
        cache.select(torch.tensor(rows)), [said[row] for row in rows], [AFTER[row] for row in rows], rows
    )
    for i, row in enumerate(rows):
        torch.testing.assert_close(again[i, : len(AFTER[row])], states[row, : len(AFTER[row])])


# --- dead columns


@TYPES
@NORMS
def test_what_stands_in_a_dead_column_has_no_effect_at_all(dtype: torch.dtype, is_prenorm: bool) -> None:
    verifier, cache, said = reading(Verifier(dtype, is_prenorm=is_prenorm))
    states, _ = verifier.read(cache, said, AFTER)
    large = torch.randn(cache.layers[0][0].shape, generator=torch.Generator().manual_seed(2)).to(dtype) * 1e4
    for value in (large, 0.0, -1e6):
        overwritten = with_dead(cache, value)
        assert not torch.equal(overwritten.layers[0][0], cache.layers[0][0])
        others, _ = verifier.read(overwritten, said, AFTER)
        assert torch.equal(others, states)


@TYPES
def test_a_column_of_zeros_is_not_a_dead_one(dtype: torch.dtype) -> None:
    """A key of zeros has the weight exp(0) in the softmax: so a rejected word must be hidden, not blanked."""
    verifier, cache, said = reading(Verifier(dtype))
    states, _ = verifier.read(cache, said, AFTER)
    blanked = replace(with_dead(cache, 0.0), is_live=torch.ones_like(cache.is_live))
    others, _ = verifier.read(blanked, said, AFTER)
    assert float((real(others, AFTER) - real(states, AFTER)).abs().amax(1).min()) > 0.01


@TYPES
@NORMS
def test_a_row_with_nothing_to_see_has_finite_states_and_disturbs_no_other(
    dtype: torch.dtype, is_prenorm: bool
) -> None:
    verifier, cache, said = reading(Verifier(dtype, is_prenorm=is_prenorm))
    is_live = cache.is_live.clone()
    is_live[1] = False
    dead, new = replace(cache, is_live=is_live), [[4, 6], [], [5], [10, 2]]
    for start, before in ((dead, [said[0], [], *said[2:]]), (KVCache.empty(verifier.stack, ROWS), [[]] * ROWS)):
        states, grown = verifier.read(start, before, new)
        assert bool(states.isfinite().all())
        assert all(bool(x.isfinite().all()) for pair in grown.layers for x in pair)
        assert not grown.is_live[1].any()
        assert_as_recomputed(verifier, states, before, new)
        later = [old + words for old, words in zip(before, new, strict=True)]
        states, _ = verifier.read(grown, later, AFTER)
        assert_as_recomputed(verifier, states, later, AFTER)


# --- a decode


TEXT = 24
"""Words of the longest text, its begin symbol among them."""


@cache
def speaker(dtype: torch.dtype, is_prenorm: bool) -> Verifier:
    """A verifier whose texts have many words and end: small weights and a lucky seed."""
    return Verifier(dtype, is_prenorm=is_prenorm, seed=8 if is_prenorm else 15, spread=0.5)


@cache
def greedy(verifier: Verifier, row: int) -> Words:
    """One word at a time, everything read anew for each."""
    words = [BEGIN]
    while len(words) < TEXT and words[-1] != END:
        words.append(verifier.next_word(row, words))
    return words


class Drafted(NamedTuple):
    said: list[Words]
    accepted: list[list[int]]
    """How many drafts each row accepted, round by round."""
    widths: list[tuple[int, int]]
    """Columns before and after each compaction."""


def draft_and_verify(verifier: Verifier, drafts: list[Words], size: int, compact_every: int) -> Drafted:
    """``drafts[row][i]``: the word that is guessed at place i. Rows that have ended leave the batch."""
    said, accepted = [[BEGIN] for _ in drafts], [[] for _ in drafts]
    widths: list[tuple[int, int]] = []
    live, cache, rounds = list(range(len(drafts))), KVCache.empty(verifier.stack, len(drafts)), 0
    while live:
        # a cache holds all words of a row but the last, which is read with the guesses behind it
        guesses = {row: drafts[row][len(said[row]) : min(len(said[row]) + size, TEXT - 1)] for row in live}
        before, new = [said[row][:-1] for row in live], [said[row][-1:] + guesses[row] for row in live]
        states, cache = verifier.read(cache, before, new, live)
        says = (states @ verifier.output.T).argmax(-1).tolist()
        kept = []
        for i, row in enumerate(live):
            n = 0
            while n < len(guesses[row]) and guesses[row][n] == says[i][n] != END:
                n += 1
            said[row] += says[i][: n + 1]
            accepted[row].append(n)
            kept.append(1 + n)
        cache, rounds = cache.kept(is_first(kept, states.size(1))), rounds + 1
        going = [i for i, row in enumerate(live) if said[row][-1] != END and len(said[row]) < TEXT]
        if len(going) < len(live):
            live, cache = [live[i] for i in going], cache.select(torch.tensor(going, dtype=torch.int64))
        if rounds % compact_every == 0:
            width, cache = cache.is_live.size(1), cache.compacted()
            widths.append((width, cache.is_live.size(1)))
    return Drafted(said, accepted, widths)


@TYPES
@NORMS
@pytest.mark.parametrize("size", [0, 2, 5])
@pytest.mark.parametrize("compact_every", [1, 3])
def test_drafts_that_are_verified_give_word_by_word_what_greedy_decoding_gives(
    dtype: torch.dtype, is_prenorm: bool, size: int, compact_every: int
) -> None:
    verifier = speaker(dtype, is_prenorm)
    expected = [greedy(verifier, row) for row in range(ROWS)]
    assert len(set(map(len, expected))) > 2 and all(len(set(words)) > 3 for words in expected), "texts of many kinds"
    draws, shares = torch.rand(ROWS, TEXT, generator=torch.Generator().manual_seed(3)), [0.2, 0.5, 0.1, 0.8]
    is_wrong = draws < torch.tensor(shares)[:, None]
    drafts = [
        [2 + (word + 1) % (WORDS - 2) if wrong else word for word, wrong in zip(words + [2] * TEXT, row, strict=False)]
        for words, row in zip(expected, is_wrong.tolist(), strict=True)
    ]
    decoded = draft_and_verify(verifier, drafts, size, compact_every)
    assert decoded.said == expected
    rounds = [len(counts) for counts in decoded.accepted]
    assert all(sum(counts) + n == len(row) - 1 for counts, n, row in zip(decoded.accepted, rounds, expected))
    if size:
        together = list(zip(*decoded.accepted, strict=False))
        assert sum(len(set(counts)) > 1 for counts in together) > 1, "rows accept different numbers in a round"
        assert {0, size} <= {n for counts in decoded.accepted for n in counts}, "nothing, or every draft"
        assert any(after < width for width, after in decoded.widths), "compaction has something to do"
