"""The schema of results.json: what a row must hold, what is refused, how a file is written and put together."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nar_tools import cli
from nar_tools.errors import ToolError
from nar_tools.measure import results
from tests.tools.rows import SHA, forced, row

OTHER = SHA[::-1]


def test_a_right_row_passes() -> None:
    results.check(row())
    results.check(forced("cmlm-t4", 25))


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
        ({"forced_length": 25.0}, "forced_length is no int"),
        ({"forced_length": 0, "bleu": None, "signature": None}, "forced_length 0 is less than 1"),
        ({"forced_length": 25}, "row cmlm-t4: bleu, signature of a forced length"),
        ({"id": "../elsewhere"}, "a row needs an id"),
        ({"speed": 3.0}, "has an unknown speed"),
        ({"engine": None}, "engine is no str"),
        ({"engine": "onnx"}, "row cmlm-t4: engine onnx is none of eager, int8"),
        ({"throughput": {"1": "fast"}}, "throughput is no dict"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ToolError, match=re.escape(complaint)):
        results.check(row(**changes))


def test_a_field_that_is_not_there_is_refused_by_name() -> None:
    cut = row()
    del cut["seed"]
    with pytest.raises(ToolError, match="row cmlm-t4 lacks seed"):
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


def test_rows_of_files_that_are_older_than_a_field_are_read(tmp_path: Path) -> None:
    old = {name: value for name, value in row("a").items() if name not in results.LATER}
    (tmp_path / "results.json").write_text(json.dumps([old]))
    assert results.read(tmp_path / "results.json") == [row("a")]
    assert row("a")["engine"] == "eager" and set(results.LATER) < set(results.FIELDS)


def test_an_update_replaces_rows_in_place_and_appends_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.update(path, [row("a"), row("b")])
    results.update(path, [row("c"), row("a", bleu=40.0)])
    assert [(r["id"], r["bleu"]) for r in results.read(path)] == [("a", 40.0), ("b", 33.5), ("c", 33.5)]


def test_a_wrong_row_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, [row("a")])
    before = path.read_bytes()
    with pytest.raises(ToolError, match="bleu"):
        results.update(path, [row("b"), row("a", bleu="high")])
    assert path.read_bytes() == before


def test_an_update_leaves_rows_of_another_size_or_length_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.update(path, [row("a"), forced("a", 25), forced("a", 25, size="base")])
    results.update(path, [forced("a", 25, ms_p95=1.0), forced("a", 60)])
    found = [(r["size"], r["forced_length"], r["ms_p95"]) for r in results.read(path)]
    assert found == [("small", None, 31.25), ("small", 25, 1.0), ("base", 25, 31.25), ("small", 60, 31.25)]


@pytest.mark.parametrize(
    ("twice", "name"),
    [
        (row("a"), "a (size small, cpu)"),
        (forced("a", 25), "a (size small, cpu, forced length 25)"),
        (forced("a", 25, size="base"), "a (size base, cpu, forced length 25)"),
    ],
)
def test_two_rows_of_one_id_size_and_length_are_refused(tmp_path: Path, twice: results.Row, name: str) -> None:
    others = [row("a"), row("a", size="base"), forced("a", 25), forced("a", 60), forced("a", 25, size="base")]
    results.write(tmp_path / "results.json", others)
    with pytest.raises(ToolError, match=rf"^two rows are called {re.escape(name)}$"):
        results.write(tmp_path / "results.json", [*others, twice])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is no JSON"), ("{}", "no list of rows"), ("[3]", "a row needs an id"), (None, "cannot read")],
)
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: Any, complaint: str) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ToolError, match=complaint):
        results.read(path)


def assemble(output: Path, *tables: list[results.Row], options: str = "") -> None:
    """Runs the program on files that hold these rows."""
    paths = [output.parent / "results" / f"{i}.json" for i in range(len(tables))]
    for path, rows in zip(paths, tables, strict=True):
        results.write(path, rows)
    cli.main(["assemble", *map(str, paths), "--output", str(output), *options.split()])


def test_the_first_file_that_has_a_row_keeps_it(tmp_path: Path) -> None:
    one = [row("ar-greedy", ms_p95=1.0), row("b"), forced("ar-greedy", 25, ms_p95=1.0)]
    other = [row("ar-greedy", ms_p95=2.0), row("a"), forced("ar-greedy", 60), forced("ar-greedy", 25, ms_p95=2.0)]
    assemble(tmp_path / "results.json", one, other)
    found = results.read(tmp_path / "results.json")
    assert found == [*one, row("a"), forced("ar-greedy", 60)]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([row("b", teacher_sha256=OTHER)], "a (size small, cpu) and b (size small, cpu) are of two teachers"),
        ([forced("a", 25, teacher_sha256=OTHER)], "a (size small, cpu, forced length 25) are of two teachers"),
        ([row("b", teacher_sha256=OTHER, size="base")], None),
        ([row("b", teacher_sha256=None)], None),
        ([row("a", hypotheses_sha256=OTHER)], "a (size small, cpu) has other hypotheses in another file"),
        ([row("a", hypotheses_sha256=None)], "a (size small, cpu) has other hypotheses in another file"),
        ([row("b", hypotheses_sha256=OTHER)], None),
    ],
)
def test_one_teacher_a_size_and_a_system_says_one_thing(rows: list[results.Row], complaint: str | None) -> None:
    first = [row("a", hypotheses_sha256=SHA), row("c", teacher_sha256=None)]
    if complaint is None:
        assert results.assembled([first, rows]) == first + rows
    else:
        with pytest.raises(ToolError, match=re.escape(complaint)):
            results.assembled([first, rows])


@pytest.fixture
def told(tmp_path: Path) -> results.Row:
    """A row whose hypotheses lie where they must, from the folder of the assembled file on."""
    (tmp_path / "hypotheses").mkdir()
    (tmp_path / "hypotheses" / "a.txt").write_text("one\n")
    return row("a", hypotheses="hypotheses/a.txt", hypotheses_sha256=hashlib.sha256(b"one\n").hexdigest())


def test_hypotheses_are_looked_for_beside_the_assembled_file(tmp_path: Path, told: results.Row) -> None:
    assemble(tmp_path / "results.json", [told, row("b")])
    assert results.read(tmp_path / "results.json") == [told, row("b")]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hypotheses": "hypotheses/b.txt"}, "a (size small, cpu): cannot read {}/hypotheses/b.txt: No such file"),
        ({"hypotheses_sha256": SHA}, "a (size small, cpu): {}/hypotheses/a.txt does not have the sha256 of the row"),
        ({"hypotheses": None}, "a (size small, cpu) names no file of its hypotheses"),
    ],
)
def test_missing_or_other_hypotheses_are_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    told: results.Row,
    changes: dict[str, Any],
    complaint: str,
) -> None:
    output = tmp_path / "results.json"
    output.write_text("as it was")
    with pytest.raises(SystemExit) as ended:
        assemble(output, [told | changes])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("nar assemble: " + complaint.format(tmp_path))
    assert output.read_text() == "as it was"

    assemble(output, [told | changes], options="--no-check-hypotheses")
    assert results.read(output) == [told | changes]


def test_a_row_of_another_device_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, [row("a")])
    results.update(path, [row("a", device="gpu")])
    assert [found["device"] for found in results.read(path)] == ["cpu", "gpu"]
