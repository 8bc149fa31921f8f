"""Our scores beside those of the papers."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

import expected
from tests.end_to_end.programs import ROOT

REFERENCE = [f"This is the house number {i} of the street ." for i in range(20)]
SIGNATURE = "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
ROW = {"bleu": 100.0, "paper": "A 2018", "teacher": 101.0, "tolerance": 1.0}


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: List[Dict[str, Any]], *flags: str) -> Dict[str, Any]:
    """Runs the script; the rows that it wrote, by id."""
    asked = {"note": "a note", "signature": SIGNATURE, "rows": rows}
    (folder / "expected.json").write_text(json.dumps(asked))
    (folder / "reference").write_text("\n".join(REFERENCE) + "\n")
    paths = ["--reference", str(folder / "reference"), "--hypotheses", str(folder / "h"), "--output", str(folder / "s")]
    monkeypatch.setattr(sys, "argv", ["expected.py", str(folder / "expected.json"), *paths, *flags])
    expected.main()
    return {row["id"]: row for row in json.loads((folder / "s").read_text())["rows"]}


@pytest.fixture
def hypotheses(tmp_path: Path) -> Path:
    """The reference itself, and one with a word wrong in every line."""
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "ar-beam5.txt").write_text("\n".join(REFERENCE) + "\n")
    (tmp_path / "h" / "worse.txt").write_text("\n".join(REFERENCE).replace("street", "road") + "\n")
    return tmp_path


def test_ours_and_the_papers_stand_in_columns_of_their_own(
    hypotheses: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [{"id": "worse", **ROW}, {"id": "ar-beam5", **ROW}, {"id": "untrained", **ROW}]
    rows = run(monkeypatch, hypotheses, wanted)
    assert rows["ar-beam5"]["bleu"] == 100 and rows["ar-beam5"]["met"] is True and rows["ar-beam5"]["gap"] == 0
    worse = rows["worse"]
    assert worse["bleu"] < 95 and worse["met"] is False and worse["paper_gap"] == 1
    assert worse["gap"] == worse["missing"] == pytest.approx(100 - worse["bleu"])
    assert rows["untrained"]["bleu"] is None and rows["untrained"]["met"] is None
    printed = capsys.readouterr().out
    assert f"{worse['missing']:.2f} below" in printed and "not measured" in printed and "a note" in printed


def test_strictly_a_figure_that_is_not_met_is_an_error(hypotheses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, hypotheses, [{"id": "ar-beam5", **ROW}], "--strict")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, hypotheses, [{"id": "worse", **ROW}], "--strict")
    assert ended.value.code == 1


@pytest.mark.parametrize("wrong", ["lines", "signature", "rows", "none"])
def test_what_cannot_be_compared_is_one_line(
    wrong: str, hypotheses: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if wrong == "lines":
        (hypotheses / "h" / "worse.txt").write_text("a\n")
    if wrong == "none":
        for path in (hypotheses / "h").iterdir():
            path.unlink()
    rows: Any = [{"id": "worse"}] if wrong == "rows" else []
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, hypotheses, rows, *(["--lowercase"] if wrong == "signature" else []))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and error.startswith("expected.py: ")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/expected.json")), ids=lambda path: path.parent.name)
def test_the_expected_scores_of_every_recipe_are_of_ways_that_it_decodes(path: Path) -> None:
    scripts = [*path.parent.glob("[35]_*.sh"), *(ROOT / "examples" / "methods").glob("*.sh")]
    text = "".join(script.read_text() for script in scripts)
    for row in expected.expected_of(path)["rows"]:
        assert f'"{row["id"].removesuffix("-raw")} ' in text, f"nothing decodes as {row['id']}"
