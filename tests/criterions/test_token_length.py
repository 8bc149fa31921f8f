"""The loss of masked tokens and of the length: by hand, split, smoothed, logged."""

import math
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor

from nar_plugin.criterions.token_length import TokenLengthCriterion
from nar_plugin.methods.contract import UsageError
from nar_plugin.methods.terms import Classes, Nats, Steps, Tokens
from tests import tiny
from tests.tiny import MASK, criterion, random_rows, sample_of, tiny_model

SOURCES = random_rows(9, 8, seed=15)
TARGETS = random_rows(9, 8, seed=16)


def gradients(model: torch.nn.Module) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def terms_of(model: Any, sample: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, length = tiny.terms_of(model, sample)
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
    assert size == len(target) and float(sums["classes/length/nats"]) == pytest.approx(of_lengths, rel=1e-5)
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
    assert size == sums["sample_size"] == (sums["words/all/count"] if normalize == "token" else len(SOURCES))
    assert len(SOURCES) <= sums["words/all/count"] <= sums["ntokens"] == sum(len(row) + 1 for row in TARGETS)


def test_smoothing_changes_the_loss_and_not_the_likelihood() -> None:
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    plain, smoothed = criterion(0.0)(model, sample), criterion(0.2)(model, sample)
    assert float(plain[0].detach()) != pytest.approx(float(smoothed[0].detach()), rel=1e-3)
    for key in (*(f"words/all/{name}" for name in ("nats", "count", "correct")), "classes/length/correct"):
        assert float(plain[2][key]) == float(smoothed[2][key])


def test_right_answers_are_counted() -> None:
    model, sample = tiny_model(), sample_of(SOURCES, TARGETS)
    sums = criterion()(model, sample)[2]
    logits, target, length_logits, lengths = terms_of(model, sample)
    assert int(sums["words/all/correct"]) == int((logits.argmax(1) == target).sum()) > 0
    assert int(sums["classes/length/correct"]) == int((length_logits.argmax(1) == lengths).sum())


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
    keys = {"loss": "loss", "nll_loss": "words/all/nats", "length_loss": "classes/length/nats"}
    bits, scored = {name: float(whole[key]) / math.log(2) for name, key in keys.items()}, whole["words/all/count"]
    assert values["loss"] == pytest.approx(bits["loss"] / scored, abs=2e-3)
    assert values["nll_loss"] == pytest.approx(bits["nll_loss"] / scored, abs=2e-3)
    assert values["length_loss"] == pytest.approx(bits["length_loss"] / len(SOURCES), abs=2e-3)
    assert values["ppl"] == pytest.approx(2 ** (bits["nll_loss"] / scored), rel=2e-3)
    assert values["accuracy"] == pytest.approx(100 * float(whole["words/all/correct"]) / scored, abs=0.01)
    assert values["length_accuracy"] == pytest.approx(
        100 * float(whole["classes/length/correct"]) / len(SOURCES), abs=0.01
    )


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


def test_a_batch_without_side_columns_is_refused_in_one_line() -> None:
    sample = sample_of(SOURCES, TARGETS)
    del sample["columns"]
    with pytest.raises(UsageError, match="--criterion token_length needs --task translation_nar"):
        criterion()(tiny_model(), sample)


def test_a_term_of_another_kind_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="--criterion token_length has no use for the term 'step'"):
        criterion().loss_of(Steps("step", torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1).bool()), {})


def fixed_terms(*terms: Any) -> Any:
    """A model that gives these terms."""
    return lambda net_input, target, **columns: list(terms)


LOGITS = torch.randn(6, 9, generator=torch.Generator().manual_seed(3))
IDS = torch.tensor([0, 3, 8, 1, 1, 7])


def test_what_is_not_counted_adds_to_the_loss_and_not_to_the_sample_size() -> None:
    """A code's cross-entropy, a second head, a later pass: the denominator is that of the output's tokens."""
    sample = sample_of(SOURCES, TARGETS)
    word, code = (
        Tokens("token", LOGITS, IDS),
        Tokens("code", LOGITS[:4], IDS[:4], 0.5, is_counted=False, is_reported=False),
    )
    alone, both = (criterion()(fixed_terms(*terms), sample) for terms in ((word,), (word, code)))
    assert alone[1] == both[1] == 6
    of_code = torch.nn.functional.cross_entropy(LOGITS[:4], IDS[:4], reduction="sum")
    torch.testing.assert_close(both[0], alone[0] + 0.5 * of_code)
    values, plain = logged([both[2]]), logged([alone[2]])
    assert values["code_loss"] == pytest.approx(float(of_code) / 4 / math.log(2), abs=1e-3)
    assert {values[name] == plain[name] for name in ("nll_loss", "ppl", "accuracy")} == {True}


