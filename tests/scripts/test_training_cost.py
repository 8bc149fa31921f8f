"""What a training takes, measured on one batch and extrapolated."""

import argparse
from typing import Any

import pytest

import training_cost
from tests.end_to_end.programs import ROOT

RECIPE = ROOT / "examples" / "wmt14_en_de"


def row(monkeypatch: pytest.MonkeyPatch, script: str, **variables: str) -> Any:
    monkeypatch.setenv("SIZE", "tiny")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    args = argparse.Namespace(types=50, length=10, tokens=200, utilization=0.5)
    return training_cost.row_of(RECIPE / script, args)


@pytest.mark.parametrize("script", ["3_teacher.sh", "5_mask_predict.sh", "5_iterative_refinement.sh"])
def test_the_hours_are_the_operations_of_all_tokens(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = row(monkeypatch, script, TOKENS="400", UPDATES="1000", MAX_TOKENS="100")
    assert (found["tokens"], found["update"], found["updates"]) == (200, 400, 1000)
    for name, peak in training_cost.PEAKS.items():
        expected = found["tflop"] * 2 * 1000 / (peak * 0.5) / 3600
        assert found["hours"][name] == pytest.approx(expected, rel=1e-6)
    assert found["seconds"] > 0 and found["memory"] > 0.05


def test_the_operations_of_mask_predict_are_those_of_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: thrice the forward pass, two operations a weight and token; the vocabulary at masked positions only."""
    dim, hidden, types, tokens, sentences = 32, 64, 50, 200, 20
    attention, feed = 4 * dim * dim, 2 * dim * hidden
    slots = tokens + sentences  # the LENGTH token in front of every source
    encoder = slots * (attention + feed)
    decoder = tokens * (attention + feed + 2 * dim * dim) + tokens * 2 * dim * dim
    scores = 2 * dim * sentences * (11 * 11 + 10 * 10 + 10 * 10)
    lengths = sentences * dim * 1025
    least = 3 * 2 * (encoder + decoder + scores + lengths) / 1e12
    most = least + 3 * 2 * tokens * dim * types / 1e12
    found = row(monkeypatch, "5_mask_predict.sh")["tflop"]
    assert 0.9 * least < found < 1.1 * most


def test_a_script_that_trains_nothing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        training_cost.command_of(RECIPE / "1_download.sh")
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
