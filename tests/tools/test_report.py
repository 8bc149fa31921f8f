"""The tables: what they show and leave out, and which rows are chosen."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nar_tools import cli
from nar_tools.commands import report
from nar_tools.measure import overview, results, tables
from tests.tools.rows import forced, row

ROOT = Path(__file__).resolve().parents[2]


def test_the_report_shows_scores_and_speeds_over_the_searches_that_were_timed() -> None:
    greedy = row("ar-greedy", passes=None, speedups={"greedy": 1.0})
    lines = tables.table([row(train="distilled", teacher_bleu=35.12), greedy]).split("\n")
    assert lines[0] == "Size small, cpu, lengths the systems' own:"
    assert lines[1].split() == "system train BLEU gap passes ms ms p95 bare ms / greedy / beam5".split()
    assert lines[2].split() == "cmlm-t4 distilled 33.50 1.62 4.0 20.00 31.25 - 2.00x 3.00x".split()
    assert lines[3].split() == "ar-greedy - 33.50 - - 20.00 31.25 - 1.00x -".split()
    assert "sacreBLEU: BLEU|nrefs:1" in lines and "gap: BLEU below the teacher's beam 5" in lines


def test_a_system_that_is_better_than_the_teacher_has_a_gap_below_zero() -> None:
    assert tables.gap(row(bleu=33.5, teacher_bleu=33.0)) == "-0.50"
    assert tables.gap(row(bleu=None, teacher_bleu=33.0)) == "-"


def test_a_wide_table_has_the_ratio_of_lengths_and_the_repetitions_as_well() -> None:
    rows = [row(length_ratio=0.9876, repetition=1.234)]
    lines = tables.table(rows, wide=True).split("\n")
    assert re.split("  +", lines[1])[:6] == ["system", "train", "BLEU", "gap", "length ratio", "repetition %"]
    assert lines[2].split()[:6] == "cmlm-t4 - 33.50 - 0.988 1.23".split()
    assert "words %" not in lines[1]
    shares = {"words": 0.5, "reference words": 0.04, "2-grams": 1.0}
    lines = tables.table([row(repeats=shares)], wide=True).splitlines()
    assert re.split("  +", lines[1])[6:9] == ["words %", "reference words %", "2-grams %"]
    assert re.split("  +", lines[2])[6:9] == ["0.50", "0.04", "1.00"]
    assert "length" not in tables.table(rows).split("\n")[1]


def test_each_size_and_forced_length_has_a_table_of_times() -> None:
    rows = [
        forced("a", 60, size="base"),
        forced("a", 250),
        forced("a", 25, bare_ms=19.0, passes=4, noisy=True),
        forced("b", 25, speedups=None),
        row("a"),
    ]
    own, *timed, notes = tables.table(rows, wide=True).split("\n\n")
    assert own.startswith("Size small, cpu, lengths the systems' own:\n") and own.count("\n") == 2
    titles = [table.split("\n")[0] for table in timed]
    lengths = [("small", 25), ("small", 250), ("base", 60)]
    assert titles == [f"Size {size}, cpu, every hypothesis forced to {length} tokens:" for size, length in lengths]
    lines = timed[0].split("\n")
    assert lines[1].split() == "system passes ms bare ms / greedy / beam5".split()
    assert lines[2].split() == "a 4.0 20.00~ 19.00 2.00x 3.00x".split()
    assert lines[3].split() == "b 4.0 20.00 - - -".split()
    assert "size: base; cpu, threads: 1, size: small" in notes


def test_no_table_holds_rows_of_two_devices() -> None:
    first, second, _ = tables.table([row("a"), row("b", device="gpu"), row("c")]).split("\n\n")
    assert [line.split()[0] for line in first.split("\n")] == ["Size", "system", "a", "c"]
    assert [line.split()[0] for line in second.split("\n")] == ["Size", "system", "b"] and "gpu" in second


def test_engines_are_shown_where_a_table_has_several() -> None:
    lines = tables.table([row("a", engine="int8"), row("b"), row("c", size="base")]).split("\n")
    assert lines[1].split()[:2] == ["system", "engine"]
    assert (lines[2].split()[:2], lines[3].split()[:2]) == (["a", "int8"], ["b", "eager"])
    assert "engine" not in tables.table([row("c", size="base")])


def test_a_competitor_has_a_column_of_its_own() -> None:
    compared = {"competitor": "ct2-beam5", "competitor_ratio": 1.234}
    lines = tables.table([row("a", **compared), row("b")]).split("\n")
    assert lines[1].endswith("/ ct2-beam5") and lines[2].endswith("1.23x") and lines[3].endswith("-")
    assert "/ ct2-beam5: times as fast as ct2-beam5 in the same run" in lines


def test_times_alone_need_no_note_on_scores() -> None:
    assert "BLEU" not in tables.table([forced("a", 25)])


def test_numbers_stand_flush_right_and_words_flush_left() -> None:
    lines = tables.table([row(bleu=9.5), row("b", bleu=33.5)]).split("\n")[1:4]
    assert len({line.index(end) + len(end) for line, end in zip(lines, ("BLEU", "9.50", "33.50"), strict=True)}) == 1
    assert lines[2].startswith("b        -  ")


def test_the_report_marks_noisy_times_and_says_what_the_mark_means() -> None:
    assert "20.00~" in tables.table([row(noisy=True)]) and "~: other processes ran" in tables.table([row(noisy=True)])
    assert "~" not in tables.table([row()])


def test_a_table_for_a_readme_has_as_many_cells_in_every_line() -> None:
    title, blank, *rest = tables.table([row(), row("b")], markdown=True).split("\n")
    assert title.startswith("Size small") and not blank, "a title without a blank line would be a row"
    lines = [line for line in rest if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\| -+ \| -+ \|( -+: \|)+", lines[1])


def run(path: Path, rows: list[results.Row], *options: str) -> None:
    """Runs the program on a file of these rows, right ones or not."""
    path.write_text(json.dumps(rows))
    cli.main(["report", str(path), *options])


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
    assert "".join(chosen["id"] for chosen in results.select(rows, conditions)) == ids


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([row(bleu="high")], "", "row cmlm-t4: bleu is no float: 'high'"),
        ([row()], "--where size=base --where id=cmlm-t4", "no row has size=base and id=cmlm-t4"),
        ([row()], "--where colour=512", "--where wants FIELD=VALUE of a field of results.json, not colour=512"),
        ([row()], "--where size", "--where wants FIELD=VALUE of a field of results.json, not size"),
        ([], "", "no rows"),
    ],
)
def test_the_program_ends_with_one_line_for_a_bad_file_or_choice(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[results.Row],
    options: str,
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "results.json", rows, *options.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"nar report: {complaint}\n"


def test_the_program_prints_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Any] = [row(), forced("b", 25)]
    run(tmp_path / "results.json", rows, "--markdown", "--where", "size=small")
    assert capsys.readouterr().out == tables.table(rows, markdown=True) + "\n"


@pytest.mark.parametrize(
    "options",
    [
        "--figure speed",
        "--output a",
        "--figure speed --output a --wide",
        "--figure speed --output a --table throughput",
        "--figure nothing --output a",
        "--table throughput --wide",
        "--table nothing",
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "results.json", [row()], *options.split())
    assert ended.value.code == 2 and list(tmp_path.iterdir()) == [tmp_path / "results.json"]


README = "# Rows\n<!-- nar report results.json --where id=a -->\nold\n<!-- end -->\nmore <!-- end -->\n"


def test_a_readme_gets_its_tables_from_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, since the second time there is a table to replace; paths begin at the README, wherever one is."""
    results.write(tmp_path / "results.json", [row("a"), row("b")])
    readme = tmp_path / "README.md"
    readme.write_text(README)
    monkeypatch.chdir("/")
    table = tables.table([row("a")], markdown=True)
    for _ in range(2):
        cli.main(["report", "--refresh", str(readme)])
        assert readme.read_text() == README.replace("old\n", f"\n{table}\n\n")


