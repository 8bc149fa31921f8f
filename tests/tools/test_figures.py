"""The figures: every row stands where its values say, legends name all, and the same rows give the same bytes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from nar_tools import cli
from nar_tools.errors import ToolError
from nar_tools.measure import figures, results
from nar_tools.measure.figures import Chart, Series
from tests.tools.rows import SHA, forced, row

SCORES = {1: 27.9, 2: 31.4, 4: 34.1, 10: 34.9}
LENGTHS = (10, 25, 50, 100, 250, 500, 1000)


def scored(name: str, bleu: float, passes: float, over_beam5: float, **changes: Any) -> results.Row:
    """A row with a score; ``over_beam5``: its speed."""
    speeds = {"greedy": over_beam5 / 2, "beam5": over_beam5}
    found = row(name, bleu=bleu, passes=passes, speedups=speeds, teacher_bleu=36.4, greedy_bleu=35.6)
    return {**found, **changes}


def measured_rows() -> list[results.Row]:
    """As a run measures them: a teacher, an autoregressive rival, mask-predict in 16 ways, times by length."""
    found = [
        scored(f"ar-{search}", bleu, 13, speed)
        for search, bleu, speed in (("greedy", 35.6, 2.04), ("beam3", 36.2, 1.37), ("beam4", 36.3, 1.18))
    ]
    found += [scored("ar-beam5", 36.4, 13, 1.0), scored("ar-deep-shallow", 35.3, 12.8, 3.24)]
    for (steps, bleu), data, length in itertools.product(SCORES.items(), ("", "-raw"), ("", "-l1")):
        worse = (6.5 - steps / 4 if data else 0) + (0.4 if length else 0)
        faster = 1.08 if length else 1
        found.append(scored(f"cmlm{data}-t{steps}{length}", bleu - worse, steps, faster * 20 / (1.5 + steps)))
    for n in LENGTHS:
        times = {"ar-greedy": 1.2 * n, "ar-beam5": 2.2 * n, "ar-deep-shallow": 0.6 * n, "cmlm-t4-l1": 6 + n / 12}
        found += [forced(name, n, ms_per_sentence=ms, baseline=None, speedup=None) for name, ms in times.items()]
    for i, one in enumerate(found[:6]):
        one["throughput"] = {"1": 20.0 + i, "8": 60.0 + 5 * i, "64": 300.0 - 40 * i}
    return found


ROWS = measured_rows()
WIDE = [
    forced(
        f"{name}-w{width}-{threads}t",
        25,
        width=width,
        threads=threads,
        ms_per_sentence=ms * width / threads,
        baseline=None,
        speedup=None,
    )
    for name, ms in (("ct2-int8", 1.0), ("cmlm-eager", 0.5), ("cmlm-int8", 0.125))
    for width in (128, 256, 512)
    for threads in (1, 2)
]
ROWS_OF = {**dict.fromkeys(figures.CHARTS, ROWS), "capacity": WIDE}
OF_ONE_SIZE = [name for name in figures.CHARTS if name != "capacity"]
OTHERS = [
    scored(f"method{i}-{kind}", 24 + i / 2, 1 + i, 12 - i) for i in range(8) for kind in ("ft", "delta1", "delta4")
]
"""Of a project with many methods."""


def points_of(chart: Chart) -> dict[str, tuple[figures.Point, ...]]:
    return {series.label: series.points for series in chart.series}


def test_times_by_length_have_a_line_for_each_system_and_a_point_for_each_row() -> None:
    times = {("ar-greedy", 25): 30.0, ("cmlm-t4", 100): 12.0, ("cmlm-t4", 25): 8.0, ("ar-greedy", 100): 120.0}
    timed = [forced(name, n, ms_per_sentence=ms, speedup=None) for (name, n), ms in times.items()]
    chart = figures.latency([row("cmlm-t4"), *timed, forced("b", 25, ms_per_sentence=None, speedup=None)])
    assert points_of(chart) == {"ar-greedy": ((25, 30), (100, 120)), "cmlm-t4": ((25, 8), (100, 12))}
    assert chart.log_y and chart.x_ticks == [25, 100]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("cmlm-t4", "cmlm"),
        ("cmlm-t10-l1", "cmlm-l1"),
        ("cmlm-raw-t4-l1", "cmlm-raw-l1"),
        ("lee-k10", "lee"),
        ("lee-adaptive", "lee-adaptive"),
        ("lanmt-delta2", "lanmt-delta"),
        ("cont-energy4", "cont-energy"),
        ("cmlm-linear-t4", "cmlm-linear"),
        ("cmlm-threshold-u0.95", "cmlm-threshold"),
        ("cmlm-entropy-u4-l1", "cmlm-entropy-l1"),
        ("nat-npd10", "nat-npd10"),
        ("nat-ft", "nat-ft"),
    ],
)
def test_a_family_is_the_name_without_its_steps(name: str, family: str) -> None:
    assert figures.family_of(name) == family


def test_quality_by_passes_has_a_line_for_each_family_and_autoregressive_systems_are_levels() -> None:
    measured = [
        scored("ar-greedy", 35.6, 13, 2.0),
        scored("ar-beam3", 36.0, 13, 1.4),
        scored("ar-deep-shallow", 35.2, 13, 3.0),
        scored("cmlm-t10", 34.9, 10, 2.0),
        scored("cmlm-t1", 28.0, 1, 10.0),
        scored("cmlm-t4-l1", 33.6, 4, 5.0),
        scored("lee-adaptive", 31.0, 3.4, 5.0),
        forced("cmlm-t4", 25),
    ]
    chart = figures.steps(measured)
    assert points_of(chart) == {
        "cmlm": ((1, 28.0), (10, 34.9)),
        "cmlm-t4-l1": ((4, 33.6),),
        "lee-adaptive": ((3.4, 31.0),),
    }
    assert chart.levels == {"ar-beam5": 36.4, "ar-greedy": 35.6, "ar-deep-shallow": 35.2}
    assert chart.x_ticks == [1, 4, 10]


def test_rules_that_end_by_a_threshold_have_a_line_each_over_their_mean_passes() -> None:
    measured = [
        scored("cmlm-threshold-u0.95", 34.9, 6.25, 2.0),
        scored("cmlm-threshold-u0.5", 33.0, 2.5, 4.0),
        scored("cmlm-entropy-u0.5", 34.5, 7.5, 2.0),
        scored("cmlm-entropy-u8", 32.0, 1.9, 6.0),
        scored("cmlm-linear-t4", 34.0, 4, 4.0),
    ]
    assert points_of(figures.steps(measured)) == {
        "cmlm-threshold": ((2.5, 33.0), (6.25, 34.9)),
        "cmlm-entropy": ((7.5, 34.5), (1.9, 32.0)),
        "cmlm-linear-t4": ((4, 34.0),),
    }
    assert [series.numbers for series in figures.speed(measured).series] == [(0.5, 0.95), (0.5, 8), ()]


def test_quality_by_speed_has_a_line_for_each_family_with_its_numbers_of_steps() -> None:
    measured = [
        scored("cmlm-t10", 34.9, 10, 1.8),
        scored("ar-beam5", 36.4, 13, 1.0),
        scored("cmlm-t1", 28.0, 1, 10.0),
        scored("ar-deep-shallow", 35.2, 13, 3.0),
        scored("cmlm-t4", 34.0, 4, 4.5),
        scored("lee-k5", 27.0, 1, 9.0),
        row("untimed", speedups={"greedy": 2.0}),
        forced("cmlm-t4", 25),
    ]
    chart = figures.speed(measured)
    assert chart.series == [
        Series("cmlm", ((10.0, 28.0), (4.5, 34.0), (1.8, 34.9)), (1, 4, 10)),
        Series("ar-beam5", ((1.0, 36.4),)),
        Series("ar-deep-shallow", ((3.0, 35.2),)),
        Series("lee-k5", ((9.0, 27.0),)),
    ]
    assert chart.front == [(1.0, 36.4), (3.0, 35.2), (4.5, 34.0), (10.0, 28.0)]


def test_nothing_beats_the_front_and_something_on_it_beats_all_else() -> None:
    points = [tuple(point) for point in np.random.default_rng(1).integers(0, 12, (60, 2)).tolist()]
    front = figures.front_of(points)
    reached = [[all(ours >= theirs for ours, theirs in zip(p, q, strict=True)) for p in front] for q in points]
    assert front == sorted(set(front)) and all(map(any, reached))
    assert not any(p != q and all(map(lambda a, b: a >= b, p, q)) for p in points for q in front)


def test_systems_differ_by_their_markers_even_without_colour() -> None:
    labels = [*(f"cmlm{i}" for i in range(16)), *(f"ar-beam{i}" for i in range(8))]
    assert len({(look["marker"], look["markerfacecolor"]) for look in figures.looks(labels)}) == len(labels)


def test_more_systems_than_markers_differ_by_their_colours() -> None:
    found = figures.looks([str(number) for number in range(50)])
    assert len({tuple(look.values()) for look in found}) == 50


@pytest.mark.parametrize("name", OF_ONE_SIZE)
def test_a_figure_says_what_it_was_measured_on(name: str) -> None:
    chart = figures.CHARTS[name](ROWS)
    text = "\n".join(chart.caption)
    assert text.startswith("cpu, 1 thread, size small. ") and chart.title.endswith("size small")
    assert ("detokenised sacreBLEU" in text) == (chart.y_label == "BLEU")
    assert "these times mean nothing" not in text
    noisy = figures.CHARTS[name]([{**row, "noisy": True} for row in ROWS])
    assert ("these times mean nothing" in noisy.caption[-1]) == (name != "steps"), "there are no times in steps"


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("speed", {"size": "base"}, "cpu, 1 thread, size base; cpu, 1 thread, size small"),
        ("speed", {"threads": 2}, "cpu, 1 thread, size small; cpu, 2 threads, size small"),
        ("steps", {"device": "gpu"}, "several conditions"),
        ("steps", {"teacher_sha256": SHA[::-1]}, "several teachers"),
        ("steps", {"id": "ar-deep-shallow", "size": "base"}, "several conditions"),
        ("latency", {"forced_length": 25, "size": "base"}, "several conditions"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(name: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        figures.CHARTS[name]([*ROWS, scored("cmlm-t3", 30.0, 3, 5.0, **changes)])


def drawn(chart: Chart) -> tuple[Figure, Any]:
    """The figure, laid out, and what measures its texts."""
    with figures.drawing():
        figure = figures.draw(chart)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return figure, canvas.get_renderer()


@pytest.mark.parametrize("name", figures.CHARTS)
def test_lines_and_points_and_numbers_are_those_of_the_chart(name: str) -> None:
    chart = figures.CHARTS[name](ROWS_OF[name])
    axes = drawn(chart)[0].axes[0]
    lines = {line.get_label(): tuple(map(tuple, line.get_xydata().tolist())) for line in axes.lines}
    assert {label: lines[label] for label in points_of(chart)} == points_of(chart)
    assert {label: {y for _, y in lines[label]} for label in chart.levels} == {k: {v} for k, v in chart.levels.items()}
    assert [line.get_xydata().tolist() for line in axes.lines if line.get_drawstyle() == "steps-pre"] == (
        [list(map(list, chart.front))] if chart.front else []
    )
    connected = {line.get_label() for line in axes.lines if line.get_linestyle() != "None"}
    assert not any((s.label in connected) != (len(s.points) > 1) for s in chart.series), "a point has no line"
    assert not any(line.get_linestyle() == "-" for line in axes.lines if line.get_label() in chart.levels)
    numbers = {(text.get_text(), text.xy) for text in axes.texts}
    assert numbers == {(f"{n:g}", point) for s in chart.series for n, point in zip(s.numbers, s.points, strict=False)}
    assert len(numbers) == (16 if name == "speed" else 0)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear" if chart.y_label == "BLEU" else "log")
    assert not chart.x_ticks or axes.get_xticks().tolist() == chart.x_ticks


@pytest.mark.parametrize("others", [[], OTHERS], ids=["few", "many"])
@pytest.mark.parametrize("name", figures.CHARTS)
def test_a_legend_beside_the_data_names_all_from_the_highest_and_no_text_is_cut_or_covered(
    others: list[results.Row], name: str
) -> None:
    chart = figures.CHARTS[name](ROWS_OF[name] + others)
    figure, renderer = drawn(chart)
    axes = figure.axes[0]
    legend = axes.get_legend()
    ends = {**chart.levels, **{s.label: s.points[-1][1] for s in chart.series}}
    listed = [text.get_text() for text in legend.get_texts()]
    assert sorted(listed) == sorted(ends)
    assert [ends[label] for label in listed] == sorted(ends.values(), reverse=True)
    words = [chart.title, "\n".join(chart.caption), chart.x_label, chart.y_label]
    parts = [legend, *(text for text in figure.findobj(Text) if text.get_text() in words)]
    assert len(parts) == 1 + len(words)
    boxes = [part.get_window_extent(renderer) for part in parts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations([axes.bbox, *boxes], 2))
    inside = figure.bbox.padded(0.5)
    assert all(inside.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_throughput_has_a_line_for_each_system_and_forced_length_from_small_batches_to_large() -> None:
    rates = {"64": 300.0, "8": 60.0, "1": 9.5}
    chart = figures.throughput([row("a", throughput=rates), forced("a", 25, throughput={"8": 7.0}), row("untimed")])
    assert points_of(chart) == {"a": ((1, 9.5), (8, 60.0), (64, 300.0)), "a, 25 tokens": ((8, 7.0),)}
    assert chart.log_x and chart.log_y and chart.x_ticks == [1, 8, 64]


def test_capacity_has_a_line_for_each_system_and_number_of_threads_from_narrow_to_wide() -> None:
    """A system of one width is none of them."""
    chart = figures.capacity([*WIDE[::-1], forced("cmlm-base", 25, width=512), row("scored", width=512)])
    assert points_of(chart)["cmlm-eager, 1 thread"] == ((128, 64.0), (256, 128.0), (512, 256.0))
    assert points_of(chart)["ct2-int8, 2 threads"] == ((128, 64.0), (256, 128.0), (512, 256.0))
    assert len(chart.series) == 6 and chart.caption == [
        "cpu. One sentence at a time; every hypothesis is forced to 25 tokens."
    ]
    with pytest.raises(ToolError, match="several devices or lengths"):
        figures.capacity([*WIDE, *({**one, "forced_length": 60} for one in WIDE)])


def test_a_training_curve_needs_no_legend() -> None:
    points = [{"epoch": epoch, "bleu": bleu} for epoch, bleu in ((1, 10.0), (2, None), (3, 12.5))]
    figure, _ = drawn(figures.curves({"teacher": points}))
    axes = figure.axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 10], [3, 12.5]] and axes.get_legend() is None
    assert all(tick == int(tick) for tick in axes.get_xticks()), "there are no halves of epochs"


def run(path: Path, rows: list[results.Row], *options: Any) -> None:
    """Runs the program on a file of these rows."""
    path.write_text(json.dumps(rows))
    cli.main(["report", str(path), *map(str, options)])


@pytest.mark.parametrize("name", figures.CHARTS)
def test_the_same_rows_give_the_same_bytes_in_another_process(tmp_path: Path, name: str) -> None:
    path, stems = tmp_path / "results.json", [tmp_path / "one folder" / "a", tmp_path / "b.c"]
    run(path, ROWS_OF[name], "--figure", name, "--output", stems[0])
    command = [sys.executable, "-m", "nar_tools", "report", path, "--figure", name, "--output", stems[1]]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        one, other = (Path(f"{stem}.{kind}").read_bytes() for stem in stems)
        assert one == other and one.startswith(start)
        assert b"Software" not in one and b"dc:date" not in one
    assert sorted(p.name for p in stems[0].parent.iterdir()) == ["a.png", "a.svg"], "an unfinished file was left"


@pytest.mark.parametrize(
    ("measured", "name", "complaint"),
    [
        ([row()], "latency", "no rows for this figure"),
        ([forced("a", 25)], "steps", "no rows for this figure"),
        ([scored("ar-beam5", 36.0, 13, 1.0)], "steps", "no rows for this figure"),
        ([row(speedups=None)], "speed", "no rows for this figure"),
        ([row()], "throughput", "no rows for this figure"),
        ([forced("a", 25, width=128)], "capacity", "no rows for this figure"),
    ],
)
def test_a_figure_without_rows_is_refused_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measured: list[results.Row],
    name: str,
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "results.json", measured, "--figure", name, "--output", tmp_path / "a")
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"nar report: {complaint}")
    assert list(tmp_path.iterdir()) == [tmp_path / "results.json"]


def test_all_figures_are_those_that_the_rows_have_something_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An autoregressive model alone has no steps; one figure that is asked for by name is another matter."""
    only = [found for found in ROWS if found["id"].startswith("ar-")]
    results.write(tmp_path / "results.json", only)
    cli.main(["report", str(tmp_path / "results.json"), "--figure", "all", "--output", str(tmp_path / "drawn")])
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in ("latency", "speed", "throughput") for kind in ("png", "svg")}
    assert "no figure steps" in capsys.readouterr().err


def test_rows_of_two_files_that_are_not_assembled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="two rows are called cmlm-t4"):
        figures.write("speed", [row(), row()], tmp_path / "a")


def test_without_matplotlib_there_are_tables_and_one_line_instead_of_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(tmp_path / "results.json", [row()])
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "results.json", [row()], "--figure", "speed", "--output", tmp_path / "a")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "nar report: figures need matplotlib: bash scripts/install.sh\n"


def test_where_one_file_cannot_be_written_both_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures.write("speed", [row()], tmp_path / "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save = Figure.savefig

    def save_half(figure: Figure, path: Path, **options: Any) -> None:
        save(figure, path, **options)
        if options["format"] == "svg":
            raise OSError("no room")

    monkeypatch.setattr(Figure, "savefig", save_half)
    with pytest.raises(ToolError, match="no room"):
        figures.write("speed", [row("b")], tmp_path / "a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
