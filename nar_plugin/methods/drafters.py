"""Who drafts for a verifier (``speculative.Drafter``), beside the heads of a model of its own: a sentence that was
written before, a small autoregressive model, and the text that is there already."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from . import drafts, verification
from .contract import Rows
from .lengths import is_within
from .speculative import (
    DRAW_DRAFTS,
    LEAST_COLUMNS,
    Draft,
    Drafting,
    Plan,
    Reading,
    SourceEncoded,
    Verifier,
    best_of,
    draws_of,
    log_probs_of,
    narrowed,
    probs_of,
)
from .symbols import Symbols


@dataclass(frozen=True, kw_only=True)
class Looked(Rows):
    """``source``: (R, S) padded ids in the dictionary of the target, None where it has another."""

    source: Tensor | None


class NgramDrafter:
    """What followed the last verified tokens before, in the output or in the source (``drafts.ngram``). What it is told
    of the sources are their (B, S) padded ids, or None where they are not in the dictionary of the target."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Tensor | None) -> Looked:
        return Looked(source=encoded.told)

    def draft(self, state: Drafting) -> Draft:
        tokens, is_token = drafts.ngram(
            state.kept.source, state.tokens, state.count, self.symbols.pad, state.plan.drafts
        )
        return Draft(tokens, is_token, state.kept)


@dataclass(frozen=True, kw_only=True)
class Sentence(Rows):
    """``tokens``: (R, T) a drafted sentence, padded, of (R,) ``lengths``; ``place``: (R,) where it goes on. ``told``:
    what its writer knows of the sources, where it may write the rest anew."""

    tokens: Tensor
    lengths: Tensor
    place: Tensor
    told: Any = None


class Writer(Protocol):
    """A model that writes a sentence at once."""

    def sentences(self, told: Any) -> Tensor:
        """(R, T) padded ids that end in ``</s>``."""

    def rest(self, told: Any, tokens: Tensor, is_token: Tensor, known: Tensor) -> Tensor:
        """(R, T) sentences of which the first (R,) ``known`` tokens are given, with the others written anew."""


class SentenceDrafter:
    """A sentence that another model wrote. It offers all that is left of it, behind the place where it agrees with what
    is verified (``drafts.going_on``); with ``is_rewritten`` its writer first writes what is left anew, given that."""

    def __init__(self, writer: Writer, symbols: Symbols, is_rewritten: bool = False, longest: int = 0) -> None:
        """``longest``: tokens that the writer can read, where it rewrites."""
        self.writer, self.symbols, self.is_rewritten, self.longest = writer, symbols, is_rewritten, longest

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Tensor | None) -> Sentence:
        tokens = self.writer.sentences(encoded.told)
        lengths = (tokens != self.symbols.pad).sum(1)
        told = encoded.told if self.is_rewritten else None
        return Sentence(tokens=tokens, lengths=lengths, place=torch.zeros_like(lengths), told=told)

    def draft(self, state: Drafting) -> Draft:
        """It waits for the device, to offer no more than the longest rest."""
        kept: Sentence = state.kept
        if state.calls:
            last = drafts.recent(state.tokens, state.count, drafts.LONGEST_SUFFIX)
            at = kept.place + state.taken
            kept = replace(kept, place=drafts.going_on(kept.tokens, kept.lengths, at, state.last, last))
            if self.is_rewritten:
                kept = self.rewritten(kept, state)
        left = (kept.lengths - kept.place).masked_fill(state.done, 0)
        is_token = is_within(left, int(left.max()))
        places = kept.place[:, None] + torch.arange(is_token.size(1), device=left.device)
        tokens = kept.tokens.gather(1, places.clamp(max=kept.tokens.size(1) - 1))
        return Draft(tokens.masked_fill(~is_token, self.symbols.pad), is_token, kept)

    def rewritten(self, kept: Sentence, state: Drafting) -> Sentence:
        """The verified tokens, and behind them as many as were left, one at least, written anew."""
        left = (kept.lengths - kept.place).clamp(min=1)
        lengths = (state.count + left).clamp(max=self.longest)
        known = torch.minimum(state.count, lengths)
        is_token = is_within(lengths, int(lengths.max()))
        places = torch.arange(is_token.size(1), device=left.device)
        old = kept.tokens.gather(1, (kept.place[:, None] + places - known[:, None]).clamp(0, kept.tokens.size(1) - 1))
        verified = state.tokens.gather(1, places.expand_as(old).clamp(max=state.tokens.size(1) - 1))
        tokens = torch.where(places < known[:, None], verified, old).masked_fill(~is_token, self.symbols.pad)
        tokens = self.writer.rest(kept.told, tokens, is_token, known)
        return replace(kept, tokens=tokens, lengths=lengths, place=known)


@dataclass(frozen=True, kw_only=True)
class Stepped(Rows):
    """What a small model has read; ``columns`` of its cache, from which on it is made smaller."""

    reading: Reading
    columns: int = LEAST_COLUMNS


class StepDrafter:
    """A small autoregressive model, which writes one token after the other. What it is told of the sources is what it
    encodes itself, a ``SourceEncoded``."""

    def __init__(self, model: Verifier, symbols: Symbols) -> None:
        self.model, self.symbols = model, symbols

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Tensor | None) -> Stepped:
        return Stepped(reading=self.model.reading(encoded.told))

    def draft(self, state: Drafting) -> Draft:
        """It reads what is accepted and was not read yet, the last token and maybe the one before, and then its own."""
        plan, count, width = state.plan, state.count, state.plan.drafts
        kept = self.caught_up(state)
        is_behind = (state.taken == width) & (count > 0)
        before = state.tokens.gather(1, (count - 2).clamp(min=0)[:, None])[:, 0]
        block = torch.stack([before, state.last], 1)
        is_token = torch.stack([is_behind, torch.ones_like(is_behind)], 1)
        places = torch.stack([(count - 1).clamp(min=0), count], 1)
        draws = draws_of(state, DRAW_DRAFTS, width) if plan.is_sampled else None
        reading, tokens, probs = kept.reading, [], []
        for i in range(width):
            states, reading = self.model.extend(reading, block, is_token, places)
            steps = count[:, None] + i
            log_probs = log_probs_of(self.model.logits(states[:, -1:]), steps, plan, self.symbols)
            if draws is None:
                block = best_of(log_probs, steps, plan, self.symbols)
            else:
                probs.append(probs_of(log_probs, steps, plan, self.symbols))
                block = verification.drawn(probs[-1], draws[:, i : i + 1])
            tokens.append(block)
            is_token, places = torch.ones_like(block, dtype=torch.bool), steps + 1
        found = torch.cat(tokens, 1)
        is_draft = torch.ones_like(found, dtype=torch.bool)
        return Draft(found, is_draft, replace(kept, reading=reading), torch.cat(probs, 1) if probs else None)

    def caught_up(self, state: Drafting) -> Stepped:
        """What was read of the last drafts counts as far as they were accepted; the last of them was not read."""
        kept: Stepped = state.kept
        if not state.calls:
            return kept
        rank = torch.arange(1, state.plan.drafts, device=state.taken.device)
        reading, columns = narrowed(kept.reading.kept(rank <= state.taken[:, None]), kept.columns)
        return Stepped(reading=reading, columns=columns)