READMES = [path for path in ROOT.rglob("README.md") if not {".venv", "out"} & set(path.parts)]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_of_the_readmes_are_what_their_results_say(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert report.refreshed(text, readme.parent) == text, "nar report --refresh README.md"


def test_a_readme_without_a_block_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- report.py results.json -->\nold\n<!-- end -->\n")
    with pytest.raises(SystemExit):
        cli.main(["report", "--refresh", str(readme)])
    assert "has no block" in capsys.readouterr().err


def paper(name: str, **changes: Any) -> overview.Paper:
    known = {"id": name, "method": f"method {name}", "paper": "A 2020", "corpus": "WMT", "gap": 1.25, "speedup": 3}
    return {**known, "over": "beam4", **changes}


def test_an_overview_has_the_papers_figures_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of papers.json, of rows of free lengths; where beam 5 was not timed, over the row's baseline."""
    unknown = dict.fromkeys(["paper", "corpus", "gap", "speedup", "over"])
    (tmp_path / "papers.json").write_text(json.dumps({"rows": [paper("b"), paper("a", **unknown)]}))
    other = row("b", teacher_bleu=34.0, baseline="beam4", speedups={"beam4": 3.0})
    results.write(tmp_path / "results.json", [row("a"), other, forced("b", 25), row("c")])
    monkeypatch.chdir(tmp_path)
    cli.main(["report", "results.json", "--overview", "papers.json"])
    lines = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    headings = "method,system,BLEU,gap,paper's gap,passes,/ greedy,/ beam5,paper's speed"
    assert lines[0] == headings.split(",")
    assert lines[1] == "method b,b,33.50,0.50,1.2 (WMT),4.0,-,3.00x (beam4),3.0x beam4".split(",")
    assert lines[2] == "method a,a,33.50,-,-,4.0,2.00x,3.00x,-".split(",")
    assert ["papers: b: A 2020"] in lines and not any("c" in line[1:2] for line in lines)


def test_a_readme_gets_an_overview_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "papers.json").write_text(json.dumps({"rows": [paper("a")]}))
    results.write(tmp_path / "results.json", [row("a")])
    text = "<!-- nar report results.json --overview papers.json -->\n{}<!-- end -->\n"
    expected = overview.overview([row("a")], [paper("a")], markdown=True)
    assert report.refreshed(text.format(""), tmp_path) == text.format(f"\n{expected}\n\n")


