"""Deterministic iterative refinement (Lee, Mansimov & Cho 2018, "Deterministic Non-Autoregressive Neural Sequence
Modeling by Iterative Refinement", arXiv 1802.06901): what the first pass reads, how a reference is corrupted, and the
networks.

The released code corrupts a fixed number of positions in random order, the paper each token with a probability from
left to right; both are here, and both are applied from left to right, which has a closed form without a loop. Unlike in
the released code ``</s>`` never moves.
"""

from typing import Sequence

import torch
from torch import Tensor, nn

from . import noise
from .source_copy import Decoder, Source
from .transformer import Memory, Stack, TokenEmbedding, mean_over

REPEAT, REPLACE, SWAP = 0, 1, 2
LIGHTEST, HEAVIEST = 0.1, 0.9


def copied_places(source_lengths: Tensor, target_lengths: Tensor, width: int) -> Tensor:
    """(B,), (B,) to (B, width): the source position that each target position copies, round(t · (S − 1) / (T − 1)).

    Ties go to the even place, as the released code's rounding; beyond a row's target the last place is repeated.
    """
    place = torch.arange(width, device=source_lengths.device)
    last_source, last_target = (lengths[:, None] - 1 for lengths in (source_lengths, target_lengths))
    steps = place * last_source / last_target.clamp(min=1)
    return torch.minimum(steps.round().long(), last_source).clamp(min=0)


def corruption_rates(refinements: int) -> list[float]:
    """The share of corrupted tokens in the input of each refinement, heaviest first (released code, for one pass more).

    For 1 to 4 refinements: 0.1; 0.5, 0.1; 0.633, 0.367, 0.1; 0.7, 0.5, 0.3, 0.1.
    """
    step = (HEAVIEST - LIGHTEST) / max(1, refinements)
    return [LIGHTEST + step * (refinements - 1 - i) for i in range(refinements)]


def chosen_words(keys: Tensor, lengths: Tensor, width: int, rate: float, by_count: bool) -> Tensor:
    """(B, width) True at the words to corrupt: each with probability ``rate`` (paper), or exactly
    min(max(⌊rate · T⌋, 1), T − 1) of a sentence's T tokens (``by_count``, released code); never ``</s>``."""
    is_word = torch.arange(width, device=lengths.device) < lengths[:, None] - 1
    keys = noise.fold(keys, 0)
    if not by_count:
        return is_word & (noise.uniform(keys, width) < rate)
    counts = torch.minimum((rate * lengths + 1e-6).long().clamp(min=1), lengths - 1)  # 0.1 * 10 is no 0.999…
    return noise.subset(keys, is_word, counts)


def corrupted(keys: Tensor, tokens: Tensor, operation: Tensor, first: int, size: int) -> Tensor:
    """Apply operations to (B, T) ids from left to right, each to what the one before it left.

    ``operation``: (B, T), −1 where a token stays. REPEAT writes a token over its right neighbour, SWAP exchanges the
    two, REPLACE puts a uniform one of the ids ``first`` … ``size`` − 1. After REPEAT and SWAP the right neighbour is
    the token that was here, so what an operation meets is the token where an unbroken run of them to its left began.
    """
    place = torch.arange(tokens.size(1), device=tokens.device)
    moves = (operation == REPEAT) | (operation == SWAP)
    begins = torch.ones_like(moves)
    begins[:, 1:] = ~moves[:, :-1]
    met = tokens.gather(1, (place * begins).cummax(1).values)
    drawn = first + (noise.uniform(noise.fold(keys, 2), tokens.size(1)) * (size - first)).long()
    return torch.where(operation == REPLACE, drawn, torch.where(operation == SWAP, tokens.roll(-1, 1), met))


def corruption(
    keys: Tensor, tokens: Tensor, lengths: Tensor, rate: float, first: int, size: int, by_count: bool = True
) -> Tensor:
    """C(Y): right-padded (B, T) targets with some words repeated, replaced or swapped, a third each.

    The last word, right of which ``</s>`` stands, is only ever replaced. Ids below ``first`` are special.
    """
    width = tokens.size(1)
    operation = (noise.uniform(noise.fold(keys, 1), width) * 3).long()
    operation.scatter_(1, (lengths - 2).clamp(min=0)[:, None], REPLACE)
    chosen = chosen_words(keys, lengths, width, rate, by_count)
    return corrupted(keys, tokens, operation.masked_fill(~chosen, -1), first, size)


class Encoder(Source):
    """The source: its embeddings, which the first pass copies, its memory for either decoder, the target's length."""

    def __init__(
        self,
        embedding: TokenEmbedding,
        encoder: Stack,
        decoders: "Decoders",
        length_head: nn.Module,
        *,
        attends_top: bool,
        reads_all: bool,
        is_detached: bool,
    ) -> None:
        """``reads_all``: the length is read from the sum of all states, not from the top one; ``is_detached``: with no
        gradient to the encoder."""
        super().__init__(embedding, encoder, attends_top)
        self.decoders, self.length_head = decoders, length_head
        self.reads_all, self.is_detached = reads_all, is_detached

    def forward(
        self, source: Tensor, is_source: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[tuple[Memory, ...], tuple[Memory, ...]], Tensor]:
        """(B, S) ids to (B, S, D) embeddings, the memories of both decoders, (B, 41) log-probabilities of T − S."""
        copied, states, attended = self.read(source, mask)
        return (
            copied,
            self.decoders.memory(attended),
            self.offset_logits([copied, *states], is_source).float().log_softmax(1),
        )

    def offset_logits(self, states: list[Tensor], is_source: Tensor) -> Tensor:
        """(B, 41) of T − S from −20: from the mean of the top states, or of the sum of all of them."""
        read = torch.stack(states).sum(0) if self.reads_all else states[-1]
        if self.is_detached:
            read = read.detach()
        return self.length_head(mean_over(read, is_source))


class Decoders(nn.Module):
    """Decoder 1 for the first pass, decoder 2 for every other; they may be one."""

    def __init__(self, first: Stack, later: Stack) -> None:
        super().__init__()
        self.first, self.later = first, later

    def memory(self, states: Tensor | Sequence[Tensor]) -> tuple[tuple[Memory, ...], tuple[Memory, ...]]:
        """The source for either, made once where they are one."""
        later = self.later.memory(states)
        return (later if self.first is self.later else self.first.memory(states)), later


class NextPass(Decoder):
    """Decoder 2, over the words and hidden states of the pass before, or one of both."""

    def __init__(
        self, embedding: TokenEmbedding, decoder: Stack, is_blind: bool, *, reads_words: bool, reads_hidden: bool
    ) -> None:
        super().__init__(embedding, decoder, is_blind)
        self.reads_words, self.reads_hidden = reads_words, reads_hidden

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        mask: Tensor | None,
        memory: tuple[Memory, ...],
        is_source: Tensor | None,
    ) -> Tensor:
        """(R, T) ids and (R, T, D) states to (R, T, D) states."""
        read = self.embedding.places(tokens.size(1)).expand_as(hidden)
        if self.reads_words:
            read = read + self.embedding.scale * self.embedding.tokens(tokens)
        if self.reads_hidden:
            read = read + hidden
        return self.decoded(read, mask, memory, is_source)
