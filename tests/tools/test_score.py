"""Our scores beside those of the papers."""

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from nar_tools.commands import score
from tests.end_to_end.programs import ROOT, Outcome, shell
from tests.tools.conftest import Nar

REFERENCE = [f"This is the house number {i} of the street ." for i in range(20)]
SIGNATURE = "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
ROW = {"bleu": 100.0, "paper": "A 2018", "teacher": 101.0, "tolerance": 1.0}


def run(nar: Nar, folder: Path, rows: List[Dict[str, Any]], *flags: str) -> Outcome:
    asked = {"note": "a note", "signature": SIGNATURE, "rows": rows}
    (folder / "expected.json").write_text(json.dumps(asked))
    (folder / "reference").write_text("\n".join(REFERENCE) + "\n")
    paths = ("--reference", folder / "reference", "--hypotheses", folder / "h", "--output", folder / "s")
    return nar("score", folder / "expected.json", *paths, *flags)


@pytest.fixture
def hypotheses(tmp_path: Path) -> Path:
    """The reference itself, and one with a word wrong in every line."""
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "ar-beam5.txt").write_text("\n".join(REFERENCE) + "\n")
    (tmp_path / "h" / "worse.txt").write_text("\n".join(REFERENCE).replace("street", "road") + "\n")
    return tmp_path


def test_ours_and_the_papers_stand_in_columns_of_their_own(hypotheses: Path, nar: Nar) -> None:
    wanted = [{"id": "worse", **ROW}, {"id": "ar-beam5", **ROW}, {"id": "untrained", **ROW}]
    printed = run(nar, hypotheses, wanted).stdout
    rows = {row["id"]: row for row in json.loads((hypotheses / "s").read_text())["rows"]}
    assert rows["ar-beam5"]["bleu"] == 100 and rows["ar-beam5"]["met"] is True and rows["ar-beam5"]["gap"] == 0
    worse = rows["worse"]
    assert worse["bleu"] < 95 and worse["met"] is False and worse["paper_gap"] == 1
    assert worse["gap"] == worse["missing"] == pytest.approx(100 - worse["bleu"])
    assert rows["untrained"]["bleu"] is None and rows["untrained"]["met"] is None
    assert f"{worse['missing']:.2f} below" in printed and "not measured" in printed and "a note" in printed
    heading, first, *_ = printed.split("\n")
    assert heading.split() == ["system", "BLEU", "gap", "paper", "its", "gap", "verdict", "source"]
    assert first.split() == ["ar-beam5", "100.00", "0.00", "100.00", "1.00", "met", "A", "2018"]


def test_strictly_a_figure_that_is_not_met_is_an_error(hypotheses: Path, nar: Nar) -> None:
    assert run(nar, hypotheses, [{"id": "ar-beam5", **ROW}], "--strict").code == 0
    assert run(nar, hypotheses, [{"id": "worse", **ROW}], "--strict").code == 1


@pytest.mark.parametrize("wrong", ["lines", "signature", "rows", "none"])
def test_what_cannot_be_compared_is_one_line(wrong: str, hypotheses: Path, nar: Nar) -> None:
    if wrong == "lines":
        (hypotheses / "h" / "worse.txt").write_text("a\n")
    if wrong == "none":
        for path in (hypotheses / "h").iterdir():
            path.unlink()
    rows: Any = [{"id": "worse"}] if wrong == "rows" else []
    ended = run(nar, hypotheses, rows, *(["--lowercase"] if wrong == "signature" else []))
    assert ended.code == 2 and ended.stderr.count("\n") == 1 and ended.stderr.startswith("nar score: ")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/expected.json")), ids=lambda path: path.parent.name)
def test_the_expected_scores_of_every_recipe_are_of_ways_that_it_decodes(path: Path) -> None:
    told = shell(f"DRY_RUN=1 GPUS=0 OUT=/nonexistent bash {path.parent / 'run.sh'} decode").stdout
    decoded = set(re.findall(r"hypotheses/([^ ]*)\.txt", told))
    expected = {row["id"].removesuffix("-raw") for row in score.expected_of(path)["rows"]}
    assert len(decoded) > 9 and expected <= decoded
