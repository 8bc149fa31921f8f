"""Candidates of a sentence: chunking, scoring by the model itself or by a teacher, choosing the best."""

from typing import Any, Protocol

import torch
from torch import Tensor

from ..methods.contract import NetInput
from ..methods.symbols import Symbols, closed, shifted


def chunks(rows: Tensor, width: int, limit: int) -> tuple[Tensor, ...]:
    """Cut (R,) rows, canvases of ``width`` tokens, into runs of at most ``limit`` tokens and at least one row."""
    return rows.split(max(1, limit // max(1, width)))


def normalised(total: Tensor, lengths: Tensor, norm: str, lenpen: float) -> Tensor:
    """Candidate scores from summed log-probabilities, (R,) nats.

    ``mean`` divides by the length (mask-predict, section 4.1), ``sum`` by nothing, ``lenpen`` by length^lenpen, as
    fairseq does.
    """
    if norm == "sum":
        return total
    return total / lengths.clamp(min=1).float() ** (lenpen if norm == "lenpen" else 1.0)


def best(scores: Tensor, owner: Tensor, nbest: int) -> list[list[int]]:
    """Of each sentence the rows of its ``nbest`` highest scores, best first: (N,) scores, (N,) sentences, from 0 up.

    Of equals the first proposed wins, so that repeated candidates change nothing.
    """
    ranked = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    chosen: dict[int, list[int]] = {}
    for row, sentence in zip(*torch.stack([ranked, owner[ranked]]).tolist(), strict=True):  # one look at the device
        chosen.setdefault(sentence, []).append(row)
    return [chosen[sentence][:nbest] for sentence in sorted(chosen)]


class Judge(Protocol):
    """What has a say in the choice beside the model's own log-probability."""

    def log_probs(self, tokens: Tensor) -> Tensor:
        """(N, T) candidates as decoded to (N,) log-probabilities in nats."""


class Teacher:
    """Scores candidates by an autoregressive model in one teacher-forced pass.

    Any fairseq encoder-decoder with the task's dictionaries serves, also one trained under ``--task translation``.
    """

    def __init__(self, model: Any, symbols: Symbols) -> None:
        self.model, self.symbols = model, symbols

    def score(self, net_input: NetInput, tokens: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Σ log p(y | x) in nats and the number of tokens, (N,) each, ``</s>`` counted.

        ``net_input``: the sources as they came in the batch; ``tokens``: (N, T) candidates as decoded; ``owner``: (N,)
        the sentence of each. What is scored is what will be read: the candidate's text and one ``</s>``
        (``symbols.closed``); candidates of a sentence that have the same text are scored once. A candidate longer than
        the teacher can read gets −∞.
        """
        target, _ = closed(tokens, self.symbols)
        source = {name: x for name, x in net_input.items() if name != "prev_output_tokens"}
        encoded = self.model.encoder(**source)
        if all(len(x) == len(owner) for x in source.values()):  # one a sentence
            return self.judged(encoded, target)
        distinct, which = torch.cat([owner[:, None], target], 1).unique(dim=0, return_inverse=True)
        encoded = self.model.encoder.reorder_encoder_out(encoded, distinct[:, 0])
        total, count = self.judged(encoded, distinct[:, 1:])
        return total[which], count[which]

    def judged(self, encoded: Any, target: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher-forced pass over (N, T) closed candidates, each with its own encoded source."""
        is_token = target != self.symbols.pad
        count, longest = is_token.sum(1), self.model.max_decoder_positions()
        target, is_token = target[:, :longest], is_token[:, :longest]
        output = self.model.decoder(shifted(target, self.symbols), encoder_out=encoded)
        log_probs = self.model.get_normalized_probs(output, log_probs=True).gather(2, target[..., None])[..., 0]
        total = log_probs.float().masked_fill(~is_token, 0.0).sum(1)
        return total.masked_fill(count > longest, -torch.inf), count
