"""The objective of latent-variable models: identity, free bits, budget, log."""

from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor
from torch.distributions import Normal

from nar_plugin.criterions.elbo_length import ElboLengthCriterion
from nar_plugin.methods import gaussian
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Nats
from tests import tiny
from tests.tiny import BOS, random_rows, sample_of, stand_in_task, tiny_model

SOURCES, TARGETS = random_rows(9, 8, seed=15), random_rows(9, 8, seed=16)


def elbo(budget: float = 1.0, begin: int = 0, end: int = 0, smoothing: float = 0.0, normalize: str = "sentence") -> Any:
    return ElboLengthCriterion(stand_in_task(), smoothing, normalize, 1.0, budget, begin, end)


def parts(model: Any, sample: dict[str, Any]) -> dict[str, Tensor]:
    terms = tiny.terms_of(model, sample)
    token, kl, length = terms
    return {
        "nll": torch.nn.functional.cross_entropy(token.logits.double(), token.target, reduction="none"),
        "kl": kl.values[kl.is_counted].double(),
        "length": torch.nn.functional.cross_entropy(length.logits.double(), length.target, reduction="none"),
    }


@pytest.mark.parametrize("budget", [0.0, 0.5, 5.0])
def test_the_loss_is_the_sum_of_its_parts(budget: float) -> None:
    """LANMT-3, LANMT-5: nll + Σ max(KL, b) + length, for a sentence; padding adds nothing."""
    model = tiny_model(arch="lanmt_tiny", is_lively=False)
    sample = sample_of(SOURCES, TARGETS)
    loss, size, sums = elbo(budget)(model, sample)
    found = {name: value.detach() for name, value in parts(model, sample).items()}
    expected = found["nll"].sum() + found["kl"].clamp(min=budget).sum() + found["length"].sum()
    assert size == len(SOURCES) and float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(sums["nats/kl/nats"]) == pytest.approx(float(found["kl"].sum()), rel=1e-5)
    assert len(found["kl"]) == sum(len(row) + 2 for row in SOURCES)
    alone = [elbo(budget)(model, sample_of([x], [y], first_id=i))[0] for i, (x, y) in enumerate(zip(SOURCES, TARGETS))]
    assert float(torch.stack(alone).sum().detach()) == pytest.approx(float(loss.detach()), rel=1e-4)


def test_the_budget_is_a_positions_own() -> None:
    """LANMT-3: positions above it count in full and have a gradient, those below count as the budget and have none;
    padding has neither, and no position pays for another."""
    nats = torch.tensor([[0.2, 3.0, 1.4], [2.5, 0.9, 7.0]], requires_grad=True)
    is_counted = torch.tensor([[True, True, True], [True, True, False]])
    loss = elbo(1.5).loss_of(Nats("kl", nats, is_counted, has_free_bits=True), {})
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.5 + 3.0 + 1.5 + 2.5 + 1.5)
    assert nats.grad is not None and nats.grad.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_what_has_no_free_bits_pays_from_the_first_nat() -> None:
    nats = torch.tensor([[0.2, 3.0]])
    assert float(elbo(1.5).loss_of(Nats("commitment", nats, torch.ones(1, 2).bool()), {})) == pytest.approx(3.2)
    assert float(elbo(1.5).loss_of(Nats("ctc", nats[0]), {})) == pytest.approx(3.2)


def test_without_a_mask_all_positions_have_free_bits() -> None:
    """A batch without padding is one whose mask is all True."""
    nats = torch.tensor([[0.2, 3.0], [0.1, 0.5]])
    losses = [
        float(elbo(1.5).loss_of(Nats("kl", nats, is_counted, has_free_bits=True), {}))
        for is_counted in (None, torch.ones(2, 2).bool())
    ]
    assert losses == [pytest.approx(1.5 + 3.0 + 1.5 + 1.5)] * 2


def test_a_sample_has_the_gradients_of_its_mean_and_spread() -> None:
    """LANMT-2: ∂z/∂μ = 1, ∂z/∂σ = ε."""
    mean, std = torch.zeros(2, 3, 8, requires_grad=True), torch.ones(2, 3, 8, requires_grad=True)
    keys = torch.tensor([5, 6])
    gaussian.sample(mean, std, keys).sum().backward()
    assert mean.grad is not None and std.grad is not None
    assert mean.grad.equal(torch.ones(2, 3, 8)) and std.grad.equal(gaussian.draws(keys, 3, 8))


