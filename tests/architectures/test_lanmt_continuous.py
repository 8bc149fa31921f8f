"""The model whose latents stand on target positions: its behaviours, by number (tests/BEHAVIOURS.md)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from nar_plugin.criterions.elbo_length import ElboLengthCriterion
from nar_plugin.methods import gaussian, lengths
from tests import tiny
from tests.tiny import BOS, PAD, decode, random_rows, sample_of, texts

SOURCES, TARGETS = random_rows(12, 9, seed=5), random_rows(12, 9, seed=6)


def continuous(**options: Any) -> Any:
    return tiny.tiny_model(arch="lanmt_continuous_tiny", **options)


def searched(lengths: int, samples: int, spread: float = 1.0, **options: Any) -> dict[str, Any]:
    """The options of a search over lengths and samples."""
    return {"lengths": lengths, "decode_samples": samples, "decode_sample_noise": spread, **options}


def proposed(model: Any, rows: list[list[int]], n: int = 1, samples: int = 1, spread: float = 1.0) -> tuple[Any, Any]:
    encoded = model.encode(tiny.net_input_of(rows))
    request = tiny.request(model, encoded, **searched(n // samples, samples, spread))
    return encoded.select(torch.arange(len(rows)).repeat_interleave(n)), model.propose(encoded, request)


@pytest.mark.parametrize("options", [{}, searched(2, 3), searched(3, 0)])
def test_a_hypothesis_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    """LANMT-18, LANMT-23: alone, in a batch, left or right padded."""
    tiny.decode_in_any_batch(continuous(), random_rows(16, 9, seed=8), **{"iterations": 5, **options})


def test_sentences_that_end_leave_the_others_alone() -> None:
    """LANMT-18: until one is left."""
    tiny.decode_until_one_is_left(continuous(seed=5), random_rows(16, 9, seed=8), iterations=8)


@torch.no_grad()
def test_the_first_pass_decodes_the_priors_mean_and_each_refinement_the_posteriors() -> None:
    """LANMT-13: by hand; the source encoder and the prior are called once, the posterior once a refinement."""
    model = continuous()
    calls: list[str] = []
    for name in ("encoder", "prior", "posterior", "decoder"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    found = decode(model, sample_of(SOURCES[:3]), iterations=2)
    assert calls == ["encoder", "prior", "decoder"] + ["posterior", "decoder"] * 2
    encoded, proposals = proposed(model, SOURCES[:3])
    is_token = torch.arange(int(proposals.lengths.max())) < proposals.lengths[:, None]

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        logits = model.project(model.decode(encoded, latents, is_token))
        logits[..., [PAD, BOS]] = -torch.inf
        return logits.argmax(-1).masked_fill(~is_token, PAD)

    tokens = decoded(model.expect(encoded, is_token, is_token)[0])
    memory = model.posterior.stack.memory(encoded.states)
    for _ in range(2):
        tokens = decoded(model.infer(encoded, tokens, is_token, memory)[0])
    expected = [row[:n].tolist() for row, n in zip(tokens, proposals.lengths.tolist(), strict=True)]
    assert [group[0]["tokens"].tolist() for group in found] == expected


@torch.no_grad()
def test_the_length_is_read_from_the_mean_of_the_states_over_the_source() -> None:
    """By hand: log-probabilities; padding counts neither in the sum nor in the number."""
    model = continuous()
    encoded, sizes = model.encode(tiny.net_input_of(SOURCES[:4])), [len(row) + 1 for row in SOURCES[:4]]
    assert min(sizes) < max(sizes)
    torch.testing.assert_close(encoded.length_log_probs.exp().sum(1), torch.ones(4))
    for n, states, found in zip(sizes, encoded.states, encoded.length_log_probs, strict=True):
        logits = model.length_head(states[:n].sum(0) / n)
        torch.testing.assert_close(found, logits - logits.exp().sum().log())


@torch.no_grad()
def test_the_length_predictor_has_two_hidden_layers_of_exponential_linear_units() -> None:
    """By hand: ELU(x) = x above 0 and eˣ − 1 below."""
    torch.manual_seed(1)
    head, x = lengths.predictor(6, 5), 3 * torch.randn(4, 6)
    shapes = [(200, 6), (200, 200), (5, 200)]
    matrices = [part for part in head if isinstance(part, nn.Linear)]
    assert [tuple(matrix.weight.shape) for matrix in matrices] == shapes
    first, second, third = matrices

    def elu(y: torch.Tensor) -> torch.Tensor:
        return torch.where(y > 0, y, y.exp() - 1)

    torch.testing.assert_close(head(x), third(elu(second(elu(first(x))))))


def test_the_length_never_changes() -> None:
    """LANMT-17: it hangs on the source alone."""
    kept = decode(continuous(), sample_of(SOURCES), iterations=4, keep_history=True)
    for group in kept:
        assert len({len(step["tokens"]) for step in group[0]["history"]}) == 1


@torch.no_grad()
def test_the_prior_knows_positions_and_the_source_only() -> None:
    """A decoder without latents could not tell positions apart, the prior does; it reads no word of the target."""
    model = continuous()
    encoded, proposals = proposed(model, SOURCES[:2])
    mean, _ = model.expect(encoded, torch.ones(2, 6, dtype=torch.bool), None)
    assert not torch.allclose(mean[:, 0], mean[:, 1], atol=1e-3) and not torch.allclose(mean[0], mean[1], atol=1e-3)
    states = model.decode(encoded, torch.zeros(2, 6, 8), None)
    torch.testing.assert_close(states, states[:, :1].expand_as(states))


@torch.no_grad()
def test_latents_below_padding_move_nothing() -> None:
    """LANMT-19: nor does what they hold."""
    model = continuous()
    encoded, proposals = proposed(model, SOURCES)
    state = model.proposed(encoded, proposals)
    assert state.mask is not None
    wild = torch.where(state.is_token[..., None], state.latents, torch.full((), 50.0))
    other, same = model.decoded(replace(state, latents=wild)), model.decoded(state)
    assert other.tokens.equal(same.tokens)
    assert bool((other.tokens[~state.is_token] == PAD).all())
    torch.testing.assert_close(other.scores, same.scores)


@torch.no_grad()
def test_candidates_are_all_lengths_with_all_samples() -> None:
    """LANMT-20, LANMT-21: sentence-major, the best length first; the first of each length is the prior's mean."""
    model = continuous()
    encoded, proposals = proposed(model, SOURCES[:2], n=6, samples=3)
    assert proposals.lengths.view(2, 2, 3).diff(dim=2).abs().sum() == 0
    top = encoded.length_log_probs[::6].topk(2).indices
    expected = encoded.sizes[::6, None] + top - 50
    assert proposals.lengths.view(2, 2, 3)[..., 0].tolist() == expected.clamp(2, tiny.POSITIONS).tolist()
    state = model.proposed(encoded, proposals)
    mean, std = model.expect(encoded, state.is_token, state.mask)
    is_mean = [bool(torch.equal(a, b)) for a, b in zip(state.latents, mean, strict=True)]
    assert is_mean == [True, False, False] * 4
    many, proposals = proposed(model, SOURCES[:1], n=3000, samples=3000, spread=0.5)
    state = model.proposed(many, proposals)
    mean, std = model.expect(many, state.is_token, state.mask)
    drawn = ((state.latents - mean) / std)[1:]
    assert abs(float(drawn.std()) - 0.5) < 0.01 and abs(float(drawn.mean())) < 0.01


