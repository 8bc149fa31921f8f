"""Randomness that depends on what it is for, not on when it is drawn.

Each number is a hash of (key, position): a sentence's noise is the same alone, in any batch, on any shard, after a
resume and whatever the padding. The mixer is SplitMix64 (Steele, Lea & Flood 2014) on wrapping int64.
"""

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """A bijective hash of int64 tensors of any shape."""
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def fold(keys: Tensor, part: Tensor | int) -> Tensor:
    """New keys from keys (B,) and one more thing they depend on: a candidate's number, a step, an id (B,)."""
    return mix(keys * 3 + mix(torch.as_tensor(part, device=keys.device, dtype=torch.int64) + _GOLDEN))


def training_keys(seed: int, epoch: int, ids: Tensor) -> Tensor:
    """(B,) keys from (seed, epoch, sentence id)."""
    return fold(fold(torch.full_like(ids, seed), epoch), ids)


def source_keys(source: Tensor, is_token: Tensor) -> Tensor:
    """(B,) keys from the (B, S) right-padded source ids alone: programs that give no sentence id agree."""
    places = torch.arange(1, source.size(1) + 1, device=source.device) * _GOLDEN
    return (mix(source.long() + places) * is_token).sum(1)


def decoding_keys(seed: int, keys: Tensor) -> Tensor:
    """(B,) keys of a decode from ``--seed`` and the (B,) keys of its sources."""
    return fold(torch.full_like(keys, seed), keys)


def candidate_keys(keys: Tensor, n: int) -> Tensor:
    """(B,) keys to those of ``n`` candidates each, sentence-major: (B * n,)."""
    return fold(keys.repeat_interleave(n), torch.arange(n, device=keys.device).repeat(len(keys)))


def uniform(keys: Tensor, width: int) -> Tensor:
    """(B,) keys to (B, width) float32 numbers in [0, 1), 24 bits each."""
    places = torch.arange(1, width + 1, device=keys.device) * _GOLDEN
    return _shift(mix(keys[:, None] + places), 40).float() * 2.0**-24


def subset(keys: Tensor, is_member: Tensor, counts: Tensor) -> Tensor:
    """(B, T) True at a uniform subset of ``counts`` (B,) of each row's members."""
    draw = uniform(keys, is_member.size(1)).masked_fill(~is_member, 2.0)
    return draw.argsort(dim=1, stable=True).argsort(dim=1, stable=True) < counts[:, None]
