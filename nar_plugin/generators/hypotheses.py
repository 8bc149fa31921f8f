"""The form in which fairseq's programs take what was decoded."""

from typing import Any, NamedTuple, Sequence

import torch
from torch import Tensor

Hypothesis = dict[str, Any]


class Step(NamedTuple):
    """One row after one pass: (T,) ids and log-probabilities, maybe padded, and () the extra one, in nats."""

    tokens: Tensor
    scores: Tensor
    extra: Tensor


def hypothesis(
    tokens: Tensor, scores: Tensor, score: Tensor, pad: int, steps: int = 0, history: Sequence[Step] = ()
) -> Hypothesis:
    """One hypothesis, on the host: (T,) ids and (T,) log-probabilities in nats, padding dropped."""
    is_token = tokens != pad
    return {
        "tokens": tokens[is_token],
        "positional_scores": scores[is_token],  # a copy, which the host divides in place
        "score": score,
        "attention": None,
        "alignment": torch.empty(0),
        "steps": steps,
        "history": [{"tokens": t[t != pad], "positional_scores": s[t != pad]} for t, s, _ in history],
    }


def empty(eos: int) -> Hypothesis:
    """What answers a source without a token: ``</s>`` alone, of probability 1."""
    return hypothesis(torch.tensor([eos]), torch.zeros(1), torch.zeros(()), pad=-1)
