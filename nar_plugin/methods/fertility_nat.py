"""Fertilities: how many words of a translation each word of its source becomes, and what follows from them.

Gu, Bradbury, Xiong, Li & Socher 2018, "Non-Autoregressive Neural Machine Translation", arXiv 1711.02281. A decoder
reads each source word as often as its fertility says; fertilities are classes 0 … 49 of a source position; translations
are sought among several vectors of them (noisy parallel decoding).

``</s>`` ends source and target, and the one becomes the other: the last token of a source has the fertility 1, which
nobody predicts. So fertilities add up to the target's tokens, and no canvas is empty. S and T count ``</s>``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import prediction
from .source_copy import Source
from .transformer import Memory, Stack, TokenEmbedding

CLASSES = 50
"""Fertilities are 0 … 49."""
MOST = 2
"""A target has at most so many times the tokens of its source (released code, there of the longest source)."""


def is_word(lengths: Tensor, width: int) -> Tensor:
    """(B,) source lengths to (B, width) True at the words, all tokens but the last one."""
    return torch.arange(width, device=lengths.device) < lengths[:, None] - 1


def pinned(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """(B, S, 50) log-probabilities with what is certain: the end has the fertility 1, padding 0."""
    known = (torch.arange(log_probs.size(1), device=lengths.device) == lengths[:, None] - 1).long()
    certain = torch.zeros_like(log_probs).masked_fill(F.one_hot(known, log_probs.size(2)) == 0, -torch.inf)
    return torch.where(is_word(lengths, log_probs.size(1))[..., None], log_probs, certain)


def source_places(fertilities: Tensor, lengths: Tensor, width: int) -> Tensor:
    """(B, S) fertilities to the (B, width) source positions that are copied: each as often as its fertility, in order.

    Beyond their sum the last token is repeated.
    """
    ends = fertilities.cumsum(1)
    targets = torch.arange(width, device=ends.device).expand(len(ends), -1).contiguous()
    return torch.minimum(torch.searchsorted(ends, targets, right=True), lengths[:, None] - 1)


def most_probable(log_probs: Tensor) -> Tensor:
    """(B, S, 50) to the (B, S) most probable fertilities."""
    return log_probs.argmax(-1)


def average(log_probs: Tensor) -> Tensor:
    """(B, S, 50) to the (B, S) expected fertilities, rounded."""
    return (log_probs.exp() * torch.arange(log_probs.size(2), device=log_probs.device)).sum(-1).round().long()


def sampled(log_probs: Tensor, draw: Tensor, temperature: float = 1.0) -> Tensor:
    """(R, S, 50) to (R, S) fertilities as (R, S) numbers in [0, 1) choose them."""
    return prediction.sampled(log_probs / temperature, draw)


def searched(log_probs: Tensor, n: int) -> Tensor:
    """(B, S, 50) to the (B, n, S) most probable vectors of fertilities, best first, each once; exact.

    Halves of a source are searched and joined: of two lists the n best sums are among the pairs whose ranks, from 1,
    multiply to n at most. Where there are fewer than n vectors, the best one is repeated.
    """
    width = log_probs.size(1)
    scores, classes = log_probs.topk(min(n, log_probs.size(2)), -1)
    vectors = classes[..., None]
    while scores.size(1) > 1:
        if scores.size(1) % 2:  # one more place, which has the fertility 0
            nothing = torch.full_like(scores[:, :1], -torch.inf)
            nothing[..., 0] = 0.0
            scores, vectors = torch.cat([scores, nothing], 1), F.pad(vectors, (0, 0, 0, 0, 0, 1))
        first, second = rank_pairs(scores.size(2), n, scores.device)
        sums = scores[:, 0::2, first] + scores[:, 1::2, second]
        scores, chosen = sums.topk(min(n, sums.size(2)), -1)
        halves = zip((vectors[:, 0::2], vectors[:, 1::2]), (first[chosen], second[chosen]), strict=True)
        vectors = torch.cat([half.gather(2, at[..., None].expand(*at.shape, half.size(3))) for half, at in halves], -1)
    found, is_there = vectors[:, 0, :, :width], scores[:, 0] > -torch.inf
    found = torch.where(is_there[..., None], found, found[:, :1])
    return torch.cat([found, found[:, :1].expand(-1, n - found.size(1), -1)], 1)


def rank_pairs(size: int, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pairs of ranks, from 0, of two lists of ``size`` among which the ``n`` best sums are."""
    pairs = [(i, j) for i in range(min(size, n)) for j in range(min(size, n // (i + 1)))]
    first, second = torch.tensor(pairs, device=device).unbind(1)
    return first, second


def bounded(fertilities: Tensor, log_probs: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Fertilities whose sum is a length that can be: (R, S) to (R, S).

    From left to right, words beyond twice the sentence's own tokens, or ``longest``, are cut off. A sentence that would
    have no word has one of the word that least probably has none.
    """
    words = is_word(lengths, fertilities.size(1))
    most = (MOST * lengths).clamp(max=longest)[:, None] - 1
    kept = fertilities.masked_fill(~words, 0)
    kept = torch.minimum(kept, (most - (kept.cumsum(1) - kept)).clamp(min=0))
    one = F.one_hot(log_probs[..., 0].masked_fill(~words, torch.inf).argmin(1), kept.size(1))
    kept = torch.where((kept.sum(1, keepdim=True) == 0) & words, one, kept)
    return kept.scatter(1, lengths[:, None] - 1, 1)


def apportioned(log_probs: Tensor, lengths: Tensor, totals: Tensor) -> Tensor:
    """(B, S) fertilities that sum to (B,) ``totals``: expected ones, scaled, rounded by the largest remainders."""
    words = is_word(lengths, log_probs.size(1))
    expected = (log_probs.exp() * torch.arange(log_probs.size(2), device=log_probs.device)).sum(-1) + 1e-3
    shares = expected.masked_fill(~words, 0.0).double()
    shares = shares * ((totals - 1)[:, None] / shares.sum(1, keepdim=True).clamp(min=1e-9))
    whole = shares.floor()
    left = (totals - 1 - whole.sum(1).long())[:, None]
    rank = (shares - whole).masked_fill(~words, -1.0).argsort(dim=1, descending=True, stable=True).argsort(1)
    return (whole.long() + ((rank < left) & words)).scatter(1, lengths[:, None] - 1, 1)


def of_length(log_probs: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable (B, S) fertilities among those that sum to (B,) ``totals``, and their (B,) log-probability:
    −∞, beside any fertilities, where there are none. That of ``most_probable`` where those have that sum.

    A dynamic program over the places of a source: the best beginning of every sum.
    """
    classes, width = log_probs.size(2), int(totals.max()) + 1
    best = log_probs.new_full((len(log_probs), width), -torch.inf)
    best[:, 0] = 0.0
    choices = []
    for place in range(log_probs.size(1)):
        before = F.pad(best, (classes - 1, 0), value=-torch.inf).unfold(1, classes, 1)
        best, chosen = (before + log_probs[:, place, None].flip(-1)).max(-1)
        choices.append(classes - 1 - chosen)
    total, found = totals[:, None], []
    for chosen in reversed(choices):
        found.append(chosen.gather(1, total.clamp(min=0)))
        total = total - found[-1]
    return torch.cat(found[::-1], 1), best.gather(1, totals[:, None])[:, 0]


def log_prob(log_probs: Tensor, fertilities: Tensor) -> Tensor:
    """(B, S, 50) and (B, S) to (B,): log p(f | x), the places being independent of each other."""
    return log_probs.gather(2, fertilities.clamp(max=log_probs.size(2) - 1)[..., None])[..., 0].sum(1)


def divergence(logits: Tensor, teacher: Tensor, has_entropy: bool) -> Tensor:
    """(M, V) logits and log-probabilities of a teacher to (M,) nats: KL(student ‖ teacher), or without the student's
    entropy, as released, the cross-entropy of the student's words under the teacher (L_RKL)."""
    log_probs = logits.float().log_softmax(-1)
    gain = log_probs - teacher if has_entropy else -teacher
    return (log_probs.exp() * gain).sum(-1)


def reinforced(log_probs: Tensor, fertilities: Tensor, loss: Tensor, baseline: Tensor) -> Tensor:
    """(B,) whose gradient is that of the expected loss, estimated by the (B,) loss of the (B, S) drawn fertilities less
    that of average ones (L_RL): (R(f) − R(f̄)) log p(f | x)."""
    return (loss - baseline).detach() * log_prob(log_probs, fertilities)


class Encoder(Source):
    """The source: its embeddings, which are copied, its memory layer by layer, and the fertilities of its words."""

    def __init__(
        self, embedding: TokenEmbedding, encoder: Stack, decoder: Stack, head: nn.Linear, attends_top: bool
    ) -> None:
        super().__init__(embedding, encoder, attends_top)
        self.decoder, self.head = decoder, head

    def forward(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Memory, ...], Tensor]:
        """(B, S) ids to (B, S, D) embeddings, the memory, and (B, S, 50) log-probabilities."""
        copied, states, attended = self.read(source, mask)
        return copied, self.decoder.memory(attended), self.head(states[-1]).float().log_softmax(-1)
