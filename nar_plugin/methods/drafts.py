"""Drafts by looking up: where a text that is there already goes on as what was just verified.

The text is a whole sentence that another model wrote, of which the verifier has rejected a word, or the source and the
output so far (prompt lookup). Nothing is learnt, and a wrong draft costs no more than its place in a call.

Shapes: ``R`` rows, ``T`` places of a text, ``N`` verified tokens that are looked up. Ids below 0 are no tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST_SUFFIX = 8
"""So many verified tokens at most decide where a rejected sentence goes on."""
LONGEST_NGRAM = 3
"""So many are looked up in the source and in the output so far."""
NO_TOKEN, BEFORE_ALL, BORDER = -1, -2, -3
"""No verified token; what stands before a text; what parts two texts. None is equal to another."""


class Found(NamedTuple):
    """``end``: (R,) the place of the last token of what was found; ``length``: (R,) how many tokens agree, 0: none."""

    end: Tensor
    length: Tensor


def recent(tokens: Tensor, count: Tensor, n: int) -> Tensor:
    """(R, T) tokens, of which (R,) ``count`` are verified, to the last ``n`` of these, (R, n), the last one first."""
    places = count[:, None] - 1 - torch.arange(n, device=tokens.device)
    return tokens.gather(1, places.clamp(min=0)).masked_fill(places < 0, NO_TOKEN)


def agreement(text: Tensor, last: Tensor) -> Tensor:
    """(R, T): how many of the (R, N) tokens ``last``, the last one first, stand in a text up to each place."""
    n = last.size(1)
    windows = F.pad(text, (n - 1, 0), value=BEFORE_ALL).unfold(1, n, 1).flip(2)
    return (windows == last[:, None]).long().cumprod(2).sum(2)


def nearest(text: Tensor, last: Tensor, place: Tensor) -> Found:
    """Of the longest agreements the one that ends nearest to (R,) ``place``; of two as near the later one."""
    lengths, width = agreement(text, last), text.size(1)
    ends = torch.arange(width, device=text.device)
    distance = (ends - place[:, None]).abs()
    rank = 2 * (2 * width * lengths - distance.clamp(max=2 * width - 1)) + (ends > place[:, None])
    end = rank.argmax(1)
    return Found(end, lengths.gather(1, end[:, None])[:, 0])


def latest(text: Tensor, last: Tensor, before: Tensor) -> Found:
    """Of the longest agreements that end before the place (R,) ``before`` the latest one."""
    lengths, width = agreement(text, last), text.size(1)
    ends = torch.arange(width, device=text.device)
    lengths = lengths.masked_fill(ends >= before[:, None], 0)
    end = (lengths * width + ends).argmax(1)
    return Found(end, lengths.gather(1, end[:, None])[:, 0])


def going_on(text: Tensor, lengths: Tensor, place: Tensor, said: Tensor, last: Tensor) -> Tensor:
    """Where a drafted sentence goes on, (R,), from ``lengths`` on: nowhere.

    ``text``: (R, T) the draft, of (R,) ``lengths``; ``place``: (R,) the place for which the verifier said the token
    (R,) ``said``. If the draft has it there, it goes on behind it. If not, it goes on behind the longest suffix of the
    verified tokens, (R, N) ``last`` with the last one first, that it has elsewhere; if it has none, behind the place.
    """
    ends = torch.arange(text.size(1), device=text.device)
    text = text.masked_fill(ends >= lengths[:, None], BORDER)
    there = F.pad(text, (0, 1), value=BORDER).gather(1, place.clamp(max=text.size(1))[:, None])[:, 0]
    found = nearest(text, last, place)
    end = torch.where((there == said) | (found.length == 0), place, found.end)
    return torch.minimum(end + 1, lengths)


def ngram(source: Tensor | None, tokens: Tensor, count: Tensor, pad: int, width: int) -> tuple[Tensor, Tensor]:
    """What followed the last three (else two, else one) verified tokens before: in the output so far, latest first, or
    else in the source. (R, ``width``) drafts and where there are any.

    ``source``: (R, S) padded ids in the same dictionary, None where it is another one; ``tokens``: (R, T) the output,
    padded, of which (R,) ``count`` are verified.
    """
    border = tokens.new_full((len(tokens), 1), BORDER)
    text = torch.cat([border if source is None else torch.cat([source, border], 1), tokens], 1)
    text = text.masked_fill(text == pad, BORDER)
    before = text.size(1) - tokens.size(1) + count - 1  # the place of the last token itself
    found = latest(text, recent(tokens, count, LONGEST_NGRAM), before)
    places = found.end[:, None] + 1 + torch.arange(width, device=tokens.device)
    drafts = F.pad(text, (0, width + 1), value=BORDER).gather(1, places)
    is_draft = ((drafts >= 0) & (found.length > 0)[:, None]).long().cumprod(1).bool()
    return drafts.masked_fill(~is_draft, pad), is_draft
