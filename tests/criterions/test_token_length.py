"""The loss of masked tokens and of the length: by hand, split, smoothed, logged."""

import math
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor

from nar_plugin.criterions.token_length import TokenLengthCriterion
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Scalar
from tests.tiny import MASK, criterion, random_rows, sample_of, tiny_model

SOURCES = random_rows(9, 8, seed=15)
TARGETS = random_rows(9, 8, seed=16)


def gradients(model: torch.nn.Module) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def terms_of(model: Any, sample: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, length = model(**sample["net_input"], target=sample["target"], keys=sample["keys"])
    return tokens.logits, tokens.target, length.logits, length.target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_loss_is_the_smoothed_cross_entropy_and_the_length(smoothing: float, factor: float) -> None:
    """CMLM-5: the sum over masked tokens, and over sentences the length, unsmoothed and weighted, word by word."""
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    loss, size, sums = criterion(smoothing, length_loss_factor=factor)(model, sample)
    logits, target, length_logits, lengths = (t.detach().double() for t in terms_of(model, sample))
    expected = 0.0
    for row, gold in zip(logits, target.long().tolist(), strict=True):
        log_probs = (row - row.exp().sum().log()).tolist()
        expected -= (1 - smoothing) * log_probs[gold] + smoothing * sum(log_probs) / len(log_probs)
    of_lengths = -sum(row.softmax(0)[int(n)].log().item() for row, n in zip(length_logits, lengths, strict=True))
    assert float(loss.detach()) == pytest.approx(expected + factor * of_lengths, rel=1e-5)
    assert size == len(target) and float(sums["length_loss"]) == pytest.approx(of_lengths, rel=1e-5)
    assert [len(row) + 1 for row in TARGETS] == lengths.long().tolist()


def test_observed_positions_have_no_gradient() -> None:
    """CMLM-5: the loss reads the decoder's output at the masks and nowhere else."""
    model, sample, seen = tiny_model(), sample_of(SOURCES, TARGETS), {}
    model.target_embedding.register_forward_pre_hook(lambda _, inputs: seen.update(canvas=inputs[0]))

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen["features"] = output

    model.decoder.register_forward_hook(keep)
    criterion(0.1)(model, sample)[0].backward()
    gradient, masked = seen["features"].grad.abs().sum(-1), seen["canvas"] == MASK
    assert bool((gradient[masked] > 0).all()) and not gradient[~masked].any() and bool((~masked).any())


@pytest.mark.parametrize("normalize", ["token", "sentence"])
def test_a_split_batch_has_the_gradient_of_the_whole(normalize: str) -> None:
    """CMLM-16: summed over parts of unequal size and divided once, as the host does, the gradients are equal."""
    model, loss_of = tiny_model(), criterion(0.1, normalize)
    whole = sample_of(SOURCES, TARGETS)
    loss, whole_size, _ = loss_of(model, whole)
    loss.backward()
    expected = gradients(model) / whole_size
    model.zero_grad()
    sizes = []
    for part in (slice(0, 1), slice(1, 6), slice(6, 9)):
        loss, size, _ = loss_of(model, sample_of(SOURCES[part], TARGETS[part], first_id=part.start))
        loss.backward()
        sizes.append(size)
    assert sum(sizes) == whole_size and len(set(sizes)) == 3
    torch.testing.assert_close(gradients(model) / sum(sizes), expected, atol=1e-5, rtol=1e-4)
    assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize("normalize", ["token", "sentence"])
def test_the_sample_size_counts_masked_tokens_or_sentences(normalize: str) -> None:
    loss, size, sums = criterion(normalize=normalize)(tiny_model(), sample_of(SOURCES, TARGETS))
    assert size == sums["sample_size"] == (sums["scored"] if normalize == "token" else len(SOURCES))
    assert len(SOURCES) <= sums["scored"] <= sums["ntokens"] == sum(len(row) + 1 for row in TARGETS)


def test_smoothing_changes_the_loss_and_not_the_likelihood() -> None:
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    plain, smoothed = criterion(0.0)(model, sample), criterion(0.2)(model, sample)
    assert float(plain[0].detach()) != pytest.approx(float(smoothed[0].detach()), rel=1e-3)
    for key in ("nll_loss", "length_loss", "correct", "scored", "length_correct"):
        assert float(plain[2][key]) == float(smoothed[2][key])


def test_right_answers_are_counted() -> None:
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    sums = criterion()(model, sample)[2]
    logits, target, length_logits, lengths = terms_of(model, sample)
    assert int(sums["correct"]) == int((logits.argmax(1) == target).sum()) > 0
    assert int(sums["length_correct"]) == int((length_logits.argmax(1) == lengths).sum())


def logged(outputs: list[dict[str, Any]]) -> dict[str, float]:
    with metrics.aggregate(new_root=True) as meters:
        TokenLengthCriterion.reduce_metrics(outputs)
    return meters.get_smoothed_values()


def test_losses_are_logged_in_bits_over_the_whole_update() -> None:
    """Unequal workers: means of sums, not means of means."""
    model, loss_of = tiny_model(), criterion(0.1)
    parts = [sample_of(SOURCES[:1], TARGETS[:1]), sample_of(SOURCES[1:], TARGETS[1:], first_id=1)]
    with torch.no_grad():
        outputs = [loss_of(model, part)[2] for part in parts]
        whole = loss_of(model, sample_of(SOURCES, TARGETS))[2]
    values = logged(outputs)
    bits = {name: float(whole[name]) / math.log(2) for name in ("loss", "nll_loss", "length_loss")}
    assert values["loss"] == pytest.approx(bits["loss"] / whole["scored"], abs=2e-3)
    assert values["nll_loss"] == pytest.approx(bits["nll_loss"] / whole["scored"], abs=2e-3)
    assert values["length_loss"] == pytest.approx(bits["length_loss"] / len(SOURCES), abs=2e-3)
    assert values["ppl"] == pytest.approx(2 ** (bits["nll_loss"] / whole["scored"]), rel=2e-3)
    assert values["accuracy"] == pytest.approx(100 * float(whole["correct"]) / whole["scored"], abs=0.01)
    assert values["length_accuracy"] == pytest.approx(100 * float(whole["length_correct"]) / len(SOURCES), abs=0.01)


def test_every_worker_logs_the_same_keys_that_can_be_summed() -> None:
    model, loss_of = tiny_model(), criterion()
    assert TokenLengthCriterion.logging_outputs_can_be_summed()
    outputs = [loss_of(model, sample_of(SOURCES[a:b], TARGETS[a:b]))[2] for a, b in ((0, 1), (1, 9))]
    assert list(outputs[0]) == list(outputs[1])
    assert all(torch.as_tensor(value).numel() == 1 for output in outputs for value in output.values())
    assert not any(isinstance(v, Tensor) and v.requires_grad for output in outputs for v in output.values())


def test_the_loss_is_summed_in_float32_under_half_precision() -> None:
    model, sample = tiny_model().to(torch.bfloat16), sample_of(SOURCES, TARGETS)
    assert criterion(0.1)(model, sample)[0].dtype == torch.float32


def test_the_loss_is_the_same_in_training_and_validation_where_nothing_is_dropped() -> None:
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    evaluated = criterion()(model, sample)[0].detach()
    assert torch.equal(criterion()(model.train(), sample)[0].detach(), evaluated)


def test_a_batch_without_keys_is_refused_in_one_line() -> None:
    sample = sample_of(SOURCES, TARGETS)
    del sample["keys"]
    with pytest.raises(UsageError, match="--criterion token_length needs --task translation_nar"):
        criterion()(tiny_model(), sample)


def test_a_term_of_another_kind_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="--criterion token_length has no use for the term 'prior'"):
        criterion().loss_of(Scalar("prior", torch.zeros(())), {})


@pytest.mark.parametrize("arch", ["mask_predict_tiny", "iterative_refinement_tiny"])
def test_under_autocast_the_loss_and_its_gradients_are_nearly_those_of_float32(arch: str) -> None:
    sample = sample_of(SOURCES, TARGETS)
    found = []
    for is_autocast in (False, True):
        model = tiny_model(arch=arch, is_lively=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            loss, size, _ = criterion(0.1)(model, sample)
        loss.backward()
        assert loss.dtype == torch.float32
        found.append((float(loss.detach()) / size, gradients(model) / size))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.01) and found[0][0] != found[1][0]
    assert float(torch.cosine_similarity(found[0][1], found[1][1], dim=0)) > 0.99
