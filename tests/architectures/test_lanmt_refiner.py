"""The inference network over a frozen latent model: its behaviours, by number (tests/BEHAVIOURS.md)."""

from collections import Counter
from typing import Any, Iterator

import pytest
import torch
from torch import Tensor, nn

from nar_plugin.criterions.score_matching import ScoreMatchingCriterion
from nar_plugin.methods import noise
from nar_plugin.methods.contract import Pass, UsageError
from nar_plugin.methods.transformer import SourceMemory
from tests import tiny
from tests.tiny import PAD, decode, random_rows, sample_of, texts

SOURCES, TARGETS = random_rows(12, 9, seed=5), random_rows(12, 9, seed=6)
KINDS = ("score", "energy")


def refiner(kind: str = "score", **options: Any) -> Any:
    """The network's output is small, so that steps do not run away."""
    model = tiny.tiny_model(arch="lanmt_refiner_tiny", refiner=kind, **options)
    with torch.no_grad():
        model.network.output.weight *= 0.3
    return model


def asked(inference: str = "score", size: float = 1.0, samples: int = 0, spread: float = 1.0) -> dict[str, Any]:
    return {
        "latent_inference": inference,
        "latent_step_size": size,
        "decode_samples": samples,
        "decode_sample_noise": spread,
    }


def loss_of() -> Any:
    return ScoreMatchingCriterion(tiny.stand_in_task())


class Towards(nn.Module):
    """An analytic network: a step to a fixed place."""

    def __init__(self, place: float) -> None:
        super().__init__()
        self.place, self.stack = place, nn.Identity()
        self.stack.memory = lambda states: ()  # type: ignore[assignment]

    def forward(self, latents: Tensor, mask: Any, memory: Any, is_source: Any) -> Tensor:
        return self.place - latents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [{}, {"samples": 3}])
def test_a_hypothesis_does_not_depend_on_its_batch(kind: str, search: dict[str, int]) -> None:
    """LANMT-18, LANMT-23, LANMT-30: latents stay with their sentences."""
    model, rows = refiner(kind), random_rows(14, 9, seed=8)
    chosen = {"iterations": 3, "lengths": 2, **asked(kind, **search)}
    together = tiny.decode_in_any_batch(model, rows, **chosen)
    tiny.assert_same(decode(model, sample_of(rows), max_candidate_tokens=20, **chosen), together)


def test_sentences_that_end_leave_the_others_alone() -> None:
    """LANMT-18, LANMT-30: under delta inference, where they end at different steps, until one is left."""
    model, rows = tiny.tiny_model(5, arch="lanmt_refiner_tiny"), random_rows(16, 9, seed=8)
    tiny.decode_until_one_is_left(model, rows, iterations=8, **asked("delta"))


@pytest.mark.parametrize("kind", KINDS)
def test_one_projection_whatever_the_number_of_steps(kind: str) -> None:
    """LANMT-27, LANMT-29: the network's n calls, one decoder pass, one projection, no posterior, also where a stop rule
    that compares outputs is set; a delta step costs a posterior, a decoder pass and a projection."""
    model, calls = refiner(kind), Counter[str]()
    for name, part in model.passes.items():
        part.module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    once = {"encode": 1, "remember_step": 1, "expect": 1, "decode": 1, "project": 1}
    for steps in (0, 1, 5):
        calls.clear()
        decode(model, sample_of(SOURCES), iterations=steps, stop_rule="fixed-point", **asked(kind))
        assert calls == Counter({**once, "step": steps}), steps
    calls.clear()
    decode(model, sample_of(SOURCES), iterations=3, **asked("delta"))
    assert calls == Counter({**once, "decode": 4, "project": 4, "remember": 1, "infer": 3})


def test_its_delta_and_mean_are_the_latent_models_own() -> None:
    model = refiner()
    for inference, steps in (("delta", 3), ("mean", 0)):
        found = decode(model, sample_of(SOURCES), iterations=steps, **asked(inference))
        assert texts(found) == texts(decode(model.latent, sample_of(SOURCES), iterations=steps))


