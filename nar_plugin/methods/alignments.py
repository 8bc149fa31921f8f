"""Alignments of words with a canvas, by connectionist temporal classification (Graves, Fernández, Gomez & Schmidhuber
2006, section 3): every position of the canvas says a word or a blank; read are the words, those apart that repeat the
position before.

Words y_1 … y_n have 2 n + 1 states: 2 k is the blank after k words, 2 k − 1 the word y_k. From one position to the next
an alignment stays in its state, steps to the next one, or skips a blank between two different words.

Shapes: ``B`` rows, ``C`` positions of the canvas, ``T`` words, ``E = 2 T + 1`` states, ``V`` what a position may say.
Recursions loop over the positions of the canvas, of which each needs the one before; rows and states are computed at
once, in float32. No gradient is asked of them: ``minus_log_likelihood`` has one, by torch's own sum.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .symbols import Symbols


def is_read(said: Tensor, is_canvas: Tensor, blank: int) -> Tensor:
    """(B, C) True at the first position of every word that is read of (B, C) ids."""
    is_word = (said != blank) & is_canvas
    is_word[:, 1:] &= said[:, 1:] != said[:, :-1]
    return is_word


def read(said: Tensor, scores: Tensor, is_canvas: Tensor, blank: int, symbols: Symbols) -> tuple[Tensor, Tensor]:
    """The words of (B, C) ids and an end symbol: (B, C + 1) ids, right-padded, and of (B, C) scores each word's first,
    0 at the end symbol and at pads."""
    is_word = is_read(said, is_canvas, blank)
    width = said.size(1) + 1
    place = torch.where(is_word, is_word.cumsum(1) - 1, width)  # what is not read goes to a column behind all
    words = said.new_full((len(said), width + 1), symbols.pad).scatter_(1, place, said)
    words.scatter_(1, is_word.sum(1, keepdim=True), symbols.eos)
    of_words = scores.new_zeros(len(said), width + 1).scatter_(1, place, scores)
    return words[:, :width], of_words[:, :width]


def least_canvas(words: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) words, of which ``lengths`` (B,) count, to the (B,) least positions that can say them: one each, and a
    blank between two that are equal."""
    both = torch.arange(1, words.size(1), device=words.device) < lengths[:, None]
    return lengths + ((words[:, 1:] == words[:, :-1]) & both).sum(1)


class _Said(torch.autograd.Function):
    """(B, C, V) logits to those of the (B, K) words of each row, (B, C, K), and each position's log Σ exp, (B, C).

    Both at once, so that the gradient is one tensor as large as the logits, and none but the logits is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        total = logits.logsumexp(-1)
        places = words[:, None].expand(-1, logits.size(1), -1)
        ctx.save_for_backward(logits, total, places)
        return logits.gather(2, places), total

    @staticmethod
    def backward(ctx: Any, of_said: Tensor, of_total: Tensor) -> tuple[Tensor, None]:
        logits, total, places = ctx.saved_tensors
        gradient = (logits - total[..., None]).exp_().mul_(of_total[..., None])
        return gradient.scatter_add_(2, places, of_said), None


def minus_log_likelihood(logits: Tensor, words: Tensor, lengths: Tensor, canvas_lengths: Tensor, blank: int) -> Tensor:
    """−log Σ_alignments Π p in nats, (B,), of (B, C, V) logits; 0, and without a gradient, where the canvas is too
    short (``least_canvas``).

    An alignment says nothing but the row's words and the blank. So the sum is over these T + 1 alone, as if there were
    nothing else to say, and what their share of all probability is at each position is added: the vocabulary, hundreds
    of times as large, is read once. Float32 at least.
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    some, total = _Said.apply(logits, F.pad(words, (1, 0), value=blank))  # type: ignore[no-untyped-call]
    place = (words[:, :, None] == words[:, None]).to(torch.uint8).argmax(2) + 1  # equal words are one label
    among = F.ctc_loss(
        some.log_softmax(-1).transpose(0, 1), place, canvas_lengths, lengths, 0, reduction="none", zero_infinity=True
    )
    is_canvas = torch.arange(logits.size(1), device=logits.device) < canvas_lengths[:, None]
    share = (total - some.logsumexp(-1)).masked_fill(~is_canvas, 0.0).sum(1)
    return among + share.masked_fill(least_canvas(words, lengths) > canvas_lengths, 0.0)


