"""LaNMT as a whole: its behaviours, by number (tests/BEHAVIOURS.md)."""

import copy
from dataclasses import replace
from typing import Any, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from nar_plugin.criterions.elbo_length import ElboLengthCriterion
from nar_plugin.methods import gaussian, noise
from nar_plugin.methods import lanmt as method
from nar_plugin.methods import lengths as length_classes
from nar_plugin.methods.symbols import begin_padded
from tests import tiny
from tests.tiny import BOS, EOS, PAD, decode, random_rows, sample_of, texts

SOURCES, TARGETS = random_rows(12, 9, seed=5), random_rows(12, 9, seed=6)


def lanmt(**options: Any) -> Any:
    """Lively: outputs depend strongly on the source, and lengths on the latents."""
    return tiny.tiny_model(arch="lanmt_tiny", **options)


def searched(samples: int, spread: float = 1.0, **options: Any) -> dict[str, Any]:
    """The options of a latent search."""
    return {"decode_samples": samples, "decode_sample_noise": spread, **options}


def encoded_of(model: Any, rows: list[list[int]]) -> Any:
    return model.encode(tiny.net_input_of(rows))


def started(model: Any, rows: list[list[int]], n: int = 1, spread: float = 1.0) -> tuple[Any, Any]:
    encoded = encoded_of(model, rows)
    request = tiny.request(model, encoded, **searched(n, spread))
    many = encoded.select(torch.arange(len(rows)).repeat_interleave(n))
    return many, model.start(many, model.propose(encoded, request))


def test_lanmt_is_a_name_of_the_latent_transformer() -> None:
    ours, theirs = tiny.tiny_model(arch="lanmt_tiny"), tiny.tiny_model(arch="latent_transformer_tiny")
    assert type(ours) is type(theirs) and ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("options", [{}, searched(3)])
def test_a_hypothesis_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    """LANMT-11, LANMT-18, LANMT-23: alone, in a batch, left or right padded."""
    tiny.decode_in_any_batch(lanmt(), random_rows(16, 9, seed=8), **{"iterations": 5, **options})


def test_sentences_that_end_leave_the_others_alone() -> None:
    """LANMT-18: until one is left."""
    tiny.decode_until_one_is_left(lanmt(seed=5), random_rows(16, 9, seed=9), iterations=8)