def latents_after(model: Any, steps: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """The prior's mean, and where the steps lead."""
    encoded = model.encode(tiny.net_input_of(SOURCES))
    request = tiny.request(model, encoded, **asked(str(model.cfg.refiner), size))
    state = first = model.start(encoded, model.propose(encoded, request))
    for step in range(steps):
        state = model.refine(state, step + 1, steps)
    return first.latent.latents, state.latent.latents


@torch.no_grad()
def test_an_analytic_network_goes_there_and_stays() -> None:
    """LANMT-25: s(z) = z* − z: one whole step arrives, more stay; half steps halve the way; none changes nothing."""
    model = refiner()
    network = Towards(0.7)
    model.passes |= {"step": Pass(network), "remember_step": Pass(SourceMemory(network.stack))}
    start, there = latents_after(model, 1)
    torch.testing.assert_close(there, torch.full_like(there, 0.7))
    torch.testing.assert_close(latents_after(model, 4)[1], there)
    torch.testing.assert_close(latents_after(model, 2, 0.5)[1], 0.7 + 0.25 * (start - 0.7))
    for steps, size in ((0, 1.0), (3, 0.0)):
        assert latents_after(model, steps, size)[1].equal(start)


@torch.no_grad()
def test_an_energy_of_the_same_slope_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """LANMT-25: −½ ‖z − z*‖² has the slope z* − z, also for a caller without gradients."""
    model = refiner("energy")

    def negative_energy(latents: Tensor, *_: Any) -> Tensor:
        return -0.5 * (latents - 0.7).square().sum((1, 2))

    monkeypatch.setattr(model.network, "negative_energy", negative_energy)
    start, there = latents_after(model, 2, 0.5)
    torch.testing.assert_close(there, 0.7 + 0.25 * (start - 0.7))


def pieces(model: Any) -> tuple[Tensor, Any, Any, Any]:
    """Latents, their mask, the source for the network and its mask."""
    encoded = model.encode(tiny.net_input_of(SOURCES))
    request = tiny.request(model, encoded, **asked(str(model.cfg.refiner)))
    state = model.start(encoded, model.propose(encoded, request))
    return state.latent.latents, state.latent.mask, state.memory, state.latent.encoded.mask


@torch.no_grad()
def test_the_slope_is_that_of_finite_differences_and_climbs() -> None:
    """LANMT-26, LANMT-28: under ``no_grad``; a small step raises the negative energy."""
    model = refiner("energy").double()
    latents, mask, memory, is_source = pieces(model)
    latents = latents.double()
    slope = model.network(latents, mask, memory, is_source)
    assert not slope.requires_grad and mask is not None and not slope[~mask].any()
    generator = torch.Generator().manual_seed(4)
    before = model.network.negative_energy(latents, mask, memory, is_source)
    for _ in range(5):
        way = torch.randn(latents.shape, generator=generator, dtype=torch.float64)
        up, down = (model.network.negative_energy(latents + h * way, mask, memory, is_source) for h in (1e-6, -1e-6))
        torch.testing.assert_close((up - down) / 2e-6, (slope * way).sum((1, 2)), rtol=1e-3, atol=1e-4)
    after = model.network.negative_energy(latents + 1e-3 * slope, mask, memory, is_source)
    assert bool((after > before).all())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_moves_nothing_and_does_not_move(kind: str) -> None:
    """LANMT-24: latents at pads change no step, and no step is made there."""
    model = refiner(kind)
    latents, mask, memory, is_source = pieces(model)
    wild = torch.where(mask[..., None], latents, torch.full((), 9.0))
    step = model.network(latents, mask, memory, is_source)
    torch.testing.assert_close(model.network(wild, mask, memory, is_source), step)
    assert not step[~mask].any() and bool(step[mask].abs().sum(-1).gt(0).all())


def test_the_latent_model_is_frozen() -> None:
    """LANMT-24: no gradient, no update, no dropout; its weights are in the checkpoint, and only the network's learn."""
    model = refiner(dropout=0.0).train()
    assert model.network.training and not any(module.training for module in model.latent.modules())
    before = {name: weight.clone() for name, weight in model.latent.state_dict().items()}
    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=0.1)
    for _ in range(3):
        loss, size, _ = loss_of()(model, sample_of(SOURCES, TARGETS))
        (loss / size).backward()
        optimizer.step()
    assert all(weight.grad is None for weight in model.latent.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.latent.state_dict().items())
    assert {name.split(".")[0] for name in model.state_dict()} == {"latent", "network"}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [True, False])
def test_every_weight_of_the_network_has_a_gradient(kind: str, dropout: float, mode: bool) -> None:
    """LANMT-31: that of an energy through its slope, in training and out of it, with and without dropout of attention;
    none in a validation."""
    model = refiner(kind, dropout=dropout, attention_dropout=dropout).train(mode)
    loss, _, _ = loss_of()(model, sample_of(SOURCES, TARGETS))
    loss.backward()
    learning = [(name, weight) for name, weight in model.network.named_parameters() if weight.requires_grad]
    assert [name for name, weight in learning if weight.grad is None or not weight.grad.any()] == []
    with torch.no_grad():
        held, _, _ = loss_of()(model.eval(), sample_of(SOURCES, TARGETS))
    assert bool(held.isfinite()) and not held.requires_grad