@pytest.mark.parametrize(
    ("rows", "papers", "complaint"),
    [
        ([row("a")], {"rows": [paper("b")]}, "no row b of free lengths"),
        (
            [row("a"), row("a", size="base")],
            {"rows": [paper("a")]},
            "several rows a: a (size small, cpu), a",
        ),
        ([row("a")], {"rows": [paper("a", gap="low")]}, "a row needs id, method,"),
        ([row("a")], {"rows": [{"id": "a"}]}, "a row needs id, method,"),
        ([row("a")], {}, "is no JSON with rows of papers"),
        ([row("a")], {"rows": []}, "no rows of papers"),
    ],
)
def test_an_overview_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[results.Row], papers: Any, complaint: str
) -> None:
    (tmp_path / "papers.json").write_text(json.dumps(papers))
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "results.json", rows, "--overview", str(tmp_path / "papers.json"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and complaint in said and said.count("\n") == 1


def test_the_papers_of_the_project_are_held_against_its_rows() -> None:
    folder = ROOT / "examples" / "multi30k"
    papers = overview.load(folder / "papers.json")
    overview.overview(results.read(folder / "results.json"), papers)
    assert all((paper["gap"] is None) or paper["corpus"] for paper in papers)


def test_tables_import_no_library_of_models_scores_or_figures(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", [row("a")])
    code = f"""
import sys
from nar_tools import cli
cli.main(["report", {str(tmp_path / "results.json")!r}])
cli.main(["assemble", {str(tmp_path / "results.json")!r}, "--output", {str(tmp_path / "all.json")!r}])
from nar_tools.commands import benchmark, latents, show
heavy = {{"torch", "fairseq", "matplotlib", "sacrebleu", "nar_plugin", "ctranslate2"}}
sys.exit(", ".join(heavy & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
