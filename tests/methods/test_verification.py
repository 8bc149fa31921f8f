"""Which drafts are accepted, against plain loops; and that sampling with drafts samples from the verifier alone."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import verification
from nar_plugin.methods.verification import Rule

EOS, WORDS, ROWS, DRAFTS = 2, 9, 300, 5


def batch(seed: int, words: int = WORDS, drafts: int = DRAFTS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Drafts, many of them right, where there are any, log-probabilities and the best tokens."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(ROWS, drafts + 1, words, generator=generator).log_softmax(-1)
    log_probs = (log_probs * 4).round() / 4  # some are equal
    best = log_probs.max(-1).indices
    is_right = torch.rand(ROWS, drafts, generator=generator) < 0.7
    others = torch.randint(0, words, (ROWS, drafts), generator=generator)
    counts = torch.randint(0, drafts + 1, (ROWS, 1), generator=generator)
    return torch.where(is_right, best[:, :-1], others), torch.arange(drafts) < counts, log_probs, best


def accepted_by_hand(rule: Rule, drafts: list[int], log_probs: list[list[float]], best: list[int]) -> int:
    """One row, draft by draft."""
    for i, draft in enumerate(drafts):
        if draft == best[i]:
            continue
        if EOS in (draft, best[i]):
            return i
        rank = sum(one > log_probs[i][draft] for one in log_probs[i])
        is_near = {
            "exact": False,
            "top-k": rank < rule.top_k,
            "distance": abs(draft - best[i]) <= rule.distance,
        }[rule.accept]
        if not is_near and i + 1 >= rule.min_block:
            return i
    return len(drafts)


RULES = [
    Rule(),
    Rule(min_block=3),
    Rule(accept="top-k", top_k=1),
    Rule(accept="top-k", top_k=3),
    Rule(accept="top-k", top_k=2, min_block=2),
    Rule(accept="distance", distance=0),
    Rule(accept="distance", distance=2),
    Rule(accept="distance", distance=1, min_block=6),
]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_accepts_what_a_loop_over_the_drafts_accepts(rule: Rule) -> None:
    drafts, is_draft, log_probs, best = batch(seed=1)
    found = verification.verified(rule, drafts, is_draft, log_probs, best, EOS)
    for row in range(ROWS):
        there = drafts[row][is_draft[row]].tolist()
        expected = accepted_by_hand(rule, there, log_probs[row].tolist(), best[row].tolist())
        assert found.accepted[row] == expected and found.following[row] == best[row, expected]
    assert len(set(found.accepted.tolist())) == DRAFTS + 1, "all numbers of drafts"


def test_the_nearest_of_the_rules_are_the_exact_one() -> None:
    """BPD-8: among the first one, within a distance of 0, a block of one: each is ``exact``."""
    given = batch(seed=2)
    exact = verification.verified(Rule(), *given, EOS)
    for rule in (Rule(accept="top-k", top_k=1), Rule(accept="distance", distance=0), Rule(min_block=1)):
        drafts, is_draft, log_probs, best = given
        distinct = log_probs + 1e-4 * torch.arange(WORDS).flip(0)  # the first of equals is the best
        assert torch.equal(verification.verified(rule, drafts, is_draft, distinct, best, EOS).accepted, exact.accepted)


@pytest.mark.parametrize(("accept", "name"), [("top-k", "top_k"), ("distance", "distance")])
def test_a_wider_rule_accepts_no_less(accept: str, name: str) -> None:
    """BPD-9: the more words are allowed, the more drafts are accepted, of the same prefix."""
    given = batch(seed=3)
    counts = [
        verification.verified(Rule(accept=accept, **{name: value}), *given, EOS).accepted for value in range(1, WORDS)
    ]
    assert all(bool((wide >= narrow).all()) for narrow, wide in zip(counts, counts[1:], strict=False))
    assert int(counts[-1].sum()) > int(counts[0].sum())


@pytest.mark.parametrize("rule", RULES)
def test_the_end_is_exact_by_every_rule(rule: Rule) -> None:
    """BPD-10: an end that is not the best is refused, and no word stands in for an end that is."""
    log_probs = torch.full((2, 2, WORDS), -9.0)
    log_probs[0, 0, [5, EOS]] = torch.tensor([-0.1, -0.2])  # a word, and the end is drafted
    log_probs[1, 0, [EOS, 3]] = torch.tensor([-0.1, -0.2])  # the end, and a near word is drafted
    best, drafts = log_probs.max(-1).indices, torch.tensor([[EOS], [3]])
    found = verification.verified(rule, drafts, torch.ones(2, 1, dtype=torch.bool), log_probs, best, EOS)
    assert found.accepted.tolist() == [0, 0] and found.following.tolist() == [5, EOS]


# --- sampling


def tables(words: int, seed: int, sharpness: float = 1.5) -> tuple[Tensor, Tensor]:
    """(words, words) probabilities of the next word given the last: of the verifier, and of the drafter."""
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, words, words, generator=generator, dtype=torch.float64)
    return (sharpness * p).softmax(-1), (sharpness * q).softmax(-1)


Rounds = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], verification.Verdict]


def by_tokens(drafts: Tensor, is_draft: Tensor, probs: Tensor, known: Tensor, draws: Tensor) -> verification.Verdict:
    return verification.sampled(drafts, is_draft, probs, known, draws)


def by_blocks(drafts: Tensor, is_draft: Tensor, probs: Tensor, known: Tensor, draws: Tensor) -> verification.Verdict:
    return verification.sampled(drafts, is_draft, probs, known, draws, by_block=True)


def chain(table: Tensor, first: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """(N, length) words, each drawn given the one before."""
    found = [first]
    for _ in range(length):
        found.append(torch.multinomial(table[found[-1]], 1, generator=generator)[:, 0])
    return torch.stack(found[1:], 1)


def rounds(rule: Rounds, p: Tensor, q: Tensor, drafts: int, n: int, *, least: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, drafts + 1) words of one call each, completed by words of p, and how many were accepted. A row has from
    ``least`` to all of the drafts."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.zeros(n, dtype=torch.int64)
    drafted = chain(q, start, drafts, generator)
    before = torch.cat([start[:, None], drafted], 1)
    is_draft = torch.arange(drafts) < torch.randint(least, drafts + 1, (n, 1), generator=generator)
    draws = torch.rand(n, drafts + 1, generator=generator)
    count, following = rule(drafted, is_draft, p[before], q[before[:, :-1]], draws)
    said = torch.cat([drafted, following[:, None]], 1).scatter(1, count[:, None], following[:, None])
    rest = chain(p, following, drafts, generator)
    places = torch.arange(drafts + 1)
    later = torch.cat([following[:, None], rest], 1).gather(1, (places - count[:, None]).clamp(min=0))
    return torch.where(places <= count[:, None], said, later), count


def z_of(words: Tensor, p: Tensor) -> float:
    """How many deviations the chi-square of the words' joint distribution is above its mean."""
    size, length = len(p), words.size(1)
    powers = size ** torch.arange(length - 1, -1, -1)
    found = torch.bincount((words * powers).sum(1), minlength=size**length).double()
    joint = p[0]
    for _ in range(length - 1):
        joint = (joint.view(-1, size)[..., None] * p).flatten()
    expected = joint * len(words)
    chi, freedom = ((found - expected) ** 2 / expected).sum(), size**length - 1
    return float((chi - freedom) / math.sqrt(2 * freedom))


