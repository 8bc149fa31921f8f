"""The loss of alignments: what it is divided by, what does not fit, what is said of it."""

import math
from typing import Any

import pytest
import torch
from fairseq.logging import metrics

from nar_plugin.criterions import alignment
from nar_plugin.criterions.alignment import FACTORS, AlignmentCriterion
from nar_plugin.methods.contract import UsageError
from tests.tiny import random_rows, sample_of, stand_in_task, tiny_model

SOURCES = random_rows(40, 8, seed=15)
TARGETS = [row + row[-1:] * (i % 5) for i, row in enumerate(random_rows(40, 12, seed=16))]


def criterion(normalize: str = "token") -> AlignmentCriterion:
    return AlignmentCriterion(stand_in_task(), 0.0, normalize)


def least(source: list[int], target: list[int]) -> int:
    """How many times as long as its source a canvas must be, counted up."""
    needed = len(target) + sum(a == b for a, b in zip(target, target[1:], strict=False))
    return next(factor for factor in range(1, 99) if factor * (len(source) + 1) >= needed)


def logged(logs: list[Any]) -> Any:
    with metrics.aggregate(new_root=True) as found:
        for log in logs:
            AlignmentCriterion.reduce_metrics([log])
    return found


def parts() -> list[Any]:
    return [sample_of(SOURCES[i : i + 7], TARGETS[i : i + 7], first_id=i) for i in range(0, 40, 7)]


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_what_does_not_fit_is_counted_and_teaches_nothing(upsample: int) -> None:
    """CTC-5: its loss is 0, and nothing has a gradient of it; the counts by the canvas that is needed."""
    model = tiny_model(arch="ctc_tiny", upsample=upsample)
    logs = [criterion()(model, sample)[2] for sample in parts()]
    meters = logged(logs)
    factors = [least(*pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    assert meters["misfits"].sum == sum(factor > upsample for factor in factors) > 0
    for factor in FACTORS:
        assert meters[f"_fitting{factor}"].sum == sum(min(one, FACTORS[-1]) == factor for one in factors)
    misfits = [i for i, factor in enumerate(factors) if factor > upsample]
    sample = sample_of([SOURCES[i] for i in misfits], [TARGETS[i] for i in misfits])
    loss, _, _ = criterion()(model, sample)
    loss.backward()
    assert loss == 0 and not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("normalize", ["token", "sentence"])
def test_the_loss_is_divided_by_target_tokens_and_a_split_changes_nothing(normalize: str) -> None:
    """CTC-6: end symbols counted, as by every criterion; or by sentences."""
    model, loss_of = tiny_model(arch="ctc_tiny"), criterion(normalize)
    loss, size, _ = loss_of(model, sample_of(SOURCES, TARGETS))
    assert size == (sum(len(row) + 1 for row in TARGETS) if normalize == "token" else 40)
    found = [loss_of(model, sample) for sample in parts()]
    assert sum(part for _, part, _ in found) == size
    assert sum(float(part.detach()) for part, _, _ in found) == pytest.approx(float(loss.detach()), rel=1e-5)
    meters = logged([log for _, _, log in found])
    assert meters["loss"].avg == pytest.approx(float(loss.detach()) / size / math.log(2), rel=1e-5)
    assert meters["alignment"].avg == pytest.approx(float(loss.detach()) / 40, rel=1e-5)


def test_layers_are_logged_each() -> None:
    model = tiny_model(arch="ctc_tiny", deep_supervision=True, decoder_layers=2)
    meters = logged([criterion()(model, sample_of(SOURCES, TARGETS))[2]])
    assert {"layer1", "alignment", "misfits"} <= set(meters)
    bits = (
        (meters["layer1"].avg + meters["alignment"].avg) / 2 * 40 / sum(len(row) + 1 for row in TARGETS) / math.log(2)
    )
    assert meters["loss"].avg == pytest.approx(bits, rel=1e-5)


def test_the_line_of_an_epoch_suggests_what_fits_999_of_1000() -> None:
    """CTC-5."""
    counts = dict.fromkeys(FACTORS, 0.0) | {1: 20_000.0, 2: 8_987.0, 3: 12.0, 9: 1.0}
    assert alignment.told(13, counts, 2) == (
        "13 of 29,000 targets do not fit on --upsample 2 and taught nothing; --upsample 2 is enough for 99.9% of them"
    )
    assert "--upsample 3 is enough" in alignment.told(42, counts | {3: 41.0, 2: 8_958.0}, 2)
    assert "--upsample 9 is enough" in alignment.told(9, counts | {9: 100.0}, 2)


def test_an_epoch_in_which_all_fit_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model, rows = tiny_model(arch="ctc_tiny"), random_rows(4, 5, seed=1)
    meters = logged([criterion()(model, sample_of(rows, rows))[2]])
    with caplog.at_level("INFO"):
        criterion().end_epoch(meters)
        assert not caplog.records
        criterion().end_epoch(logged([criterion()(model, sample_of(SOURCES, TARGETS))[2]]))
    assert len(caplog.records) == 1 and "do not fit on --upsample 2" in caplog.text


def test_smoothing_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="^--label-smoothing 0.1: --criterion alignment has none; leave it out$"):
        AlignmentCriterion(stand_in_task(), 0.1, "token")


def test_sums_can_be_summed_over_workers() -> None:
    """Scalars under the same keys in every batch."""
    model = tiny_model(arch="ctc_tiny")
    logs = [criterion()(model, sample)[2] for sample in parts()]
    assert len({tuple(log) for log in logs}) == 1
    assert all(torch.as_tensor(value).dim() == 0 for log in logs for value in log.values())