@pytest.mark.parametrize("arch", ["lanmt_tiny", "lanmt_continuous_tiny"])
def test_the_divergence_of_a_model_is_of_its_posterior_from_its_prior(arch: str) -> None:
    """LANMT-1, LANMT-5: KL(q ‖ p), in that order, as torch has it; the length's class by hand."""
    model = tiny_model(arch=arch)
    source, target = SOURCES[0], TARGETS[0]
    sample = sample_of([source], [target])
    with torch.no_grad():
        _, kl, length = tiny.terms_of(model, sample)
        encoded = model.encode(sample["net_input"])
        if arch == "lanmt_tiny":
            begun = torch.cat([torch.tensor([[BOS]]), sample["target"]], 1)
            mean, std = model.infer(encoded, begun, None)
            expected = encoded.mean, encoded.std
        else:
            memory = model.posterior.stack.memory(encoded.states)
            mean, std = model.infer(encoded, sample["target"], None, memory)
            expected = model.expect(encoded, sample["target"] > 0, None)
        theirs = torch.distributions.kl_divergence(Normal(mean, std), Normal(*expected)).sum(-1)
    torch.testing.assert_close(kl.values, theirs, rtol=1e-4, atol=1e-4)
    assert length.target.tolist() == [len(target) - len(source) + 50]


def test_below_the_budget_there_is_no_gradient() -> None:
    """LANMT-3: the divergence of positions below it moves nothing."""
    model, sample = tiny_model(arch="lanmt_tiny", is_lively=False), sample_of(SOURCES, TARGETS)

    def prior_gradient(budget: float) -> Tensor:
        model.zero_grad()
        elbo(budget)(model, sample)[0].backward()
        return model.prior.weight.grad.clone()

    assert prior_gradient(0.0).abs().max() > 0 and not prior_gradient(1e9).any()


def test_the_divergence_alone_reaches_the_posterior_and_the_prior() -> None:
    """LANMT-2, LANMT-7: mean and standard deviation of both have a gradient."""
    (mean_q, std_q), (mean_p, std_p) = (
        gaussian.split(torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(seed), requires_grad=True))
        for seed in (1, 2)
    )
    grads = torch.autograd.grad(gaussian.divergence(mean_q, std_q, mean_p, std_p).sum(), [mean_q, std_q, mean_p, std_p])
    assert all(bool(grad.abs().gt(0).all()) for grad in grads)


def test_the_budget_falls_with_the_updates_that_the_task_names() -> None:
    """LANMT-4: whatever the criterion has seen before: nothing is to be saved."""
    criterion, found = elbo(1.0, 100, 200), []
    for update in (0, 100, 150, 200, 900, 150):
        criterion.set_num_updates(update)
        found.append(criterion.budget)
    assert found == [1.0, 1.0, 0.5, 0.0, 0.0, 0.5]


@pytest.mark.parametrize("wrong", [(-1.0, 0, 0), (1.0, 200, 100), (1.0, -1, 5), (1.0, 100, 0), (float("nan"), 0, 0)])
def test_a_budget_that_cannot_be_is_refused(wrong: tuple[float, int, int]) -> None:
    with pytest.raises(UsageError, match="--budget"):
        elbo(*wrong)


def test_what_is_logged_are_means_of_the_whole_update() -> None:
    """KL a sentence, a position, and after the hinge, in nats; two batches are one."""
    model = tiny_model(arch="lanmt_tiny", is_lively=False)

    def logged(cuts: list[slice]) -> dict[str, float]:
        batches = [sample_of(SOURCES[cut], TARGETS[cut], first_id=cut.start) for cut in cuts]
        logs = [elbo(0.5)(model, batch)[2] for batch in batches]
        with metrics.aggregate(new_root=True) as found:
            ElboLengthCriterion.reduce_metrics(logs)
        return dict(found.get_smoothed_values())

    whole = logged([slice(0, 9)])
    kl = parts(model, sample_of(SOURCES, TARGETS))["kl"].detach()
    assert whole["kl"] == pytest.approx(float(kl.sum()) / 9, abs=1e-2)
    assert whole["kl_position"] == pytest.approx(float(kl.mean()), abs=1e-3)
    assert whole["kl_hinged"] == pytest.approx(float(kl.clamp(min=0.5).mean()), abs=1e-3)
    assert whole["budget"] == 0.5 and {"nll_loss", "length_loss", "length_accuracy", "accuracy", "loss"} <= whole.keys()
    halves = logged([slice(0, 4), slice(4, 9)])
    for key in ("loss", "kl", "kl_position", "kl_hinged", "budget", "nll_loss", "length_loss"):
        assert halves[key] == pytest.approx(whole[key], abs=5e-3), key
