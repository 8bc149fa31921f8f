"""From logits to words."""

import math

import torch
from torch import Tensor

BLOCK = 64
"""Words of a vocabulary among which the greatest is sought at once."""


def log_probs_of(logits: Tensor, banned: tuple[int, ...]) -> Tensor:
    """(…, V) log-probabilities in nats, −∞ for ``banned`` ids.

    The probability is the model's own over the whole vocabulary: a ban takes no mass away. Float32 logits are
    overwritten: of new memory for as much the system's part alone costs more than all that is computed.
    """
    log_probs = logits.detach().float()
    torch.log_softmax(log_probs, -1, out=log_probs)  # one fused kernel: twice as fast as logsumexp and a difference
    for symbol in banned:
        log_probs[..., symbol] = -torch.inf
    return log_probs


def most_probable(logits: Tensor, banned: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Most probable ids and their log-probabilities as ``log_probs_of`` has them: (…, V) to (…), (…) in nats."""
    best, token = greatest(log_probs_of(logits, banned))
    return token, best


def greatest(x: Tensor) -> tuple[Tensor, Tensor]:
    """As ``x.max(-1)``, which is slow over a vocabulary: the block of the greatest value, then its place. Of equals the
    first."""
    size = x.size(-1)
    if size < 2 * BLOCK:
        return x.max(-1)
    whole = size - size % BLOCK
    blocks = x[..., :whole].unflatten(-1, (-1, BLOCK)).amax(-1)
    if whole < size:
        blocks = torch.cat([blocks, x[..., whole:].amax(-1, keepdim=True)], -1)
    # the last block begins where it is whole; what it shares with the one before is less, or that one was chosen
    first = (blocks.argmax(-1, keepdim=True) * BLOCK).clamp(max=size - BLOCK)
    best, place = x.gather(-1, first + torch.arange(BLOCK, device=x.device)).max(-1)
    return best, first[..., 0] + place


def greatest_few(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` greatest of (…, V), falling, and their places: (…, count) each. Of equals the first, so that those
    of ``greatest`` come first. ``x`` is overwritten."""
    found = []
    for _ in range(count):
        best, place = greatest(x)
        found.append((best, place))
        x.scatter_(-1, place[..., None], -torch.inf)
    best, places = (torch.stack(parts, -1) for parts in zip(*found, strict=True))
    return best, places


def sampled(logits: Tensor, draw: Tensor) -> Tensor:
    """Ids drawn from the softmax of (…, V) logits by a number each in [0, 1), (…): the inverse of the cumulated
    probabilities, so that one number decides, whatever the batch."""
    cumulated = logits.float().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated, (draw * cumulated[..., -1])[..., None].contiguous(), right=True)[..., 0]


def mean_log_probs(logits: Tensor) -> Tensor:
    """Log of the mean of several runs' probabilities, in nats: (R, N, …, V) logits to (R, …, V)."""
    return logits.float().log_softmax(-1).logsumexp(1) - math.log(logits.size(1))