def test_the_target_is_the_way_of_delta_inference() -> None:
    """LANMT-24: from the start point, so many delta steps, with the reference's length."""
    model, sample = refiner(delta_steps=2), sample_of(SOURCES, TARGETS)
    (term,) = tiny.terms_of(model, sample)
    latent, target = model.latent, sample["target"]
    with torch.no_grad():
        encoded = latent.encode(sample["net_input"])
        is_token = target != PAD
        memory = latent.posterior.stack.memory(encoded.states)
        start = at = latent.expect(encoded, is_token, is_token)[0]
        for _ in range(2):
            tokens = latent.project(latent.decode(encoded, at, is_token))
            tokens[..., [PAD, tiny.BOS]] = -torch.inf
            at = latent.infer(encoded, tokens.argmax(-1).masked_fill(~is_token, PAD), is_token, memory)[0]
    torch.testing.assert_close(term.step_target, at - start)
    assert term.is_counted.equal(is_token) and term.step.requires_grad and not term.step_target.requires_grad


def starts(model: Any, epochs: int, update: int = 0) -> Tensor:
    """(epochs, B) root mean square of the start points' distance to the prior's mean, in its deviations."""
    model.train()
    model.set_num_updates(update)
    target, latent = tiny.stacked(TARGETS), model.latent
    with torch.no_grad():
        encoded, mask = latent.encode(tiny.net_input_of(SOURCES)), target != PAD
        mean, std = latent.expect(encoded, mask, mask)
        memory, found = model.network.stack.memory(encoded.states), []
        for epoch in range(epochs):
            keys = noise.training_keys(1, epoch, torch.arange(len(SOURCES)))
            drawn = (model.start_points(keys, mean, std, mask, memory, encoded.mask) - mean) / std
            found.append(drawn.square().mean(2).masked_fill(~mask, 0.0).sum(1) / mask.sum(1))
    return torch.stack(found).sqrt()


def test_start_points_are_those_of_the_talk_or_of_the_code() -> None:
    """The whole prior; or its noise shrunk by a factor drawn for each sentence, uniform from 0 to 1."""
    whole, scaled = (starts(refiner(start_points=kind), 300) for kind in ("prior", "scaled"))
    assert abs(float(whole.square().mean()) - 1) < 0.03
    assert abs(float(scaled.square().mean()) - 1 / 3) < 0.03
    assert float(scaled.min()) < 0.1 and float(whole.min()) > 0.3


