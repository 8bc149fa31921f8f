"""The schema of results.json: what a row must hold, what is refused, and how a file is written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import report
import results

SHA = "0123456789abcdef" * 4


def row(name: str = "cmlm-t4", **changes: Any) -> results.Row:
    """A right row; ``changes`` replace fields of it."""
    known = {
        "id": name,
        "arch": "mask_predict_small",
        "decode_flags": "--path student.pt --iter-decode-max-iter 3",
        "passes": 4,
        "bleu": 33.5,
        "signature": "BLEU|nrefs:1",
        "sentences": 1000,
        "teacher_sha256": SHA,
        "baseline": "beam5",
        "ms_per_sentence": 20.0,
        "baseline_ms": 60.0,
        "speedup": 3.0,
        "speedups": {"greedy": 2.0, "beam5": 3.0},
        "ms_p95": 31.25,
        "ms_by_length": {"1-10": 18.0},
        "noisy": False,
        "device": "cpu",
        "size": "small",
        "threads": 1,
        "command": "scripts/benchmark.py bin",
        "date": "2020-01-01T00:00:00+00:00",
    }
    return {**dict.fromkeys(results.FIELDS), **known, **changes}


def test_a_right_row_passes() -> None:
    results.check(row())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"bleu": "33.5"}, "bleu is no float"),
        ({"bleu": True}, "bleu is no float"),
        ({"bleu": float("nan")}, "bleu is no float"),
        ({"sentences": 1000.0}, "sentences is no int"),
        ({"noisy": None}, "noisy is no bool"),
        ({"command": None}, "command is no str"),
        ({"ms_by_length": {"1-10": "18"}}, "ms_by_length is no dict"),
        ({"teacher_sha256": "abc"}, "teacher_sha256 is no sha256"),
        ({"speedup": 2.9}, "speedup 2.9 is not baseline_ms / ms_per_sentence"),
        ({"baseline_ms": None}, "speedup 3.0 is not baseline_ms / ms_per_sentence"),
        ({"id": "../elsewhere"}, "a row needs an id"),
        ({"speed": 3.0}, "has an unknown speed"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(results.ResultsError, match=re.escape(complaint)):
        results.check(row(**changes))


def test_a_field_that_is_not_there_is_refused_by_name() -> None:
    cut = row()
    del cut["seed"]
    with pytest.raises(results.ResultsError, match="row cmlm-t4 lacks seed"):
        results.check(cut)


def test_the_table_of_the_docstring_names_every_field_once() -> None:
    described = re.findall(r"^\| (\w+) \|", results.__doc__ or "", re.MULTILINE)
    assert sorted(described[1:]) == sorted(results.FIELDS)
    assert results.REQUIRED < results.FIELDS.keys()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "results.json"
    results.write(path, [row("a"), row("b")])
    assert results.read(path) == [row("a"), row("b")]
    assert list(path.parent.iterdir()) == [path], "an unfinished file was left behind"


def test_an_update_replaces_rows_in_place_and_appends_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.update(path, [row("a"), row("b")])
    results.update(path, [row("c"), row("a", bleu=40.0)])
    assert [(r["id"], r["bleu"]) for r in results.read(path)] == [("a", 40.0), ("b", 33.5), ("c", 33.5)]


def test_a_wrong_row_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, [row("a")])
    before = path.read_bytes()
    with pytest.raises(results.ResultsError, match="bleu"):
        results.update(path, [row("b"), row("a", bleu="high")])
    assert path.read_bytes() == before


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(results.ResultsError, match="two rows are called a"):
        results.write(tmp_path / "results.json", [row("a"), row("a")])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is no JSON"), ("{}", "no list of rows"), ("[3]", "a row needs an id"), (None, "cannot read")],
)
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: Any, complaint: str) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(results.ResultsError, match=complaint):
        results.read(path)


def test_the_report_shows_scores_and_speeds_over_the_searches_that_were_timed() -> None:
    lines = report.table([row(train="distilled"), row("ar-greedy", passes=None, speedups={"greedy": 1.0})]).split("\n")
    assert lines[0].split() == "system train BLEU passes ms ms p95 bare ms / greedy / beam5".split()
    assert lines[1].split() == "cmlm-t4 distilled 33.50 4.0 20.00 31.25 - 2.00x 3.00x".split()
    assert lines[2].split() == "ar-greedy - 33.50 - 20.00 31.25 - 1.00x -".split()
    assert "sacreBLEU: BLEU|nrefs:1" in lines


def test_numbers_stand_flush_right_and_words_flush_left() -> None:
    lines = report.table([row(bleu=9.5), row("b", bleu=33.5)]).split("\n")[:3]
    assert len({line.index(end) + len(end) for line, end in zip(lines, ("BLEU", "9.50", "33.50"), strict=True)}) == 1
    assert lines[2].startswith("b        -  ")


def test_the_report_marks_noisy_times_and_says_what_the_mark_means() -> None:
    assert "20.00~" in report.table([row(noisy=True)]) and "~: other processes ran" in report.table([row(noisy=True)])
    assert "~" not in report.table([row()])


def test_a_table_for_a_readme_has_as_many_cells_in_every_line() -> None:
    lines = [line for line in report.table([row(), row("b")], markdown=True).split("\n") if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\| -+ \| -+ \|( -+: \|)+", lines[1])


def test_the_report_program_ends_with_one_line_for_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row(bleu="high")]))
    monkeypatch.setattr("sys.argv", ["report.py", str(path)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "report.py: row cmlm-t4: bleu is no float: 'high'\n"
