"""From logits to words."""

import math

import torch
from torch import Tensor


def most_probable(logits: Tensor, banned: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Most probable ids and their log-probabilities, ``banned`` ids excepted: (…, V) to (…), (…) in nats.

    The probability is the model's own over the whole vocabulary: a ban takes no mass away.
    """
    log_probs = logits.float().log_softmax(-1)  # one fused kernel: twice as fast as logsumexp and a difference
    for symbol in banned:
        log_probs[..., symbol] = -torch.inf
    best, token = greatest(log_probs)
    return token, best


def greatest(x: Tensor) -> tuple[Tensor, Tensor]:
    """As ``x.max(-1)``, which is slow over a vocabulary: first the block of the greatest value, then its place."""
    size = math.gcd(x.size(-1), 64)
    if size < 8:
        return x.max(-1)
    blocks = x.unflatten(-1, (-1, size))
    block = blocks.amax(-1).argmax(-1, keepdim=True)
    best, place = blocks.take_along_dim(block[..., None], -2).squeeze(-2).max(-1)
    return best, block.squeeze(-1) * size + place


def sampled(logits: Tensor, draw: Tensor) -> Tensor:
    """Ids drawn from the softmax of (…, V) logits by a number each in [0, 1), (…): the inverse of the cumulated
    probabilities, so that one number decides, whatever the batch."""
    cumulated = logits.float().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulated, (draw * cumulated[..., -1])[..., None].contiguous(), right=True)[..., 0]


def mean_log_probs(logits: Tensor) -> Tensor:
    """Log of the mean of several runs' probabilities, in nats: (R, N, …, V) logits to (R, …, V)."""
    return logits.float().log_softmax(-1).logsumexp(1) - math.log(logits.size(1))