def test_rollouts_begin_at_their_update_and_move_their_share() -> None:
    """The same keys: half of the sentences start elsewhere from then on, by one step of the network."""
    model = refiner(rollout_start=10, dropout=0.0)
    before, after = starts(model, 200, update=9), starts(model, 200, update=10)
    share = float((before != after).float().mean())
    assert abs(share - 0.5) < 0.05
    assert starts(refiner(rollout_start=10, dropout=0.0, rollout_share=0.0), 3, update=10).equal(before[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_no_memory_is_kept_from_step_to_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LANMT-28: no step has a graph behind it, also an energy's, though it makes one on the way."""
    model = refiner(kind)
    refine, moved = model.refine, []
    model.network.register_forward_hook(lambda _, __, step: moved.append(step.requires_grad))

    def watched(*given: Any) -> Any:
        state = refine(*given)
        moved.append(state.latent.latents.requires_grad)
        return state

    monkeypatch.setattr(model, "refine", watched)
    decode(model, sample_of(SOURCES), iterations=50, **asked(kind))
    assert moved == [False] * 100 and all(weight.grad is None for weight in model.parameters())


def test_training_stands_on_a_latent_model() -> None:
    with pytest.raises(UsageError, match="--latent-model"):
        kind = type(refiner())
        kind.build_model(tiny.config("lanmt_refiner_tiny"), tiny.stand_in_task())


@pytest.fixture(scope="module")
def toy() -> Iterator[Any]:
    """A latent model that has learnt to say a sentence in one of two ways."""
    yield tiny.two_ways_model("lanmt_continuous_tiny")


@pytest.mark.parametrize("kind", KINDS)
def test_learning_points_the_steps_the_right_way(kind: str, toy: Any) -> None:
    """LANMT-32: the loss falls, the cosine rises, and a step of size 1 ends nearer to where delta inference does."""
    torch.manual_seed(2)
    model = tiny.tiny_refiner("lanmt_refiner_tiny", toy, refiner=kind, dropout=0.0, refiner_layers=2)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=3e-3)
    held = sample_of(*tiny.two_ways(60, seed=5))

    def quality() -> tuple[float, float, float]:
        model.eval()
        with torch.no_grad():
            loss, size, sums = loss_of()(model, held)
        model.train()
        return (
            float(loss) / size,
            float(sums["steps/step/cosine"] / sums["steps/step/count"]),
            float(sums["steps/step/squared"]) / size,
        )

    first, cosine, _ = quality()
    for step in range(200):
        loss, size, _ = loss_of()(model, sample_of(*tiny.two_ways(48, seed=100 + step), epoch=step))
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    last, better, squared = quality()
    assert last < first and better > cosine + 0.1
    assert last < 0, "‖s − way‖² < ‖way‖²: nearer than before the step"
    assert last >= -squared - 1e-3, "the least value there is"


def test_a_network_learns_the_analytic_score_of_a_gaussian() -> None:
    """Where delta inference would go to the middle of a Gaussian, s(z) becomes (z* − z), wherever z is."""
    torch.manual_seed(3)
    model = tiny.tiny_model(arch="lanmt_refiner_tiny", is_lively=False, dropout=0.0, refiner_layers=2)
    middle = torch.linspace(-1, 1, 8)
    model.latent.delta = lambda encoded, start, is_token, mask, steps: middle.expand_as(start)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=3e-3)
    model.train()
    for step in range(300):
        loss, size, _ = loss_of()(model, sample_of(SOURCES, TARGETS, epoch=step))
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        latents, mask, memory, is_source = pieces(model)
        spread = torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
        step = model.network(latents + 0.5 * spread, mask, memory, is_source)
    wanted = middle - latents - 0.5 * spread
    assert float((step - wanted)[mask].square().mean()) < 0.05 * float(wanted[mask].square().mean())


def test_the_spread_of_the_start_points_and_the_moves_of_rollouts_are_heeded() -> None:
    """Twice the noise starts twice as far; more steps of a roll-out, or smaller ones, end elsewhere."""
    once, twice = (starts(refiner(start_points="prior", start_noise=noise), 3) for noise in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)
    rolled: dict[str, Any] = {"rollout_start": 0, "rollout_share": 1.0, "dropout": 0.0}
    one, more, half = (
        starts(refiner(**rolled, **how), 3) for how in ({}, {"rollout_steps": 2}, {"rollout_step_size": 0.5})
    )
    assert not torch.allclose(one, more) and not torch.allclose(one, half)


def test_a_refiner_has_the_layers_that_were_asked_for() -> None:
    assert [len(refiner(refiner_layers=n).network.stack.layers) for n in (1, 3)] == [1, 3]


def test_a_pass_that_is_replaced_is_the_one_that_runs() -> None:
    """Also for the model that it stands on: a compiled or quantised pass takes the place of the plain one."""
    model = refiner()
    for name, part in list(model.passes.items()):
        module = nn.Sequential()
        module.forward = lambda *given, name=name, plain=part.module: calls.update([name]) or plain(*given)  # type: ignore
        model.passes |= {name: Pass(module, part.counts_as)}
    calls = Counter[str]()
    decode(model, sample_of(SOURCES), iterations=2, **asked("score"))
    decode(model, sample_of(SOURCES), iterations=1, **asked("delta"))
    assert set(calls) == set(model.passes)


def test_a_configuration_builds_more_than_one_model(tmp_path: Any) -> None:
    """The options of the base that were written into it the first time are no reason to refuse the second."""
    kind, cfg = type(refiner()), tiny.config("lanmt_refiner_tiny", latent_options="{}")
    with pytest.raises(UsageError, match="--latent-options .* --latent-model"):
        kind.read_base(cfg)
    latent = refiner().latent
    state = {
        "cfg": {"model": vars(tiny.config("lanmt_continuous_tiny"))},
        "model": latent.state_dict(),
        "best_loss": 0.0,
    }
    torch.save(state, tmp_path / "latent.pt")
    cfg = tiny.config("lanmt_refiner_tiny", latent_model=str(tmp_path / "latent.pt"))
    for _ in range(2):
        assert kind.read_base(cfg) is not None and '"encoder_embed_dim": 32' in cfg.latent_options
