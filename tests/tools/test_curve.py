"""The validation curve: which line of a log counts, what converged means."""

import json
from pathlib import Path
from typing import List, Optional

import pytest

from nar_tools.measure import curves, figures
from tests.tools.conftest import Nar


def line(epoch: int, updates: int, loss: float, bleu: Optional[float] = None) -> str:
    """As fairseq writes it."""
    told = f"loss {loss} | nll_loss 1.5 | ppl 8.1" + (f" | bleu {bleu} | wps 9" if bleu is not None else "")
    told += f" | num_updates {updates}" + ("" if bleu is None else " | best_bleu 77")
    return f"2026-01-01 | INFO | valid | epoch {epoch:03d} | valid on 'valid' subset | {told}"


def test_a_point_is_the_last_validation_of_its_epoch_in_the_order_of_epochs() -> None:
    """An interrupted training validates an epoch twice; fairseq validates in mid-epoch where it saves there."""
    log = [line(1, 500, 6.7, 7.0), line(1, 501, 6.6, 7.1), line(2, 1002, 5.5, 21.0), "| train | epoch 002 | loss 1"]
    log += [line(10, 5010, 3.0, 30.5), line(2, 1002, 5.4, 20)]
    assert curves.points("\n".join(log)) == [
        {"epoch": 1, "updates": 501, "loss": 6.6, "bleu": 7.1},
        {"epoch": 2, "updates": 1002, "loss": 5.4, "bleu": 20.0},
        {"epoch": 10, "updates": 5010, "loss": 3.0, "bleu": 30.5},
    ]


def test_without_bleu_there_are_losses_and_nothing_is_said_of_convergence() -> None:
    curve = curves.points(line(1, 5, 2.5))
    assert curve == [{"epoch": 1, "updates": 5, "loss": 2.5, "bleu": None}]
    assert curves.best(curve) is None and curves.is_converged(curve) is None


@pytest.mark.parametrize(
    ("bleus", "converged"),
    [([9, 1, 2, 3, 4, 5], True), ([1, 9, 2, 3, 4, 5], False), ([9, 1, 2, 3, 4, 9], True), ([1, 2, 3, 4, 5, 6], False)],
)
def test_converged_is_a_best_bleu_five_epochs_old(bleus: List[float], converged: bool) -> None:
    curve = curves.points("\n".join(line(i, 10 * i, 1.0, bleu) for i, bleu in enumerate(bleus, 1)))
    assert curves.is_converged(curve) is converged


def test_the_program_writes_a_file_that_can_be_loaded(nar: Nar, tmp_path: Path) -> None:
    log, output = tmp_path / "log", tmp_path / "curve.json"
    log.write_text("\n".join([line(1, 5, 2.5, 10.0), line(2, 10, 2.0, 12.5)]))
    done = nar("curve", log, "--output", output)
    assert (done.code, done.stdout) == (0, "best valid BLEU 12.5 after epoch 2 of 2: not yet converged\n")
    assert curves.load(output) == curves.points(log.read_text())
    log.write_text("no validation")
    assert nar("curve", log, "--output", output).code == 0
    assert json.loads(output.read_text()) == []


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '[{"epoch": 1}]'])
def test_what_is_no_curve_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "curve.json").write_text(content)
    with pytest.raises(ValueError):
        curves.load(tmp_path / "curve.json")


def test_a_missing_log_is_one_line(nar: Nar, tmp_path: Path) -> None:
    done = nar("curve", tmp_path / "none")
    assert (done.code, done.stderr) == (
        2,
        f"nar curve: cannot read {tmp_path}/none: No such file or directory\n",
    )


def test_a_figure_is_drawn_of_a_log_or_of_a_curve(nar: Nar, tmp_path: Path) -> None:
    log, curve = tmp_path / "teacher.log", tmp_path / "teacher.curve.json"
    log.write_text("\n".join([line(1, 5, 2.5, 10.0), line(2, 10, 2.0, 12.5)]))
    for given in (log, curve):
        stem = tmp_path / given.suffix[1:] / "teacher"
        done = nar("curve", given, "--output", curve, "--figure", stem)
        assert done.code == 0, done.stderr
    drawn = [(tmp_path / kind / "teacher.png").read_bytes() for kind in ("log", "json")]
    assert drawn[0] == drawn[1] and b"PNG" in drawn[0][:8]
    chart = figures.curves({"teacher": curves.load(curve)})
    assert [s.points for s in chart.series] == [((1, 10.0), (2, 12.5))] and "not yet converged" in chart.caption[0]


def test_several_curves_are_drawn_over_updates_and_summed_up_by_name(nar: Nar, tmp_path: Path) -> None:
    logs = [tmp_path / "warm.log", tmp_path / "cold.log"]
    for log, bleu in zip(logs, (20.0, 10.0)):
        log.write_text("\n".join([line(1, 5, 2.5, bleu), line(2, 9, 2.0, bleu + 1)]))
    done = nar("curve", *logs, "--figure", tmp_path / "starts")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[1] == "cold: best valid BLEU 11.0 after epoch 2 of 2: not yet converged"
    chart = figures.curves({log.stem: curves.points(log.read_text()) for log in logs})
    assert chart.x_label == "updates" and not chart.caption
    assert {s.label: s.points for s in chart.series} == {"warm": ((5, 20.0), (9, 21.0)), "cold": ((5, 10.0), (9, 11.0))}


def test_several_curves_have_no_one_file_and_no_name_in_common(nar: Nar, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    logs = [tmp_path / "log", tmp_path / "a" / "log"]
    for log in logs:
        log.write_text(line(1, 5, 2.5, 1.0))
    for words, complaint in (([*logs, "--output", tmp_path / "o"], "wants one log"), (logs, "called alike")):
        done = nar("curve", *words)
        assert done.code == 2 and complaint in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_bleu_there_is_no_figure(nar: Nar, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line(1, 5, 2.5))
    done = nar("curve", tmp_path / "log", "--figure", tmp_path / "figure")
    assert (done.code, done.stderr) == (2, "nar curve: log was not validated by BLEU\n")