@torch.no_grad()
def test_the_first_pass_decodes_the_priors_mean() -> None:
    """LANMT-13: by hand; the posterior is called once a refinement, the encoder once."""
    model = lanmt()
    calls: list[str] = []
    for name in ("encoder", "posterior", "decoder"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    found = decode(model, sample_of(SOURCES[:3]), iterations=0)
    assert calls == ["encoder", "decoder"]
    encoded = encoded_of(model, SOURCES[:3])
    classes, sizes = model.length_logits(encoded, model.lift(encoded.mean)).argmax(1), encoded.is_source.sum(1)
    lengths = length_classes.of_offsets(classes, sizes, 3, tiny.POSITIONS + 1)
    is_token = torch.arange(int(lengths.max())) < lengths[:, None]
    logits = model.project(model.decode(encoded, model.lift(encoded.mean), lengths, is_token, is_token))
    logits[..., [PAD, BOS]] = -torch.inf
    expected = [row[1:n].tolist() for row, n in zip(logits.argmax(-1), lengths.tolist(), strict=True)]
    assert [group[0]["tokens"].tolist() for group in found] == expected
    calls.clear()
    decode(model, sample_of(SOURCES[:3]), iterations=3)
    assert calls == ["encoder", "decoder"] + ["posterior", "decoder"] * 3


def states_of(model: Any, row: list[int]) -> torch.Tensor:
    """The encoder's, of one sentence between ``<s>`` and ``</s>``."""
    return model.encoder(model.source_embedding(torch.tensor([[BOS, *row, EOS]])), None)


@torch.no_grad()
def test_the_decoders_memory_is_made_of_the_encoders_states() -> None:
    model = lanmt()
    states, memory = states_of(model, SOURCES[0]), encoded_of(model, SOURCES[:1]).memory
    for layer, (key, value) in zip(model.decoder.layers, memory, strict=True):
        both = torch.cat([x.transpose(1, 2).flatten(2) for x in (key, value)], -1)
        torch.testing.assert_close(both, layer.cross_attention.key_value(states))


@torch.no_grad()
def test_the_prior_is_read_from_the_encoders_states() -> None:
    """By hand: one half is the mean, the softplus of the other the standard deviation."""
    model = lanmt()
    encoded, raw = encoded_of(model, SOURCES[:1]), model.prior(states_of(model, SOURCES[0]))
    assert raw.size(-1) == 2 * model.cfg.latent_size
    torch.testing.assert_close(encoded.mean, raw[..., : model.cfg.latent_size])
    torch.testing.assert_close(encoded.std, (1 + raw[..., model.cfg.latent_size :].exp()).log())


@torch.no_grad()
def test_the_length_is_read_from_the_mean_of_latents_and_states_over_the_source() -> None:
    """By hand: padding counts neither in the sum nor in the number."""
    model = lanmt()
    encoded = encoded_of(model, SOURCES[:4])
    lifted, sizes = model.lift(encoded.mean), [len(row) + 2 for row in SOURCES[:4]]
    assert min(sizes) < max(sizes)
    for i, (n, found) in enumerate(zip(sizes, model.length_logits(encoded, lifted), strict=True)):
        mean = (lifted[i, :n].sum(0) + encoded.states[i, :n].sum(0)) / n
        torch.testing.assert_close(found, model.length_head(mean))


@torch.no_grad()
def test_the_decoder_reads_placed_latents_with_positions_and_the_length() -> None:
    """By hand: √½ of the one and ½ of the sum of the others."""
    model, seen = lanmt(), []
    model.sigma.fill_(0.7)
    encoded, lengths = encoded_of(model, SOURCES[:2]), torch.tensor([4, 6])
    lifted, is_token = model.lift(encoded.mean), torch.arange(6) < lengths[:, None]
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.decode(encoded, lifted, lengths, is_token, is_token)
    placed = method.length_transform(lifted, encoded.is_source, lengths, 6, torch.tensor(0.7))
    for row, latents, n in zip(seen[0], placed, (4, 6), strict=True):
        others = model.target_embedding.positions.weight[:6] + model.length_table.weight[n]
        torch.testing.assert_close(row, latents / 2**0.5 + others / 2)


@torch.no_grad()
def test_a_refinement_decodes_the_posteriors_mean_of_what_was_said() -> None:
    """LANMT-13: the latents of a step are q's mean given the tokens before, with ``<s>`` in front."""
    model = lanmt()
    encoded, state = started(model, SOURCES[:3])
    target = F.pad(state.tokens, (1, 0), value=BOS)
    mean, _ = model.infer(encoded, target, target != PAD)
    torch.testing.assert_close(model.refine(state, 1, 1).latents, mean)
    torch.testing.assert_close(state.latents, encoded.mean)


@torch.no_grad()
def test_no_tokens_are_more_probable_given_latents_and_length() -> None:
    """LANMT-14: the factorised maximum: no other sequence of that length has a higher log p(y | z, x, l)."""
    model = lanmt()
    _, state = started(model, SOURCES[:4])
    lengths = (state.tokens != PAD).sum(1) + 1
    is_token = torch.arange(int(lengths.max())) < lengths[:, None]
    states = model.decode(state.encoded, model.lift(state.latents), lengths, is_token, is_token)
    logits = model.project(states[:, 1:])
    log_probs = logits.float().log_softmax(-1)
    log_probs[..., [PAD, BOS]] = -torch.inf
    best = state.scores.sum(1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = torch.where(
            torch.rand(state.tokens.shape, generator=generator) < 0.2,
            torch.randint(4, 24, state.tokens.shape, generator=generator),
            state.tokens,
        )
        score = log_probs.gather(2, other[..., None])[..., 0].masked_fill(state.tokens == PAD, 0.0).sum(1)
        assert bool((score <= best + 1e-4).all())


def test_a_fixed_point_is_a_fixed_point() -> None:
    """LANMT-16: stopped there or forced on, the same tokens; never more steps than asked for."""
    model, sample = lanmt(), sample_of(SOURCES)
    stopped = decode(model, sample, iterations=8, stop_rule="fixed-point")
    forced = decode(model, sample, iterations=8)
    ended = [i for i, group in enumerate(stopped) if group[0]["steps"] < 8]
    assert ended and all(group[0]["steps"] <= 8 for group in stopped)
    for i in ended:
        assert stopped[i][0]["tokens"].equal(forced[i][0]["tokens"])


def test_the_length_may_change_from_step_to_step() -> None:
    """LANMT-17: it hangs on the latents."""
    model = lanmt()
    kept = decode(model, sample_of(SOURCES), iterations=3, keep_history=True)
    widths = [[int((step["tokens"] != PAD).sum()) for step in group[0]["history"]] for group in kept]
    assert all(len(row) == 4 for row in widths) and any(len(set(row)) > 1 for row in widths)


@torch.no_grad()
def test_nothing_stands_beyond_the_length_and_the_posterior_does_not_look_there() -> None:
    """LANMT-19: padding of any content changes no latent."""
    model = lanmt()
    _, state = started(model, SOURCES)
    lengths = (state.tokens != PAD).sum(1)
    beyond = torch.arange(state.tokens.size(1)) >= lengths[:, None]
    assert bool((state.tokens[beyond] == PAD).all()) and bool(beyond.any())
    mask = F.pad(state.mask, (0, 3), value=False)
    wider = replace(state, tokens=F.pad(state.tokens, (0, 3), value=9), scores=F.pad(state.scores, (0, 3)), mask=mask)
    torch.testing.assert_close(model.refine(wider, 1, 1).latents, model.refine(state, 1, 1).latents)


@pytest.mark.parametrize("options", [searched(1), searched(5, 0.0)])
def test_a_search_without_noise_is_plain_decoding(options: dict[str, Any]) -> None:
    """LANMT-20: one candidate, or several that are all the same."""
    model, sample = lanmt(), sample_of(SOURCES)
    plain = decode(model, sample, iterations=2)
    found = decode(model, sample, iterations=2, nbest=options["decode_samples"], **options)
    assert [[one["tokens"].tolist() for one in group] for group in found] == [
        [row] * options["decode_samples"] for row in texts(plain)
    ]


def test_the_best_of_a_sentences_own_candidates_wins_and_more_never_lose() -> None:
    """LANMT-21: candidates are nested: those of 3 are among those of 6."""
    model, sample = lanmt(), sample_of(SOURCES)
    plain = decode(model, sample, iterations=1)
    few, more = (decode(model, sample, iterations=1, nbest=n, **searched(n)) for n in (3, 6))
    for first, some, others in zip(plain, few, more, strict=True):
        assert float(some[0]["score"]) == max(float(one["score"]) for one in some)
        assert float(others[0]["score"]) >= float(some[0]["score"]) - 1e-6
        said = [one["tokens"].tolist() for one in others]
        assert first[0]["tokens"].tolist() in said and all(one["tokens"].tolist() in said for one in some)
    assert any(len({tuple(one["tokens"].tolist()) for one in group}) > 1 for group in few)


@torch.no_grad()
def test_candidates_are_samples_of_the_prior() -> None:
    """LANMT-2, LANMT-20: the first is its mean; of the others mean and spread are those asked for."""
    model = lanmt()
    encoded, state = started(model, SOURCES[:1], n=4000, spread=0.5)
    drawn = (state.latents - encoded.mean) / encoded.std
    assert not drawn[0].any() and abs(float(drawn[1:].std()) - 0.5) < 0.01 and abs(float(drawn[1:].mean())) < 0.01


@torch.no_grad()
def test_one_seed_one_result() -> None:
    """LANMT-23: another seed draws others."""
    model = lanmt()
    one, again = (started(model, SOURCES, n=3)[1].latents for _ in range(2))
    assert one.equal(again)
    encoded = encoded_of(model, SOURCES)
    other_seed = tiny.request(model, encoded, seed=2, **searched(3))
    assert not model.propose(encoded, other_seed).latents.equal(one)


def test_the_sum_prefers_what_the_mean_does_not() -> None:
    """LANMT-22: among candidates of different lengths."""
    model, sample = lanmt(), sample_of(SOURCES)
    by_mean, by_sum = (
        decode(model, sample, iterations=1, rescore_norm=norm, **searched(8)) for norm in ("mean", "sum")
    )
    assert texts(by_mean) != texts(by_sum)
    totals = [[float(group[0]["positional_scores"].sum()) for group in groups] for groups in (by_mean, by_sum)]
    assert all(b >= a - 1e-4 for a, b in zip(*totals, strict=True))


@torch.no_grad()
def test_a_target_is_scored_from_its_posteriors_mean() -> None:
    """By hand: log p(y | μ, x) + log p(l | μ, x) − KL."""
    model = lanmt()
    scored = model.score(encoded_of(model, SOURCES[:1]), tiny.stacked(TARGETS[:1]))
    encoded, target = encoded_of(model, SOURCES[:1]), torch.tensor([[BOS, *TARGETS[0], EOS]])
    mean, std = model.infer(encoded, target, None)
    length, is_token = torch.tensor([target.size(1)]), torch.ones_like(target, dtype=torch.bool)
    log_probs = model.project(model.decode(encoded, model.lift(mean), length, is_token, None)).log_softmax(-1)[0]
    each = log_probs[torch.arange(target.size(1)), target[0]]
    kl = gaussian.divergence(mean, std, encoded.mean, encoded.std).sum()
    classes = model.length_logits(encoded, model.lift(mean)).log_softmax(1)
    of_length = classes[0, length_classes.offset_classes(torch.tensor(len(SOURCES[0]) + 2), length)[0]]
    torch.testing.assert_close(scored.tokens[0], each[1:])
    torch.testing.assert_close(scored.extra[0], each[0] + of_length - kl)
    assert scored.kind == "proxy"


@pytest.mark.parametrize("row", [[7], [7] * 40, list(range(4, 24))])
def test_short_and_long_sources_get_an_answer(row: list[int]) -> None:
    """LANMT-35: one token, and more than there are positions in the target."""
    model = lanmt(max_target_positions=32)
    for options in ({}, searched(3)):
        (group,) = decode(model, sample_of([row]), iterations=2, **options)
        assert 2 <= len(group[0]["tokens"]) <= 32 and bool(group[0]["positional_scores"].isfinite().all())


@torch.no_grad()
def test_no_canvas_exceeds_what_was_said_of_it() -> None:
    """What --max-candidate-tokens counts on, where lengths are not known yet."""
    model = lanmt()
    with torch.no_grad():
        model.length_head.bias[-1] += 1e3  # the longest class
    encoded = encoded_of(model, SOURCES)
    proposals = model.propose(encoded, tiny.request(model, encoded))
    state = model.start(encoded, proposals)
    assert proposals.lengths is None and state.tokens.size(1) + 1 == proposals.longest
    widths: list[int] = []
    model.decoder.register_forward_hook(lambda _, __, out: widths.append(out.size(0) * out.size(1)))
    decode(model, sample_of(SOURCES), iterations=1, max_candidate_tokens=150, **searched(4))
    assert max(widths) <= 150 and len(widths) > 2


def test_every_part_has_a_gradient() -> None:
    """LANMT-7: with the budget at 0."""
    model, sample = lanmt(), sample_of(SOURCES, TARGETS)
    ElboLengthCriterion(tiny.stand_in_task(), 0.0, "sentence", 1.0, 0.0, 0, 0)(model, sample)[0].backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.abs().max() > 0), name


def test_the_posterior_learns_from_the_sample_and_from_the_divergence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LANMT-2, LANMT-7: reconstruction reaches it through the sample; where that is cut off, it does not."""
    model, sample = lanmt(), sample_of(SOURCES, TARGETS)

    def of_reconstruction() -> float:
        model.zero_grad()
        token = tiny.terms_of(model, sample)[0]
        F.cross_entropy(token.logits, token.target).backward()
        return sum(float(w.grad.abs().sum()) for w in model.posterior.parameters() if w.grad is not None)

    assert of_reconstruction() > 0
    drawn = gaussian.sample
    monkeypatch.setattr(gaussian, "sample", lambda *given: drawn(*given).detach())
    assert of_reconstruction() == 0


@pytest.fixture(scope="module")
def trained() -> Iterator[Any]:
    yield tiny.two_ways_model("lanmt_tiny", encoder_embed_dim=64)


def coherent(model: Any, rows: list[list[int]], **options: Any) -> int:
    """Sources translated wholly one way."""
    outputs = [row[:-1] for row in texts(decode(model, sample_of(rows), **options))]
    pairs = zip(outputs, rows, strict=True)
    return sum(row in (source, [word + tiny.OTHER for word in source]) for row, source in pairs)


def test_a_delta_step_makes_one_sentence_of_a_mixture(trained: Any) -> None:
    """LANMT-15: on sentences never seen: more are translated wholly one way, and the output's bound does not fall."""
    rows, _ = tiny.two_ways(200, seed=7)
    counts = [coherent(trained, rows, iterations=k) for k in (0, 1, 2)]
    assert counts[0] + 5 < counts[1] <= counts[2]
    with torch.no_grad():
        encoded, state = started(trained, rows)
        likelihoods, bounds = [], []
        for _ in range(3):
            scored = trained.score(encoded, state.tokens)
            likelihoods.append(float(state.scores.sum(1).mean()))
            bounds.append(float((scored.tokens.sum(1) + scored.extra).mean()))
            state = trained.refine(state, 1, 1)
    assert likelihoods[0] + 0.05 < likelihoods[1] < likelihoods[2], "log p(y | z, x) in nats a sentence"
    assert bounds[1] > bounds[0] and bounds[2] > bounds[1] - 0.01


def test_a_search_finds_what_one_candidate_does_not(trained: Any) -> None:
    rows, _ = tiny.two_ways(200, seed=8)
    assert coherent(trained, rows, iterations=1, **searched(10)) > coherent(trained, rows, iterations=1) + 5


@torch.no_grad()
def test_the_bound_is_no_more_than_the_importance_weighted_one(trained: Any) -> None:
    """The mean over samples of log w is at most the log of the mean of w, and both rise with a better posterior."""
    sources, targets = tiny.two_ways(20, seed=9)
    encoded, target = encoded_of(trained, sources), tiny.stacked(targets)
    begun, is_token = begin_padded(target, target != PAD, BOS)
    mean, std = trained.infer(encoded, begun, is_token)
    weights = []
    for sample in range(64):
        keys = noise.fold(torch.arange(20), sample)
        latents = mean + std * gaussian.draws(keys, mean.size(1), mean.size(2))
        states = trained.decode(encoded, trained.lift(latents), is_token.sum(1), is_token, is_token)
        log_probs = trained.project(states).log_softmax(-1).gather(2, begun[..., None])[..., 0]
        ratio = (Normal(encoded.mean, encoded.std).log_prob(latents) - Normal(mean, std).log_prob(latents)).sum(-1)
        weights.append((log_probs * is_token).sum(1) + (ratio * encoded.is_source).sum(1))
    drawn = torch.stack(weights)
    elbo, bound = drawn.mean(0), drawn.logsumexp(0) - torch.tensor(64.0).log()
    assert bool((elbo <= bound + 1e-4).all()) and bool((elbo < bound - 1e-3).any())


@torch.no_grad()
def test_the_released_kernel_gives_something_else() -> None:
    """And the posterior has the layers that were asked for."""
    ours, released = (
        texts(decode(lanmt(length_kernel=kernel), sample_of(SOURCES))) for kernel in ("gaussian", "prefix")
    )
    assert ours != released
    assert len(lanmt(posterior_layers=3).posterior.source.layers) == 3


@pytest.mark.parametrize("name", ["lanmt", "lanmt_continuous", "mask_predict", "iterative_refinement"])
def test_a_decode_follows_weights_that_are_put_in_place_of_the_old(name: str) -> None:
    """Passes hold the model's parts, not its weights: copied, converted and assigned weights are those used."""
    arch = f"{name}_tiny"
    model, other = tiny.tiny_model(3, arch=arch), tiny.tiny_model(4, arch=arch)
    wanted = texts(decode(other, sample_of(SOURCES)))
    assert texts(decode(model, sample_of(SOURCES))) != wanted
    weights = {name: value.clone() for name, value in other.state_dict().items()}
    for key in {"bias", "sigma"} & weights.keys():
        weights[key] = weights[key] + torch.linspace(-3, 3, weights[key].numel()).view_as(weights[key]).abs()
    other.load_state_dict(weights)
    wanted = texts(decode(other, sample_of(SOURCES)))
    twin = copy.deepcopy(model)
    twin.load_state_dict(weights)
    torch.nn.Module.load_state_dict(model, weights, assign=True)
    assert texts(decode(model, sample_of(SOURCES))) == texts(decode(twin, sample_of(SOURCES))) == wanted
    assert texts(decode(model.double(), sample_of(SOURCES))) == wanted
