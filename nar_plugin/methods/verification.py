"""Which drafted tokens a verifier accepts, and what it says after them.

Greedy rules: Stern, Shazeer & Uszkoreit 2018 (arXiv 1811.03115, section 5). A draft is accepted where it is the most
probable token (``exact``), among the ``top-k`` most probable ones, or, for words that are numbers, within a
``distance`` of the most probable one. ``</s>`` is always exact: by no rule it comes where it is not the most probable
token, nor is it replaced.

Sampling: the rule of Leviathan, Kalman & Matias 2022 (arXiv 2211.17192) and Chen et al. 2023 (arXiv 2302.01318), token
by token, and that of Sun et al. 2024 (arXiv 2403.10444), which judges the whole block and accepts no fewer. Either way
what comes out is distributed as samples of the verifier alone, whatever the drafts are.

A block holds the last accepted token and G drafts behind it. Shapes: ``R`` rows, ``V`` words; place i of (R, G + 1, V)
is what the verifier says after i drafts, so that draft i (from 0) is judged by place i. Rows may have fewer drafts:
``is_draft`` (R, G) is True at those that there are, from the left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import Rows


@dataclass(frozen=True, kw_only=True)
class Rule(Rows):
    """A greedy rule. ``min_block``: so many tokens a call are accepted whatever the verifier says, the one that it says
    itself among them (section 5.3); 1: none."""

    accept: str = "exact"
    top_k: int = 2
    distance: int = 2
    min_block: int = 1


class Verdict(NamedTuple):
    """``accepted``: (R,) how many drafts are; ``following``: (R,) the verifier's own token behind them."""

    accepted: Tensor
    following: Tensor


def leading(is_right: Tensor) -> Tensor:
    """(R, G) to (R,): how many are True before the first that is not."""
    return is_right.long().cumprod(1).sum(1)


def is_near(rule: Rule, drafts: Tensor, log_probs: Tensor, best: Tensor) -> Tensor:
    """(R, G) where a draft is near enough to the best token by a rule that is not exact.

    The rank of a draft counts the words that are strictly more probable, so that equals do no harm.
    """
    if rule.accept == "distance":
        return (drafts - best).abs() <= rule.distance
    own = log_probs.gather(2, drafts[..., None])
    return (log_probs > own).sum(2) < rule.top_k


def verified(rule: Rule, drafts: Tensor, is_draft: Tensor, log_probs: Tensor, best: Tensor, eos: int) -> Verdict:
    """(R, G) drafts against (R, G + 1, V) log-probabilities and the (R, G + 1) most probable tokens by them."""
    said, width = best[:, :-1], drafts.size(1)
    is_right = drafts == said
    if rule.accept != "exact" or rule.min_block > 1:
        is_owed = (torch.arange(width, device=drafts.device) < rule.min_block - 1).expand_as(drafts)
        if rule.accept != "exact":
            is_owed = is_owed | is_near(rule, drafts, log_probs[:, :-1], said)
        is_right = is_right | (is_owed & (drafts != eos) & (said != eos))
    count = leading(is_right & is_draft)
    return Verdict(count, best.gather(1, count[:, None])[:, 0])


def truncated(log_probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """(…, V) log-probabilities to the probabilities that fairseq's ``--sampling`` draws by, which sum to 1: of the
    fewest words that make up ``top_p``, else of the ``top_k`` most probable ones, else of all."""
    probs = log_probs.exp()
    if top_p > 0:
        ranked, order = probs.sort(-1, descending=True)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ranked)
    elif top_k > 0:
        ranked, order = probs.topk(min(top_k, probs.size(-1)), -1)
        probs = torch.zeros_like(probs).scatter(-1, order, ranked)
    return probs / probs.sum(-1, keepdim=True)


def drawn(weights: Tensor, draw: Tensor) -> Tensor:
    """Ids drawn in proportion to (…, V) weights by a number each in [0, 1), (…). One of weight 0 is never drawn."""
    cumulated = weights.double().cumsum(-1)
    value = (draw.double() * cumulated[..., -1])[..., None].contiguous()
    return torch.searchsorted(cumulated.contiguous(), value, right=True)[..., 0].clamp(max=weights.size(-1) - 1)