RULES_OF_SAMPLING = {"tokens": by_tokens, "blocks": by_blocks}


@pytest.mark.parametrize("rule", RULES_OF_SAMPLING)
@pytest.mark.parametrize("least", [0, 2])
def test_drafts_become_samples_of_the_verifier(rule: str, least: int) -> None:
    """BPD-20: the joint distribution of three words is the verifier's, by either rule, with rows of fewer drafts."""
    p, q = tables(4, seed=6)
    words, count = rounds(RULES_OF_SAMPLING[rule], p, q, 2, 60_000, least=least, seed=6)
    assert abs(z_of(words, p)) < 4
    assert set(count.tolist()) == {0, 1, 2}


def test_the_test_of_samples_finds_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that draws from the verifier itself after a refusal, not from what is left, is far off."""
    p, q = tables(4, seed=6)
    monkeypatch.setattr(verification, "residual", lambda probs, draft_probs: probs)
    for rule in (by_tokens, by_blocks):
        words, _ = rounds(rule, p, q, 2, 60_000, least=2, seed=6)
        assert z_of(words, p) > 20


def test_drafts_that_were_not_drawn_become_samples_too() -> None:
    """A drafter that always says the same has probability 1 for it."""
    p, _ = tables(4, seed=7)
    certain = torch.eye(4, dtype=torch.float64)[torch.tensor([1, 2, 3, 1])]

    def rule(drafts: Tensor, is_draft: Tensor, probs: Tensor, known: Tensor, draws: Tensor) -> verification.Verdict:
        return verification.sampled(drafts, is_draft, probs, None, draws)

    words, count = rounds(rule, p, certain, 2, 60_000, least=0, seed=8)
    assert abs(z_of(words, p)) < 4 and set(count.tolist()) == {0, 1, 2}


def block_by_hand(p: list[list[float]], q: list[list[float]], drafts: list[int], draws: list[float]) -> int:
    """Algorithm 2 of Sun et al. 2024, word by word."""
    shares = [1.0]
    for i, word in enumerate(drafts):
        shares.append(min(shares[-1] * p[i][word] / q[i][word], 1.0))
    accepted = 0
    for i in range(1, len(drafts) + 1):
        if i == len(drafts):
            enough = shares[i]
        else:
            rest = sum(max(shares[i] * b - s, 0.0) for b, s in zip(p[i], q[i], strict=True))
            enough = rest / (rest + 1 - shares[i]) if rest else 0.0
        if draws[i - 1] < enough:
            accepted = i
    return accepted


@pytest.mark.parametrize("drafts", [1, 3, 6])
def test_a_block_is_judged_as_the_algorithm_is_written(drafts: int) -> None:
    generator = torch.Generator().manual_seed(drafts)
    p = torch.randn(200, drafts + 1, 5, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    q = torch.randn(200, drafts, 5, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    drafted = torch.multinomial(q.flatten(0, 1), 1, generator=generator).view(200, drafts)
    draws = torch.rand(200, drafts + 1, generator=generator)
    every = torch.ones(200, drafts, dtype=torch.bool)
    count = verification.sampled(drafted, every, p, q, draws, by_block=True).accepted
    expected = [block_by_hand(*(x[i].tolist() for x in (p, q, drafted, draws))) for i in range(200)]
    assert count.tolist() == expected and len(set(expected)) > 1


def exact_means(p: Tensor, q: Tensor) -> tuple[float, float]:
    """The mean numbers of accepted words among two drafts by tokens and by blocks, by enumeration."""
    by_token = by_block = 0.0
    for a in range(len(p)):
        for b in range(len(p)):
            weight = float(q[0, a] * q[a, b])
            first, second = float(min(1, p[0, a] / q[0, a])), float(min(1, p[a, b] / q[a, b]))
            by_token += weight * (first + first * second)
            share = min(float(p[0, a] / q[0, a]), 1.0)
            rest = float((share * p[a] - q[a]).clamp(min=0).sum())
            one, two = rest / (rest + 1 - share) if rest else 0.0, min(share * float(p[a, b] / q[a, b]), 1.0)
            by_block += weight * (2 * two + (1 - two) * one)
    return by_token, by_block


def test_a_block_accepts_more_than_its_tokens() -> None:
    """BPD-21: as many as enumeration says, and by blocks more."""
    p, q = torch.tensor([[1.0, 2.0]] * 2).double() / 3, torch.tensor([[2.0, 1.0]] * 2).double() / 3
    expected = exact_means(p, q)
    found = [
        float(rounds(rule, p, q, 2, 60_000, least=2, seed=10)[1].double().mean()) for rule in (by_tokens, by_blocks)
    ]
    assert found == pytest.approx(expected, abs=0.02)
    assert expected == pytest.approx((10 / 9, 11 / 9))


@pytest.mark.parametrize("by_block", [False, True])
def test_a_drafter_that_is_the_verifier_is_always_right(by_block: bool) -> None:
    """BPD-22: all drafts are accepted; of words that the verifier never says, none."""
    p, _ = tables(5, seed=11)
    generator = torch.Generator().manual_seed(1)
    drafts = chain(p, torch.zeros(500, dtype=torch.int64), 4, generator)
    before = torch.cat([torch.zeros(500, 1, dtype=torch.int64), drafts], 1)
    draws, every = torch.rand(500, 5, generator=generator), torch.ones(500, 4, dtype=torch.bool)
    same = verification.sampled(drafts, every, p[before], p[before[:, :-1]], draws, by_block=by_block)
    assert same.accepted.tolist() == [4] * 500
    said, drafted = torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0, 0, 0.5, 0.5])
    apart = verification.sampled(
        torch.full((9, 2), 2), every[:9, :2], said.expand(9, 3, 4), drafted.expand(9, 2, 4), draws[:9, :3],
        by_block=by_block,
    )  # fmt: skip
    assert apart.accepted.tolist() == [0] * 9 and set(apart.following.tolist()) <= {0, 1}


def test_what_is_left_of_a_refusal_is_a_distribution() -> None:
    """BPD-23: nothing below 0, and the verifier's own where nothing is left."""
    p, q = (x.softmax(-1) for x in torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(3)))
    rest = verification.residual(p, q)
    assert bool((rest >= 0).all()) and bool((rest.sum(-1) > 0).all())
    assert torch.equal(verification.residual(p, p), p)


