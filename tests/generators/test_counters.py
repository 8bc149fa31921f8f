"""What decoding cost is counted exactly, and nothing else is."""

import logging
import time
from typing import Any

import pytest
import torch

from nar_plugin.generators.counters import Counters
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from tests import tiny
from tests.generators import stubs
from tests.generators.stubs import DraftStub, LatentStub, SettlingStub
from tests.tiny import SYMBOLS, random_rows, sample_of, tiny_model

SOURCES = random_rows(11, 6, seed=61)


@torch.no_grad()
def counted(model: Any, *batches: dict[str, Any], **options: Any) -> tuple[Counters, list[Any]]:
    generator = RefinementGenerator(model, SYMBOLS, tiny.options_of(model, **options))
    groups = [group for sample in batches for group in generator.generate([model], sample)]
    return generator.counters, groups


@pytest.mark.parametrize("candidates", [1, 4])
def test_calls_and_rows_of_a_fixed_number_of_passes(candidates: int) -> None:
    counters, groups = counted(
        tiny_model(), sample_of(SOURCES[:5]), sample_of(SOURCES[5:]), iterations=3, lengths=candidates
    )
    assert counters.calls == {"encoder": 2, "decoder": 2 * 4}
    assert counters.rows == {"encoder": 11, "decoder": 11 * 4 * candidates}
    assert counters.sentences == 11 and counters.tokens == sum(len(group[0]["tokens"]) for group in groups)
    assert counters.passes("encoder") == 1.0 and counters.passes("decoder") == 4.0 * candidates


def test_a_row_that_has_left_the_batch_is_not_counted() -> None:
    counters, groups = counted(DraftStub(4), sample_of(SOURCES))
    needed = [stubs.rounds_needed(source, 4) for source in SOURCES]
    assert counters.calls == {"reader": 1, "core": max(needed)}
    assert counters.rows == {"reader": 11, "core": sum(needed)} and sum(needed) < 11 * max(needed)
    assert counters.passes("core") == pytest.approx(sum(needed) / 11)


def test_a_rule_that_stops_rows_saves_passes() -> None:
    fixed, _ = counted(SettlingStub(), sample_of(SOURCES), iterations=8, stop_rule="fixed-point")
    full, _ = counted(SettlingStub(), sample_of(SOURCES), iterations=8)
    assert full.rows["core"] == 11 * 9
    assert fixed.rows["core"] == sum(1 + min(8, stubs.settles_after(source) + 1) for source in SOURCES) < 11 * 9


def test_cutting_a_batch_changes_calls_and_no_rows() -> None:
    cut, _ = counted(tiny_model(), sample_of(SOURCES), iterations=2, lengths=2, max_candidate_tokens=1)
    assert cut.calls == {"encoder": 1, "decoder": 22 * 3} and cut.rows == {"encoder": 11, "decoder": 22 * 3}


def test_passes_outside_a_decode_are_not_counted() -> None:
    model = tiny_model()
    counters, _ = counted(model, sample_of(SOURCES))
    before = dict(counters.calls)
    with torch.no_grad():
        model.encode(sample_of(SOURCES)["net_input"])
    assert counters.calls == before and not model.encoder._forward_hooks and not model.decoder._forward_hooks


def test_a_decode_that_fails_leaves_no_hook_behind() -> None:
    model = tiny_model()
    counters = Counters()
    with pytest.raises(ZeroDivisionError), counters.running(model):
        counters.live_share = 0.8
        raise ZeroDivisionError
    assert counters.live_share == 1.0
    assert not model.encoder._forward_hooks and not model.decoder._forward_hooks


def test_two_generators_of_one_model_count_each_for_itself() -> None:
    model = LatentStub()
    first, _ = counted(model, sample_of(SOURCES), iterations=1)
    second, _ = counted(model, sample_of(SOURCES[:3]), iterations=2)
    assert first.rows["core"] == 22 and second.rows["core"] == 9


def test_scoring_a_reference_is_one_pass() -> None:
    model = tiny_model()
    scorer = ReferenceScorer(model, SYMBOLS, tiny.options_of(model))
    with torch.no_grad():
        scorer.generate([model], sample_of(SOURCES, SOURCES))
    assert scorer.counters.rows == {"encoder": 11, "decoder": 11}
    assert scorer.counters.sentences == 11 and scorer.counters.tokens == sum(len(row) + 1 for row in SOURCES)


def test_seconds_are_those_inside_a_decode() -> None:
    stub, refine = LatentStub(), LatentStub.refine

    def slow(*args: Any) -> Any:
        time.sleep(0.05)
        return refine(stub, *args)

    stub.refine = slow  # type: ignore[method-assign]
    counters, _ = counted(stub, sample_of(SOURCES), iterations=2)
    spent = counters.seconds
    time.sleep(0.05)
    assert 0.1 <= spent == counters.seconds


def test_the_report_is_one_line_with_every_count(caplog: pytest.LogCaptureFixture) -> None:
    counters, _ = counted(tiny_model(), sample_of(SOURCES), iterations=3, lengths=2)
    counters.seconds = 2.2
    with caplog.at_level(logging.INFO, "nar_plugin.generators.counters"):
        counters.report()
    (record,) = caplog.records
    message = record.getMessage()
    for part in (
        "11 sentences",
        "encoder 1 passes over 11 rows (1.00 a sentence)",
        "decoder 4 passes over 88 rows (8.00 a sentence)",
        "2.20 s",
    ):
        assert part in message
    assert "200.0 ms a sentence" in message and "\n" not in message


def test_nothing_decoded_is_nothing_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nar_plugin.generators.counters"):
        Counters().report()
    assert not caplog.records and Counters().passes("decoder") == 0