def residual(probs: Tensor, draft_probs: Tensor) -> Tensor:
    """max(p − q, 0) of (R, V) probabilities, not normalised; p itself where nothing is left of it."""
    rest = (probs - draft_probs).clamp(min=0.0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, probs)


def with_last(draft_probs: Tensor | None, drafts: Tensor, is_draft: Tensor, size: int) -> Tensor:
    """(R, G + 1, V) probabilities by which the drafts were drawn, 0 where there is none; a draft that was not drawn has
    all of the probability."""
    known = F.one_hot(drafts, size).to(torch.float32) if draft_probs is None else draft_probs
    return F.pad(known.masked_fill(~is_draft[..., None], 0.0), (0, 0, 0, 1))


def accepted_tokens(ratio: Tensor, draws: Tensor, is_draft: Tensor) -> Tensor:
    """(R,) drafts that the token rule accepts: each with probability min(1, p / q), (R, G) ``ratio``, up to the first
    that is refused."""
    return leading((draws < ratio) & is_draft)


def accepted_block(probs: Tensor, draft_probs: Tensor, ratio: Tensor, draws: Tensor, is_draft: Tensor) -> Verdict:
    """(R,) drafts that block verification accepts, and, in place of a token, by which share (R,) of p what follows is
    weighed.

    With w₀ = 1 and wᵢ = min(wᵢ₋₁ p(xᵢ) / q(xᵢ), 1), the first i drafts are enough with probability
    hᵢ = ρᵢ / (ρᵢ + 1 − wᵢ), where ρᵢ = Σ max(wᵢ p − q, 0) at place i; the longest that are enough are accepted
    (algorithm 2). Where there is no further draft, q is 0 and hᵢ = wᵢ.
    """
    walk = F.pad(ratio.double().log().cumsum(1), (1, 0))  # log wᵢ is how far it is below its maximum so far
    share = (walk - walk.cummax(1).values).exp().to(probs.dtype)
    rest = (share[..., None] * probs - draft_probs).clamp(min=0.0).sum(2)
    enough = rest / (rest + 1 - share).clamp(min=torch.finfo(rest.dtype).tiny)
    is_enough = F.pad((draws < enough[:, 1:]) & is_draft, (1, 0))
    places = torch.arange(is_enough.size(1), device=ratio.device)
    count = (is_enough * places).amax(1)
    return Verdict(count, share.gather(1, count[:, None])[:, 0])


def sampled(
    drafts: Tensor,
    is_draft: Tensor,
    probs: Tensor,
    draft_probs: Tensor | None,
    draws: Tensor,
    *,
    by_block: bool = False,
) -> Verdict:
    """Speculative sampling: (R, G) drafts, drawn by (R, G, V) ``draft_probs``, become samples of (R, G + 1, V)
    ``probs``.

    ``draft_probs``: None where drafts were not drawn but follow from what is known: each then had probability 1.
    ``draws``: (R, G + 1) numbers in [0, 1), independent of each other and of those that drew the drafts; the last
    draws the token behind what is accepted.
    """
    known = with_last(draft_probs, drafts, is_draft, probs.size(2))
    own, theirs = (x[:, :-1].gather(2, drafts[..., None])[..., 0] for x in (probs, known))
    ratio = own / theirs.clamp(min=torch.finfo(theirs.dtype).tiny)
    if by_block:
        count, share = accepted_block(probs, known, ratio, draws[:, :-1], is_draft)
    else:
        count, share = accepted_tokens(ratio, draws[:, :-1], is_draft), torch.ones_like(draws[:, 0])
    at = count[:, None, None].expand(-1, 1, probs.size(2))
    there, of_draft = probs.gather(1, at)[:, 0], known.gather(1, at)[:, 0]
    # what is behind all drafts, or behind fewer of a row, is no residual: q is 0 there
    rest = residual(share[:, None] * there, of_draft)
    return Verdict(count, drawn(rest, draws[:, -1]))