def test_a_pass_that_is_not_counted_may_be_reported() -> None:
    first, later = Tokens("pass0", LOGITS, IDS), Tokens("pass1", -LOGITS, IDS, is_counted=False)
    _, size, sums = criterion()(fixed_terms(first, later), sample_of(SOURCES, TARGETS))
    assert size == 6 and sums["words/all/count"] == 12
    assert {"pass0_loss", "pass1_loss", "nll_loss"} <= logged([sums]).keys()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_soft_target_of_one_word_is_that_word(smoothing: float) -> None:
    hard, soft = IDS, torch.nn.functional.one_hot(IDS, 9).float()
    sample = sample_of(SOURCES, TARGETS)
    first, second = (criterion(smoothing)(fixed_terms(Tokens("token", LOGITS, t)), sample) for t in (hard, soft))
    torch.testing.assert_close(first[0], second[0])
    assert first[1] == second[1] == 6 and float(first[2]["words/all/correct"]) == float(second[2]["words/all/correct"])


def test_a_soft_target_weighs_the_words_by_their_share() -> None:
    shares = torch.rand(6, 9, generator=torch.Generator().manual_seed(4)).softmax(-1)
    loss, _, _ = criterion()(fixed_terms(Tokens("token", LOGITS, shares)), sample_of(SOURCES, TARGETS))
    by_hand = -sum(
        float(shares[i, v]) * float(LOGITS[i, v] - LOGITS[i].logsumexp(0)) for i in range(6) for v in range(9)
    )
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_values_in_nats_are_added_up_where_they_count() -> None:
    """A position or a sentence each; without a budget there is no hinge. Logged a sentence, and a position."""
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    is_counted = torch.tensor([[True, True, False], [True, False, False]])
    per_position, per_sentence = Nats("commitment", values, is_counted, 0.25), Nats("ctc", torch.tensor([3.0, 5.0]))
    sample = {**sample_of(SOURCES, TARGETS), "nsentences": 2}
    loss, size, sums = criterion()(fixed_terms(per_position, per_sentence, Classes("length", LOGITS, IDS)), sample)
    assert float(loss - criterion().class_loss(Classes("length", LOGITS, IDS), {})) == pytest.approx(0.25 * 11 + 8)
    assert size == 2, "no token is counted, so sentences are"
    found = logged([sums])
    assert found["commitment"] == 5.5 and found["commitment_position"] == pytest.approx(11 / 3, abs=1e-3)
    assert found["ctc"] == 4.0 and "ctc_position" not in found


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


def test_a_soft_target_is_not_taught_and_may_rule_words_out() -> None:
    """Its maker gets no gradient, and where its share is 0 an impossible word costs nothing."""
    shares = torch.nn.functional.one_hot(IDS, 9).float().requires_grad_()
    logits = LOGITS.clone()
    logits[0, 4] = -torch.inf
    logits.requires_grad_()
    loss, _, _ = criterion()(fixed_terms(Tokens("token", logits, shares)), sample_of(SOURCES, TARGETS))
    loss.backward()
    assert (
        bool(loss.isfinite()) and shares.grad is None and logits.grad is not None and bool(logits.grad.isfinite().all())
    )


def test_terms_that_some_batches_lack_are_logged_and_names_may_have_parts() -> None:
    first = criterion()(fixed_terms(Tokens("token", LOGITS, IDS)), sample_of(SOURCES, TARGETS))[2]
    more = Tokens("head/2", LOGITS, IDS, is_counted=False, is_reported=False)
    second = criterion()(fixed_terms(Tokens("token", LOGITS, IDS), more), sample_of(SOURCES, TARGETS))[2]
    assert {"head/2_loss", "head/2_accuracy", "nll_loss"} <= logged([first, second]).keys()
