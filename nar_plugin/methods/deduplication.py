"""Optimal de-duplicated decoding: of the words that a pass makes probable, those that are the most probable together
where no two in a row may be equal, or where two equal ones cost something (Sun & Yang 2020, arXiv 2006.16378).

Positions of a parallel decoder know nothing of each other, so that neighbours often say the same word. Here the words y
of the greatest Σ log p_i(y_i) − λ Σ [y_i = y_(i+1)] are found, exactly; the length stays, which it does not where
repeated words are dropped. λ is infinite in the paper.

Three words a position are enough: if y_i is none of its three most probable ones, at least one of these differs from
both neighbours, and to say it instead neither lowers the first sum nor makes two words equal. Two are not enough. So a
recursion from left to right has three states.

``</s>`` is no word: where a canvas is too long, it may be said at several last positions.
"""

import torch
from torch import Tensor

CHOICES = 3
"""Words of a position among which the best is."""


def together(words: Tensor, scores: Tensor, is_token: Tensor, penalty: float, end: int) -> tuple[Tensor, Tensor]:
    """(R, T, C) words of each position, the most probable first, and their log-probabilities in nats to the (R, T) most
    probable words together, and theirs.

    ``is_token``: (R, T) False at padding on the right, which has no say. ``penalty``: λ in nats, 0 or more. ``end``:
    ``</s>``. Of equally good ones, a position has its first word where it can.
    """
    lost = (scores[..., :1].double() - scores).masked_fill(~is_token[..., None], 0.0)
    before, after = words[:, :-1, :, None], words[:, 1:, None, :]
    is_repeated = (before == after) & (after != end) & is_token[:, 1:, None, None]
    fee = torch.zeros(is_repeated.shape, dtype=lost.dtype, device=lost.device).masked_fill(is_repeated, penalty)
    choice = least(lost, fee)[..., None]
    return words.gather(2, choice)[..., 0], scores.gather(2, choice)[..., 0]


def least(lost: Tensor, fee: Tensor) -> Tensor:
    """The (R, T) choices whose sum of (R, T, C) costs and of (R, T − 1, C, C) costs of neighbours is the least."""
    total, origins = lost[:, 0], []
    for place in range(1, lost.size(1)):
        reached, origin = (total[..., None] + fee[:, place - 1]).min(1)
        total = reached + lost[:, place]
        origins.append(origin)
    path = [total.argmin(1, keepdim=True)]
    for origin in reversed(origins):
        path.append(origin.gather(1, path[-1]))
    return torch.cat(path[::-1], 1)
