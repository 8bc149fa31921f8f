"""Blockwise and speculative decoding: one call of a verifier reads several drafted tokens, of which it keeps those that
it would have said itself.

A call reads the last accepted token, which the verifier has not read yet, and the drafts behind it; what the verifier
says at each place judges the next draft, and at the first place without an accepted draft it says a token of its own.
So a call gives from one token to one more than there are drafts, and it verifies and predicts at once (Stern et al.
2018, section 4). Under the rule ``exact`` the output is that of greedy decoding, whatever the drafts are.

The rules of greedy decoding are those of fairseq's search with a beam of one: padding is never said, ``</s>`` not
before ``min_len`` words, and nothing else after ``max_len``.

Shapes: ``R`` rows, ``K`` tokens of a call, ``G`` = K − 1 drafts, ``V`` words, ``D`` model.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from . import noise, prediction, verification
from .cache import KVCache
from .contract import Encoded, Finished, Proposals, Request, Rows, Scored, State
from .options import Verified
from .symbols import Symbols, right_padded, shifted
from .transformer import Memory
from .usage import UsageError

LEAST_COLUMNS = 32
"""A cache of fewer columns is never made smaller."""
DRAW_DRAFTS, DRAW_VERDICTS = 31, 32
"""Purposes of noise."""


@dataclass(frozen=True, kw_only=True)
class SourceEncoded(Encoded):
    """``states``: (B, S, D) of the verifier's encoder; ``memory``: of every layer of its decoder, the source's keys and
    values; ``width``: tokens of the longest source of the batch, padding counted; ``told``: what the drafter knows of
    them. Sources are padded on the side on which they came."""

    states: Tensor
    memory: tuple[Memory, ...]
    is_source: Tensor | None
    width: int
    told: Any = None


@dataclass(frozen=True, kw_only=True)
class Reading(Rows):
    """What a decoder with a cache has read: its sources, and tokens behind them."""

    cache: KVCache
    memory: tuple[Memory, ...]
    is_source: Tensor | None

    def kept(self, is_kept: Tensor) -> "Reading":
        """The same where of the tokens read last, (R, K), only those count that are kept."""
        return replace(self, cache=self.cache.kept(is_kept))


class Verifier(Protocol):
    """A decoder that reads several tokens a call, with a cache."""

    def reading(self, encoded: SourceEncoded) -> Reading:
        """Nothing read yet but the sources."""

    def extend(self, reading: Reading, tokens: Tensor, is_token: Tensor, places: Tensor) -> tuple[Tensor, Reading]:
        """(R, K) further tokens at (R, K) places to their (R, K, D) states, and what is read then. ``is_token``: False
        where a row has fewer tokens. The place of the begin symbol is 0."""

    def logits(self, states: Tensor) -> Tensor:
        """(…, D) states to (…, V) logits of the next token."""


class Draft(NamedTuple):
    """(R, G) drafted tokens, and where there are any, from the left; ``probs``: (R, G, V) by which they were drawn,
    None where they were not; ``kept``: what the drafter wants to know in its next call."""

    tokens: Tensor
    is_token: Tensor
    kept: Any
    probs: Tensor | None = None


class Drafter(Protocol):
    """Whatever guesses how a verified prefix goes on."""

    def begin(self, encoded: SourceEncoded, plan: "Plan", keys: Tensor | None) -> Any:
        """A record of rows, or None, which is kept between calls."""

    def draft(self, state: "Drafting") -> Draft:
        """Drafts behind what is accepted, as they follow in ``state.tokens``."""


@dataclass(frozen=True, kw_only=True)
class Plan(Rows):
    """What was asked of a decode. ``longest``: words that an output may have at most, ``</s>`` not counted; ``drafts``:
    tokens that are drafted a call, 0: as many as the drafter has."""

    rule: verification.Rule
    is_sampled: bool
    by_block: bool
    top_k: int
    top_p: float
    temperature: float
    unkpen: float
    shortest: int
    longest: int
    drafts: int

    @staticmethod
    def of(options: Verified, width: int, positions: int, drafts: int = 0) -> "Plan":
        """For sources of at most ``width`` tokens and a decoder of so many positions, as fairseq has it.

        Raises UsageError where the least length is above the greatest.
        """
        longest = min(int(options.max_len_a * width + options.max_len_b), positions - 1)
        if options.min_len > longest:
            raise UsageError(f"--min-len {options.min_len}: a sentence of this batch may have {longest} words at most")
        return Plan(
            rule=verification.Rule(
                accept=options.accept,
                top_k=options.accept_top_k,
                distance=options.accept_distance,
                min_block=options.min_block,
            ),
            is_sampled=options.sampling,
            by_block=options.block_verification,
            top_k=options.sampling_topk,
            top_p=options.sampling_topp,
            temperature=options.temperature,
            unkpen=options.unkpen,
            shortest=options.min_len,
            longest=longest,
            drafts=drafts,
        )


@dataclass(frozen=True, kw_only=True)
class Planned(Proposals):
    """``keys``: (R,) noise keys of a decode that draws."""

    plan: Plan
    keys: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Drafting(State):
    """``tokens``: (R, longest + 2) the accepted tokens, padded, of which there are (R,) ``count``; ``scores``: their
    log-probabilities in nats, 0 at pads. ``last``: (R,) the last of them, which the verifier has not read yet;
    ``states``: (R, D) its state at the token before it, None before the first call. ``offered``: (R, G) what was
    drafted for the last call, padded, of which (R,) ``taken`` tokens were accepted. ``kept``: the drafter's own.
    ``calls``: of the verifier so far; ``columns``: of its cache, from which on those that no row needs are dropped.
    """

    tokens: Tensor
    done: Tensor
    scores: Tensor
    count: Tensor
    last: Tensor
    states: Tensor | None
    reading: Reading
    plan: Plan
    keys: Tensor | None
    kept: Any
    offered: Tensor
    taken: Tensor
    calls: int
    columns: int


def log_probs_of(logits: Tensor, steps: Tensor, plan: Plan, symbols: Symbols) -> Tensor:
    """(R, K, V) logits, which are overwritten, to the log-probabilities by which a token is chosen, in nats, where
    (R, K) ``steps`` tokens stand before it. (What follows the longest text is not heeded here, but by ``best_of``.)"""
    if plan.temperature != 1.0:
        logits = logits / plan.temperature
    log_probs = prediction.log_probs_of(logits, (symbols.pad,))
    if plan.unkpen:
        log_probs[..., symbols.unk] -= plan.unkpen
    if plan.shortest:
        log_probs[..., symbols.eos].masked_fill_(steps < plan.shortest, -torch.inf)
    return log_probs


def best_of(log_probs: Tensor, steps: Tensor, plan: Plan, symbols: Symbols) -> Tensor:
    """(R, K) the most probable tokens; after the longest text ``</s>``."""
    return prediction.greatest(log_probs)[1].masked_fill(steps >= plan.longest, symbols.eos)


def probs_of(log_probs: Tensor, steps: Tensor, plan: Plan, symbols: Symbols) -> Tensor:
    """(R, K, V) probabilities by which tokens are drawn; after the longest text that of ``</s>`` is 1."""
    probs = verification.truncated(log_probs, plan.top_k, plan.top_p)
    end = torch.zeros(log_probs.size(-1), device=log_probs.device)
    end[symbols.eos] = 1.0
    return torch.where((steps >= plan.longest)[..., None], end, probs)


def narrowed(reading: Reading, columns: int) -> tuple[Reading, int]:
    """Once there are so many columns, those that no row needs are dropped; and at how many it will be done again. It
    then waits for the device."""
    if reading.cache.is_live.size(1) < columns:
        return reading, columns
    reading = replace(reading, cache=reading.cache.compacted())
    return reading, max(LEAST_COLUMNS, 2 * reading.cache.is_live.size(1))


class Speculation:
    """A verifier and a drafter, as the passes of a decode (``methods.contract``): ``start`` is the first call of the
    verifier, ``refine`` every further one."""

    def __init__(self, verifier: Verifier, drafter: Drafter, symbols: Symbols) -> None:
        self.verifier, self.drafter, self.symbols = verifier, drafter, symbols

    def propose(self, encoded: SourceEncoded, request: Request[Any], positions: int, drafts: int) -> Planned:
        """``positions``: of the verifier's decoder; ``drafts``: as in ``Plan``."""
        plan = Plan.of(request.options, encoded.width, positions, drafts)
        return Planned(plan=plan, keys=request.keys() if plan.is_sampled else None, longest=plan.longest + 1)

    def start(self, encoded: SourceEncoded, proposals: Planned) -> Drafting:
        plan, rows, device = proposals.plan, len(encoded.keys), encoded.keys.device
        tokens = torch.full((rows, plan.longest + 2), self.symbols.pad, device=device)
        count = torch.zeros(rows, dtype=torch.int64, device=device)
        state = Drafting(
            tokens=tokens,
            done=torch.zeros(rows, dtype=torch.bool, device=device),
            scores=torch.zeros(tokens.shape, device=device),
            count=count,
            last=torch.full_like(count, self.symbols.eos),  # with which fairseq's decoders begin
            states=None,
            reading=self.verifier.reading(encoded),
            plan=plan,
            keys=proposals.keys,
            kept=self.drafter.begin(encoded, plan, proposals.keys),
            offered=tokens[:, :0],
            taken=count,
            calls=0,
            columns=LEAST_COLUMNS,
        )
        return self.refine(state)

    def refine(self, state: Drafting) -> Drafting:
        """One call of the verifier. It never waits for the device, unless the drafter does or the cache has grown to
        twice its size."""
        plan, symbols = state.plan, self.symbols
        draft = self.drafter.draft(state)
        block = torch.cat([state.last[:, None], draft.tokens], 1)
        rank = torch.arange(block.size(1), device=block.device)
        steps = state.count[:, None] + rank
        is_read = F.pad(draft.is_token, (1, 0), value=True)
        states, reading = self.verifier.extend(state.reading, block, is_read, steps)
        log_probs = log_probs_of(self.verifier.logits(states), steps, plan, symbols)
        count, following = self.verdict(state, draft, log_probs, steps)
        said = torch.cat([draft.tokens, following[:, None]], 1).scatter(1, count[:, None], following[:, None])
        is_said = (rank <= count[:, None]) & ~state.done[:, None]
        is_end = (said == symbols.eos) & is_said
        is_said &= is_end.cumsum(1) - is_end.long() == 0
        scores = log_probs.gather(2, said[..., None])[..., 0]
        at = steps.clamp(max=state.tokens.size(1) - 1)  # nothing but padding is written to the last place
        kept = reading.kept((rank <= count[:, None]) & ~state.done[:, None])
        reading, columns = narrowed(kept, state.columns)
        return replace(
            state,
            tokens=state.tokens.scatter(1, at, said.masked_fill(~is_said, symbols.pad)),
            scores=state.scores.scatter(1, at, scores.masked_fill(~is_said, 0.0)),
            done=state.done | is_end.any(1),
            count=state.count + is_said.sum(1),
            last=following,
            states=states.gather(1, count[:, None, None].expand(-1, 1, states.size(2)))[:, 0],
            reading=reading,
            kept=draft.kept,
            offered=draft.tokens.masked_fill(~draft.is_token, symbols.pad),
            taken=count,
            calls=state.calls + 1,
            columns=columns,
        )

    def verdict(self, state: Drafting, draft: Draft, log_probs: Tensor, steps: Tensor) -> verification.Verdict:
        """Greedily, or by draws."""
        plan = state.plan
        if not plan.is_sampled:
            best = best_of(log_probs, steps, plan, self.symbols)
            eos = self.symbols.eos
            return verification.verified(plan.rule, draft.tokens, draft.is_token, log_probs, best, eos)
        draws = draws_of(state, DRAW_VERDICTS, steps.size(1))
        probs = probs_of(log_probs, steps, plan, self.symbols)
        return verification.sampled(draft.tokens, draft.is_token, probs, draft.probs, draws, by_block=plan.by_block)

    def finish(self, state: Drafting) -> Finished:
        return Finished(state.tokens[:, :-1], state.scores[:, :-1])

    def score(self, encoded: SourceEncoded, target: Tensor) -> Scored:
        """Of given (B, T) targets, by one call of the verifier that reads them whole."""
        target, is_token = right_padded(target, self.symbols.pad)
        places = torch.arange(target.size(1), device=target.device).expand_as(target)
        reading = self.verifier.reading(encoded)
        states, _ = self.verifier.extend(reading, shifted(target, self.symbols), is_token, places)
        log_probs = self.verifier.logits(states).float().log_softmax(-1).gather(2, target[..., None])[..., 0]
        return Scored(log_probs.masked_fill(~is_token, 0.0), log_probs.new_zeros(len(target)), "exact")


def draws_of(state: Drafting, purpose: int, width: int) -> Tensor:
    """(R, ``width``) numbers in [0, 1) for one purpose of one call."""
    assert state.keys is not None
    return noise.uniform(noise.fold(noise.fold(state.keys, state.calls), purpose), width)
