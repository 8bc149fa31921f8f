"""The tables: what they show and leave out, and which rows are chosen."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import report
import results
from tests.scripts.rows import forced, row

ROOT = Path(__file__).resolve().parents[2]


def test_the_report_shows_scores_and_speeds_over_the_searches_that_were_timed() -> None:
    greedy = row("ar-greedy", passes=None, speedups={"greedy": 1.0})
    lines = report.table([row(train="distilled", teacher_bleu=35.12), greedy]).split("\n")
    assert lines[0] == "Size small, cpu, lengths the systems' own:"
    assert lines[1].split() == "system train BLEU gap passes ms ms p95 bare ms / greedy / beam5".split()
    assert lines[2].split() == "cmlm-t4 distilled 33.50 1.62 4.0 20.00 31.25 - 2.00x 3.00x".split()
    assert lines[3].split() == "ar-greedy - 33.50 - - 20.00 31.25 - 1.00x -".split()
    assert "sacreBLEU: BLEU|nrefs:1" in lines and "gap: BLEU below the teacher's beam 5" in lines


def test_a_system_that_is_better_than_the_teacher_has_a_gap_below_zero() -> None:
    assert report.gap(row(bleu=33.5, teacher_bleu=33.0)) == "-0.50"
    assert report.gap(row(bleu=None, teacher_bleu=33.0)) == "-"


def test_a_wide_table_has_the_ratio_of_lengths_and_the_repetitions_as_well() -> None:
    rows = [row(length_ratio=0.9876, repetition=1.234)]
    lines = report.table(rows, wide=True).split("\n")
    assert re.split("  +", lines[1])[:6] == ["system", "train", "BLEU", "gap", "length ratio", "repetition %"]
    assert lines[2].split()[:6] == "cmlm-t4 - 33.50 - 0.988 1.23".split()
    assert "length" not in report.table(rows).split("\n")[1]


def test_each_size_and_forced_length_has_a_table_of_times() -> None:
    rows = [
        forced("a", 60, size="base"),
        forced("a", 250),
        forced("a", 25, bare_ms=19.0, passes=4, noisy=True),
        forced("b", 25, speedups=None),
        row("a"),
    ]
    own, *tables, notes = report.table(rows, wide=True).split("\n\n")
    assert own.startswith("Size small, cpu, lengths the systems' own:\n") and own.count("\n") == 2
    titles = [table.split("\n")[0] for table in tables]
    lengths = [("small", 25), ("small", 250), ("base", 60)]
    assert titles == [f"Size {size}, cpu, every hypothesis forced to {length} tokens:" for size, length in lengths]
    lines = tables[0].split("\n")
    assert lines[1].split() == "system passes ms bare ms / greedy / beam5".split()
    assert lines[2].split() == "a 4.0 20.00~ 19.00 2.00x 3.00x".split()
    assert lines[3].split() == "b 4.0 20.00 - - -".split()
    assert "size: base; cpu, threads: 1, size: small" in notes


def test_no_table_holds_rows_of_two_devices() -> None:
    first, second, _ = report.table([row("a"), row("b", device="gpu"), row("c")]).split("\n\n")
    assert [line.split()[0] for line in first.split("\n")] == ["Size", "system", "a", "c"]
    assert [line.split()[0] for line in second.split("\n")] == ["Size", "system", "b"] and "gpu" in second


def test_times_alone_need_no_note_on_scores() -> None:
    assert "BLEU" not in report.table([forced("a", 25)])


def test_numbers_stand_flush_right_and_words_flush_left() -> None:
    lines = report.table([row(bleu=9.5), row("b", bleu=33.5)]).split("\n")[1:4]
    assert len({line.index(end) + len(end) for line, end in zip(lines, ("BLEU", "9.50", "33.50"), strict=True)}) == 1
    assert lines[2].startswith("b        -  ")


def test_the_report_marks_noisy_times_and_says_what_the_mark_means() -> None:
    assert "20.00~" in report.table([row(noisy=True)]) and "~: other processes ran" in report.table([row(noisy=True)])
    assert "~" not in report.table([row()])


def test_a_table_for_a_readme_has_as_many_cells_in_every_line() -> None:
    title, blank, *rest = report.table([row(), row("b")], markdown=True).split("\n")
    assert title.startswith("Size small") and not blank, "a title without a blank line would be a row"
    lines = [line for line in rest if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\| -+ \| -+ \|( -+: \|)+", lines[1])


def run(monkeypatch: pytest.MonkeyPatch, path: Path, rows: list[results.Row], *options: str) -> None:
    """Runs the program on a file of these rows, right ones or not."""
    path.write_text(json.dumps(rows))
    monkeypatch.setattr("sys.argv", ["report.py", str(path), *options])
    report.main()


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ([], "abcd"),
        (["size=base"], "c"),
        (["forced_length=25"], "bc"),
        (["forced_length=null"], "ad"),
        (["forced_length=25", "size=small"], "b"),
        (["id=a", "id=d", "id=c", "size=small"], "ad"),
        (["noisy=true"], "d"),
        (["train=null", "passes=4"], "abc"),
        (["train=two words"], "d"),
    ],
)
def test_rows_are_chosen_by_their_fields(conditions: list[str], ids: str) -> None:
    named = row("d", noisy=True, train="two words")
    rows = [row("a"), forced("b", 25), forced("c", 25, size="base", passes=4.0), named]
    assert "".join(chosen["id"] for chosen in report.select(rows, conditions)) == ids


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([row(bleu="high")], "", "row cmlm-t4: bleu is no float: 'high'"),
        ([row()], "--where size=base --where id=cmlm-t4", "no row has size=base and id=cmlm-t4"),
        ([row()], "--where width=512", "--where wants FIELD=VALUE of a field in results.py, not width=512"),
        ([row()], "--where size", "--where wants FIELD=VALUE of a field in results.py, not size"),
        ([], "", "no rows"),
    ],
)
def test_the_program_ends_with_one_line_for_a_bad_file_or_choice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: list[results.Row],
    options: str,
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "results.json", rows, *options.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"report.py: {complaint}\n"


def test_the_program_prints_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [row(), forced("b", 25)]
    run(monkeypatch, tmp_path / "results.json", rows, "--markdown", "--where", "size=small")
    assert capsys.readouterr().out == report.table(rows, markdown=True) + "\n"


@pytest.mark.parametrize(
    "options", ["--figure speed", "--output a", "--figure speed --output a --wide", "--figure nothing --output a"]
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "results.json", [row()], *options.split())
    assert ended.value.code == 2 and list(tmp_path.iterdir()) == [tmp_path / "results.json"]


README = "# Rows\n<!-- report.py results.json --where id=a -->\nold\n<!-- end -->\nmore <!-- end -->\n"


def test_a_readme_gets_its_tables_from_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, since the second time there is a table to replace; paths begin at the README, wherever one is."""
    results.write(tmp_path / "results.json", [row("a"), row("b")])
    readme = tmp_path / "README.md"
    readme.write_text(README)
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", ["report.py", "--refresh", str(readme)])
    table = report.table([row("a")], markdown=True)
    for _ in range(2):
        report.main()
        assert readme.read_text() == README.replace("old\n", f"\n{table}\n\n")


READMES = [path for path in ROOT.rglob("README.md") if not {".venv", "out"} & set(path.parts)]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_of_the_readmes_are_what_their_results_say(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert report.refreshed(text, readme.parent) == text, "python scripts/report.py --refresh README.md"