@pytest.mark.parametrize("options", [searched(1, 1), searched(1, 5, 0.0)])
def test_a_search_without_noise_is_plain_decoding(options: dict[str, Any]) -> None:
    """LANMT-20: one candidate, or several that are all the same."""
    model, sample = continuous(), sample_of(SOURCES)
    plain = decode(model, sample, iterations=2)
    found = decode(model, sample, iterations=2, nbest=options["decode_samples"], **options)
    assert [[one["tokens"].tolist() for one in group] for group in found] == [
        [row] * options["decode_samples"] for row in texts(plain)
    ]


def test_the_best_of_a_sentences_own_candidates_wins() -> None:
    """LANMT-21: with scores in order, and the plain result among them."""
    model, sample = continuous(), sample_of(SOURCES)
    plain = decode(model, sample, iterations=1)
    found = decode(model, sample, iterations=1, nbest=6, **searched(2, 3))
    for first, group in zip(plain, found, strict=True):
        scores = [float(one["score"]) for one in group]
        assert scores == sorted(scores, reverse=True)
        assert first[0]["tokens"].tolist() in [one["tokens"].tolist() for one in group]


def test_a_bonus_lengthens_the_output() -> None:
    """Released tests add ⌊0.11 · S⌋ for IWSLT."""
    plain, longer = (decode(continuous(length_bonus=bonus), sample_of(SOURCES)) for bonus in (0.0, 0.5))
    sizes = [len(row) + 1 for row in SOURCES]
    more = [len(b[0]["tokens"]) - len(a[0]["tokens"]) for a, b in zip(plain, longer, strict=True)]
    short = [i for i, group in enumerate(plain) if len(group[0]["tokens"]) > 2]
    assert short and all(more[i] == sizes[i] // 2 for i in short)


@torch.no_grad()
def test_a_target_is_scored_from_its_posteriors_mean() -> None:
    """By hand: log p(y | μ, x) + log p(T | x) − KL."""
    model, target = continuous(), tiny.stacked(TARGETS[:1])
    encoded = model.encode(tiny.net_input_of(SOURCES[:1]))
    scored = model.score(encoded, target)
    mean, std = model.infer(encoded, target, None, model.posterior.stack.memory(encoded.states))
    log_probs = model.project(model.decode(encoded, mean, None)).log_softmax(-1)[0]
    kl = gaussian.divergence(mean, std, *model.expect(encoded, target != PAD, None)).sum()
    offset = target.size(1) - len(SOURCES[0]) - 1 + 50
    torch.testing.assert_close(scored.tokens[0], log_probs[torch.arange(target.size(1)), target[0]])
    torch.testing.assert_close(scored.extra[0], encoded.length_log_probs[0, offset] - kl)
    assert scored.kind == "proxy"


def test_training_samples_and_validation_takes_the_mean() -> None:
    """LANMT-2: other keys, another loss, in training only."""
    model = continuous(is_lively=False)
    loss_of = ElboLengthCriterion(tiny.stand_in_task(), 0.0, "sentence", 1.0, 1.0, 0, 0)
    batches = [sample_of(SOURCES, TARGETS, epoch=epoch) for epoch in (1, 2)]
    losses = {
        mode: [float(loss_of(model.train(mode), batch)[0].detach()) for batch in batches] for mode in (False, True)
    }
    assert losses[False][0] == losses[False][1] and losses[True][0] != losses[True][1]


def test_every_part_has_a_gradient() -> None:
    """LANMT-7: no parameter is idle."""
    model, sample = continuous().train(), sample_of(SOURCES, TARGETS)
    ElboLengthCriterion(tiny.stand_in_task(), 0.0, "sentence", 1.0, 0.0, 0, 0)(model, sample)[0].backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.abs().max() > 0), name


@pytest.mark.parametrize("row", [[7], [7] * 40, list(range(4, 24))])
def test_short_and_long_sources_get_an_answer(row: list[int]) -> None:
    """LANMT-35: one token, and more than there are positions in the target."""
    model = continuous(max_target_positions=32)
    for options in ({}, searched(2, 3)):
        (group,) = decode(model, sample_of([row]), iterations=2, **options)
        assert 2 <= len(group[0]["tokens"]) <= 32 and bool(group[0]["positional_scores"].isfinite().all())


def test_stacks_latents_and_output_are_those_that_were_asked_for() -> None:
    model = continuous(prior_layers=2, posterior_layers=3, latent_size=5)
    assert [len(part.stack.layers) for part in (model.prior, model.posterior)] == [2, 3]
    assert model.prior.output.out_features == 10 and model.lift.in_features == 5
    tied, untied = (continuous(share_all_embeddings=True, untie_output=way) for way in (False, True))
    assert tied.output is tied.target_embedding.tokens and untied.output is not untied.target_embedding.tokens
