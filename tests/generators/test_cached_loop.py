"""The refinement loop over states that hold a key–value cache: each row accepts its own number of drafts."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nar_plugin.methods.cache import KVCache
from nar_plugin.methods.contract import Finished, Proposals, Request, State
from nar_plugin.methods.transformer import Sinusoids, Stack
from tests.generators.stubs import Stub, StubEncoded
from tests.tiny import EOS, PAD, SYMBOLS, Row, decode, random_rows, sample_of, texts

DIM, LONGEST, DRAFTS = 16, 20, 3


@dataclass(frozen=True, kw_only=True)
class CachedState(State):
    """``tokens``: (R, LONGEST + DRAFTS + 1) accepted text, padded; ``lengths``: (R,) of it; ``last``: (R,) the word
    that is accepted and not read yet."""

    tokens: Tensor
    lengths: Tensor
    last: Tensor
    cache: KVCache


class CachedStub(Stub):
    """An autoregressive network whose first input is the source's first word; drafts are what follows a word alone."""

    def __init__(self, compact_every: int = 2) -> None:
        super().__init__()
        torch.manual_seed(11)
        options: dict[str, Any] = {"has_source": False, "activation": "relu", "is_prenorm": True}
        drops = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
        self.stack = Stack(2, DIM, 32, 2, **options, **drops).eval()
        self.table, self.places = nn.Embedding(SYMBOLS.size, DIM), Sinusoids(2 * LONGEST, DIM)
        self.output = nn.Linear(DIM, SYMBOLS.size)
        self.compact_every, self.widths = compact_every, list[int]()

    def max_steps(self, asked: int) -> int:
        return LONGEST

    def embed(self, words: Tensor, places: Tensor) -> Tensor:
        return self.table(words) + self.places.weight[places.clamp(max=len(self.places.weight) - 1)]

    def next_words(self, states: Tensor) -> Tensor:
        logits = self.output(states)
        logits[..., [PAD, SYMBOLS.bos]] = -torch.inf
        return logits.argmax(-1)

    def guessed(self, last: Tensor) -> Tensor:
        """(R, DRAFTS): cheap, and wrong now and then."""
        found = [last]
        for _ in range(DRAFTS):
            found.append(
                self.next_words(self.stack(self.embed(found[-1][:, None], torch.zeros_like(last)[:, None]), None))[:, 0]
            )
        return torch.stack(found[1:], 1)

    def propose(self, encoded: StubEncoded, request: Request[Any]) -> Proposals:
        return Proposals()

    def start(self, encoded: StubEncoded, proposals: Proposals) -> CachedState:
        rows = len(encoded.source)
        tokens = torch.full((rows, LONGEST + DRAFTS + 1), PAD)
        cache = KVCache.empty(self.stack, rows)
        return self.verified(
            CachedState(
                tokens=tokens, lengths=torch.zeros(rows, dtype=torch.int64), last=encoded.source[:, 0], cache=cache
            )
        )

    def refine(self, state: CachedState, step: int, steps: int) -> CachedState:
        return self.verified(state, is_compacted=step % self.compact_every == 0)

    def verified(self, state: CachedState, is_compacted: bool = False) -> CachedState:
        """One call: the last word and the drafts behind it are read; right drafts and one more word are accepted."""
        drafts, places = self.guessed(state.last), torch.arange(DRAFTS + 1)
        words = torch.cat([state.last[:, None], drafts], 1)
        x = self.embed(words, state.lengths[:, None] + places)
        states, cache = state.cache.read(self.stack, x, torch.ones_like(words, dtype=torch.bool))
        best = self.next_words(states)
        is_open = torch.cat([torch.ones_like(words[:, :1]), (drafts == best[:, :-1]) & (best[:, :-1] != EOS)], 1)
        is_kept = is_open.cumprod(1).bool()
        count, at = is_kept.sum(1), (state.lengths[:, None] + places).clamp(max=LONGEST + DRAFTS)
        tokens = state.tokens.scatter(1, at, torch.where(is_kept, best, state.tokens.gather(1, at)))
        last = best.gather(1, count[:, None] - 1)[:, 0]
        cache = cache.kept(is_kept)
        self.widths.append(cache.is_live.size(1))
        return CachedState(
            tokens=tokens,
            lengths=state.lengths + count,
            last=last,
            cache=cache.compacted() if is_compacted else cache,
            done=(last == EOS) | (state.lengths + count >= LONGEST),
        )

    def finish(self, state: CachedState) -> Finished:
        places = torch.arange(LONGEST)
        tokens = state.tokens[:, :LONGEST].masked_fill(places >= state.lengths[:, None], PAD)
        return Finished(tokens, torch.zeros(tokens.shape))

    def greedy(self, source: Row) -> Row:
        """Word by word, everything read anew."""
        words = [source[0]]
        while len(words) <= LONGEST and words[-1] != EOS:
            x = self.embed(torch.tensor([words]), torch.arange(len(words))[None])
            causal = torch.ones(1, len(words), len(words), dtype=torch.bool).tril()
            words.append(int(self.next_words(self.stack(x, causal))[0, -1]))
        return words[1:]


@torch.no_grad()
@pytest.mark.parametrize("compact_every", [1, 3, 100])
def test_a_cache_in_the_state_is_dropped_kept_and_compacted_with_its_rows(compact_every: int) -> None:
    """In any batch, with rows that leave and rows that are finished and still there: the words of plain decoding."""
    stub, sources = CachedStub(compact_every), random_rows(24, 5, seed=3)
    expected = [stub.greedy(source) for source in sources]
    hypotheses = decode(stub, sample_of(sources))
    assert texts(hypotheses) == expected
    steps = [group[0]["steps"] + 1 for group in hypotheses]
    assert len(set(map(len, expected))) > 3 and len(set(steps)) > 3, "texts of many kinds"
    assert sum(steps) < 0.8 * sum(map(len, expected)), "drafts are accepted"
    assert [decode(stub, sample_of([source], is_left=True))[0][0]["tokens"].tolist() for source in sources] == expected


@torch.no_grad()
def test_compaction_keeps_a_cache_narrow() -> None:
    often, never = CachedStub(1), CachedStub(100)
    for stub in (often, never):
        decode(stub, sample_of(random_rows(24, 5, seed=3)))
    assert max(often.widths) <= LONGEST + DRAFTS + 1 < max(never.widths)