def states(words: Tensor, blank: int) -> Tensor:
    """(…, T) words to what the (…, E) states say."""
    return F.pad(torch.stack([torch.full_like(words, blank), words], -1).flatten(-2), (0, 1), value=blank)


def emissions(log_probs: Tensor, said: Tensor, is_canvas: Tensor, blank: int) -> Tensor:
    """(B, C, V) log-probabilities, or logits, to those of the (B, E) states, (B, C, E), in float32.

    Beyond a canvas a blank is certain, which changes no sum and no maximum.
    """
    found = log_probs.gather(2, said[:, None].expand(-1, log_probs.size(1), -1)).float()
    beyond = torch.where(said == blank, 0.0, -torch.inf)
    return torch.where(is_canvas[..., None], found, beyond[:, None])


def _ways(reached: Tensor, can_skip: Tensor) -> Tensor:
    """(B, E) values of states to (3, B, E): what stays, what steps, what skips to each."""
    step = F.pad(reached[:, :-1], (1, 0), value=-torch.inf)
    skip = F.pad(step[:, :-1], (1, 0), value=-torch.inf)
    return torch.stack([reached, step, skip.masked_fill(~can_skip, -torch.inf)])


def _start(said: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """(B, E) values before the first position, all in state 0; and (B, E) where a blank before may be skipped."""
    reached = torch.full(said.shape, -torch.inf, device=said.device)
    reached[:, 0] = 0.0
    can_skip = said != blank
    can_skip[:, 2:] &= said[:, 2:] != said[:, :-2]
    return reached, can_skip


def _ends(reached: Tensor, lengths: Tensor) -> Tensor:
    """(B, 2) values of the two states in which an alignment ends: the last blank, the last word."""
    last = 2 * lengths[:, None]
    of_word = reached.gather(1, (last - 1).clamp(min=0)).masked_fill(last == 0, -torch.inf)
    return torch.cat([reached.gather(1, last), of_word], 1)


def log_likelihoods(emitted: Tensor, said: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """log p(y_k | y_1 … y_k−1) of every word and of the end, (B, T + 1) in nats, 0 behind it: summed up, the logarithm
    of the sum over all alignments, −∞ where there is none.

    ``emitted``, ``said``: of the states (``emissions``). That what is read begins with y_1 … y_k is the sum, over the
    positions at which y_k is said first, of all ways to there (Watanabe, Hori, Kim, Hershey & Hayashi 2017).
    """
    reached, can_skip = _start(said, blank)
    begun = torch.full_like(reached[:, 1::2], -torch.inf)
    for emission in emitted.unbind(1):
        ways = _ways(reached, can_skip)
        entered = ways[1:].logsumexp(0) + emission
        begun = torch.logaddexp(begun, entered[:, 1::2])
        reached = torch.logaddexp(ways[0] + emission, entered)
    whole = _ends(reached, lengths).logsumexp(1, keepdim=True)
    known = F.pad(begun, (1, 1)).scatter(1, lengths[:, None] + 1, whole)
    is_counted = torch.arange(known.size(1) - 1, device=known.device) <= lengths[:, None]
    # from −∞ to −∞: the −∞ stands where it came first
    return known.diff(dim=1).nan_to_num(nan=0.0, neginf=-torch.inf).masked_fill(~is_counted, 0.0)


def best(emitted: Tensor, said: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """The most probable alignment (Viterbi), (B, C) ids, some alignment or none where the canvas is too short.

    Every alignment says one thing at each position, so that logits do as well as log-probabilities.
    """
    reached, can_skip = _start(said, blank)
    moves = []
    for emission in emitted.unbind(1):
        reached, move = _ways(reached, can_skip).max(0)
        reached = reached + emission
        moves.append(move.to(torch.int8))
    state = (2 * lengths - _ends(reached, lengths).argmax(1))[:, None]
    path = []
    for move in reversed(moves):
        path.append(state)
        state = (state - move.gather(1, state)).clamp(min=0)
    return said.gather(1, torch.cat(path[::-1], 1))
