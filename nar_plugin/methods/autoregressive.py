"""One code after the other: the search for sequences of codes of known lengths, with what was read kept (a cache).

There is no end symbol among codes: a row's number of codes is known before the first is chosen. A row that has all of
its codes goes on beside longer ones, and what it is given then changes nothing.

Shapes: ``B`` sentences, ``N`` sequences of each, ``M`` codes of the longest, ``K`` codes there are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import noise

Read = Callable[[Any, Tensor | None, int], tuple[Tensor, Any]]
"""(state, (R,) codes chosen last or None at the beginning, the step) to (R, K) logits and the next state."""
Select = Callable[[Any, Tensor], Any]
"""(state, (R,) rows) to the state of those rows, repeats allowed."""


class Sequences(NamedTuple):
    """``codes``: (B * N, M) int64, 0 beyond a row's own; ``scores``: (B * N,) their log-probability in nats."""

    codes: Tensor
    scores: Tensor


def drawn(read: Read, state: Any, lengths: Tensor, keys: Tensor | None, temperature: float) -> Sequences:
    """Codes drawn by softmax(logits / ``temperature``), one sequence for each of (R,) lengths.

    ``keys``: (R,) noise keys, 0 where the most probable code is taken; None: everywhere. Scores are those of the model,
    at temperature 1.
    """
    steps = int(lengths.max()) if len(lengths) else 0
    codes, total, last = lengths.new_zeros(len(lengths), steps), torch.zeros_like(lengths, dtype=torch.float32), None
    for step in range(steps):
        logits, state = read(state, last, step)
        logits = logits.float()
        last = logits.argmax(1)
        if keys is not None:
            draw = noise.uniform(noise.fold(keys, step), 1).double()
            cumulated = (logits.double() / temperature).softmax(1).cumsum(1)
            chosen = torch.searchsorted(cumulated, draw * cumulated[:, -1:], right=True)[:, 0]
            last = torch.where(keys == 0, last, chosen.clamp(max=logits.size(1) - 1))
        is_open = step < lengths
        score = logits.log_softmax(1).gather(1, last[:, None])[:, 0]
        total = total + score.masked_fill(~is_open, 0.0)
        codes[:, step] = last.masked_fill(~is_open, 0)
    return Sequences(codes, total)


def beam(read: Read, select: Select, state: Any, lengths: Tensor, n: int) -> Sequences:
    """The ``n`` best sequences of a beam search for each of (B,) lengths, best first, sentence-major.

    All sequences of a sentence are as long, so that there is no penalty for length. Where there are fewer sequences
    than ``n``, the last ones repeat the best.
    """
    rows = len(lengths)
    steps = int(lengths.max()) if rows else 0
    codes = lengths.new_zeros(rows, n, steps)
    scores = torch.full((rows, n), -torch.inf, device=lengths.device)
    scores[:, 0] = 0.0
    first = torch.arange(rows, device=lengths.device)[:, None]
    last: Tensor | None = None
    state = select(state, first.expand(-1, n).flatten())
    for step in range(steps):
        logits, state = read(state, last, step)
        log_probs = logits.float().log_softmax(1).unflatten(0, (rows, n))
        is_open = (step < lengths)[:, None]
        size = log_probs.size(2)
        total = scores[..., None] + log_probs
        best, place = total.flatten(1).topk(n, 1) if size * n >= n else (scores, scores.long())
        parent = torch.where(is_open, place // size, torch.arange(n, device=place.device))
        chosen = torch.where(is_open, place % size, 0)
        scores = torch.where(is_open, best, scores)
        codes = codes.gather(1, parent[..., None].expand(-1, -1, steps))
        codes[..., step] = chosen
        last = chosen.flatten()
        state = select(state, (first * n + parent).flatten())
    is_real = scores > -torch.inf
    codes = torch.where(is_real[..., None], codes, codes[:, :1])
    scores = torch.where(is_real, scores, scores[:, :1])
    return Sequences(codes.flatten(0, 1), scores.flatten())
