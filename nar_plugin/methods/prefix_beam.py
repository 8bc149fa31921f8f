"""Prefix beam search over the positions of one pass (Hannun, Maas, Jurafsky & Ng 2014, arXiv 1408.2873, algorithm 1).

Of each sentence the ``N`` most probable beginnings of what is read are kept, each with the sums of its alignments so
far: of those that end in a blank, and of those that end in its last word. A position lengthens a beginning by one of
the ``K`` words that it says most probably, as many as there are beginnings. The search loops over the positions, of
which each needs the one before; sentences, beginnings and words are computed at once. A beginning is known by a hash of
its words (64 bits).

Shapes: ``R`` sentences, ``C`` positions, ``U`` what a position may say, the last of it the blank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import noise

NOBODY = 0
"""In place of a key, that of no beginning."""


class Beam(NamedTuple):
    """The beginnings of each sentence, best first; of probability 0 where there are fewer.

    ``words``: (R, N, C), of which ``sizes`` (R, N) count; ``last``: (R, N) the last of them, −1 where there is none.
    ``key``: (R, N) hash of a beginning, ``parent``: that of the one which is a word shorter. ``of_blank``, ``of_word``:
    (R, N) log-probabilities in nats of its alignments that end in a blank, and in its last word.
    """

    words: Tensor
    sizes: Tensor
    last: Tensor
    key: Tensor
    parent: Tensor
    of_blank: Tensor
    of_word: Tensor

    @property
    def total(self) -> Tensor:
        return torch.logaddexp(self.of_blank, self.of_word)


class Position(NamedTuple):
    """What a position says: (R, U) log-probabilities in nats, (R, K) its most probable words and theirs, (R, 1) the
    blank's. Beyond a canvas the blank is certain."""

    log_probs: Tensor
    words: Tensor
    scores: Tensor
    blank: Tensor
    is_canvas: Tensor


def search(log_probs: Tensor, is_canvas: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, C, U) log-probabilities in nats to (R, N, T) words, of which (R, N) count, and (R, N) where there is a
    hypothesis at all; words are places in U. It waits for the device once."""
    blank = log_probs.size(2) - 1
    scores, words = log_probs.topk(min(n, blank) + 1, dim=2)  # one more, for the blank may be among them
    scores = scores.masked_fill((words == blank) | ~is_canvas[..., None], -torch.inf)
    of_blank = log_probs[..., blank].masked_fill(~is_canvas, 0.0)
    beam = empty(len(log_probs), n, log_probs.size(1), log_probs.device)
    for i in range(log_probs.size(1)):
        position = Position(log_probs[:, i], words[:, i], scores[:, i], of_blank[:, i, None], is_canvas[:, i, None])
        beam = lengthened(beam, position)
    return beam.words[..., : int(beam.sizes.max())], beam.sizes, beam.total > -torch.inf


def empty(rows: int, n: int, width: int, device: torch.device) -> Beam:
    """Before the first position: nothing is read, with certainty."""
    first = torch.zeros(rows, n, dtype=torch.int64, device=device)
    nothing = torch.full((rows, n), -torch.inf, device=device)
    certain = nothing.clone()
    certain[:, 0] = 0.0
    words = first[..., None].expand(-1, -1, width)
    return Beam(words, first, first - 1, first + 1, first + NOBODY, certain, nothing)


def lengthened(beam: Beam, at: Position) -> Beam:
    """The beginnings after one more position."""
    total = beam.total
    again = at.log_probs.gather(1, beam.last.clamp(min=0)).masked_fill((beam.last < 0) | ~at.is_canvas, -torch.inf)
    is_parent = beam.parent[:, :, None] == beam.key[:, None, :]  # of the first, the second
    # a word said right after itself is read once: only what ends in a blank is lengthened by its own last word
    is_own = beam.last[:, :, None] == beam.last[:, None, :]
    of_parent = torch.where(is_own, beam.of_blank[:, None], total[:, None]) + again[..., None]
    of_parent = of_parent.masked_fill(~is_parent, -torch.inf).logsumexp(2)
    stays = beam._replace(of_blank=total + at.blank, of_word=torch.logaddexp(beam.of_word + again, of_parent))
    is_own = beam.last[..., None] == at.words[:, None]
    new = torch.where(is_own, beam.of_blank[..., None], total[..., None]) + at.scores[:, None]
    is_there = is_parent[..., None] & (beam.last[:, :, None, None] == at.words[:, None, None])
    new = new.masked_fill(is_there.any(1), -torch.inf)
    return chosen(stays, new, at)


def chosen(stays: Beam, new: Tensor, at: Position) -> Beam:
    """The best of the beginnings that stay and of the (R, N, K) ``new`` ones, a word longer each."""
    n, k = new.shape[1:]
    total, place = torch.cat([stays.total, new.flatten(1)], 1).topk(n, dim=1)
    is_new = place >= n
    origin = torch.where(is_new, (place - n) // k, place)
    word = at.words.gather(1, (place - n).clamp(min=0) % k)
    words, sizes, last, key, parent, of_blank, of_word = (
        x.gather(1, origin) if x.dim() == 2 else x.gather(1, origin[..., None].expand_as(x)) for x in stays
    )
    # behind the last word there is room, and nothing counts there where no new one comes
    words = words.scatter(2, sizes[..., None], word[..., None])
    # one of probability 0 may be any words, those of another one too: it has no part in what is read
    return Beam(
        words=words,
        sizes=sizes + is_new,
        last=torch.where(is_new, word, last),
        key=torch.where(is_new, noise.fold(key, word), key),
        parent=torch.where(is_new, key, parent).masked_fill(total == -torch.inf, NOBODY),
        of_blank=of_blank.masked_fill(is_new, -torch.inf),
        of_word=torch.where(is_new, total, of_word),
    )