def test_mean_words_a_call_are_those_of_the_formula() -> None:
    """BPD-24: (1 − a^(g+1)) / (1 − a) where each draft is accepted with the same probability a."""
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.3, 0.4, 0.3])
    rate = float(torch.minimum(p, q).sum())
    for g in (1, 3, 5):
        generator = torch.Generator().manual_seed(g)
        drafts = torch.multinomial(q, 40_000 * g, replacement=True, generator=generator).view(-1, g)
        draws, every = torch.rand(40_000, g + 1, generator=generator), torch.ones(40_000, g, dtype=torch.bool)
        shapes = (40_000, g + 1, 3), (40_000, g, 3)
        found = verification.sampled(drafts, every, p.expand(*shapes[0]), q.expand(*shapes[1]), draws)
        assert float(found.accepted.double().mean()) + 1 == pytest.approx((1 - rate ** (g + 1)) / (1 - rate), abs=0.02)


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        (-1, -1.0, [0.4, 0.3, 0.2, 0.1]),
        (2, -1.0, [4 / 7, 3 / 7, 0, 0]),
        (-1, 0.65, [4 / 7, 3 / 7, 0, 0]),
        (-1, 0.75, [4 / 9, 3 / 9, 2 / 9, 0]),
        (-1, 0.05, [1, 0, 0, 0]),
        (9, -1.0, [0.4, 0.3, 0.2, 0.1]),
        (1, 0.75, [4 / 9, 3 / 9, 2 / 9, 0]),
    ],
)
def test_a_distribution_is_cut_as_fairseq_cuts_it(top_k: int, top_p: float, expected: list[float]) -> None:
    order = torch.tensor([2, 0, 3, 1])
    log_probs = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()[order]
    found = verification.truncated(log_probs[None], top_k, top_p)[0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32)[order])


def test_a_draw_finds_its_word_and_never_one_of_no_weight() -> None:
    weights = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0]])
    draws = torch.tensor([0.0, 0.5, 0.66, 0.67, 0.9999999])
    assert verification.drawn(weights.expand(5, 5), draws).tolist() == [1, 1, 1, 3, 3]
