"""Figures of results: a Chart says in plain numbers what stands where, and matplotlib draws it as PNG and SVG.

    latency    ms a sentence over the forced length, a line a system
    steps      BLEU over decoder passes, a line a family of systems that differ in steps or threshold alone
    speed      BLEU over the speed against the teacher's beam 5, a line a family, and which systems nothing beats
    throughput sentences a second over the size of the batch, a line a system
    capacity   ms a sentence over the width of the model, a line a system and number of threads
    curve      valid BLEU over the epochs of a training (nar curve --figure)

The same rows give the same bytes.
"""

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ..errors import ToolError
from ..files import whole
from .curves import Curve, summary
from .results import Row, check_all, short_name

Point = Tuple[float, float]

TEACHER = re.compile(r"ar-(greedy|beam\d+)")
STEP = re.compile(r"(?:-[tk]|(?<=-delta)|(?<=-energy)|(?<=-score))(\d+)(?=-|$)|-u(\d+(?:\.\d+)?)(?=-|$)")
"""The part of an id that says how many steps are made, or by which threshold they end; its groups: the number."""

OF_CAPACITY = re.compile(r"-w\d+|-\d+t(?=-|$)")
"""The parts of an id that say the width of a model and how many threads compute."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#332288", "#44AA99")
"""Of parallel systems, told apart by the colour-blind."""
MARKERS = "o^Dv<>dp"
"""Of parallel systems, first filled, then hollow; not as many as colours, so that pairs come again late."""
DARK, DARK_MARKERS, DASHES = "#333333", "sPX*", ("--", ":", "-.")
"""Of autoregressive systems."""
WIDTH, HEIGHT, ENTRY = 7.0, 4.6, 0.17
"""Inches: of the page, which a legend of many entries makes higher, and of an entry."""
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "savefig.dpi": 200,  # clear at 700 pixels and at twice as many
    "figure.constrained_layout.use": True,  # makes room for the legend and the caption
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "lines.linewidth": 1.1,
    "lines.markersize": 5,
    "svg.hashsalt": "nar_plugin",
}


@dataclass(frozen=True)
class Series:
    """A line or a point with an entry in the legend; no label, no entry."""

    label: str
    points: Tuple[Point, ...]
    numbers: Tuple[float, ...] = ()
    """Beside the points."""


@dataclass(frozen=True)
class Chart:
    title: str
    x_label: str
    y_label: str
    series: List[Series]
    caption: List[str]
    log_x: bool = True
    log_y: bool = False
    x_ticks: List[float] = field(default_factory=list)
    """Empty: 1, 2, 5, 10 ..."""
    levels: Dict[str, float] = field(default_factory=dict)
    """Horizontal lines by the ids of autoregressive systems."""
    front: List[Point] = field(default_factory=list)
    """What ``front_of`` the points says; empty: not drawn."""


def is_autoregressive(name: str) -> bool:
    return name.startswith(("ar-", "ct2-"))


def family_of(name: str) -> str:
    """The id without its number of steps: cmlm-raw-t4-l1 and cmlm-raw-t10-l1 are cmlm-raw-l1."""
    return STEP.sub("", name)


def steps_of(row: Row) -> float:
    """The number of steps, or the threshold, in a row's id; 1 where there is none: cont-score, cont-score2."""
    found = STEP.search(row["id"])
    return float(found[1] or found[2]) if found else 1


def grouped(rows: Sequence[Row], name: Callable[[str], str]) -> Dict[str, List[Row]]:
    """Rows by what ``name`` makes of their ids, in order of appearance."""
    groups: Dict[str, List[Row]] = {}
    for row in rows:
        groups.setdefault(name(row["id"]), []).append(row)
    return groups


def families(rows: Sequence[Row], at: Callable[[Row], Point]) -> List[Series]:
    """A series a family, from few steps to many; a system without relatives goes by its id, without a number."""
    found = []
    for name, members in grouped(rows, family_of).items():
        members.sort(key=steps_of)
        numbers = tuple(map(steps_of, members)) if len(members) > 1 else ()
        found.append(Series(name if numbers else members[0]["id"], tuple(map(at, members)), numbers))
    return found


def turns(colours: Sequence[str], markers: str, lines: Sequence[str]) -> Iterator[Dict[str, Any]]:
    """Looks without end, as arguments of matplotlib's plot."""
    found = zip(cycle(colours), cycle(lines), cycle(product(("auto", "white"), markers)))
    return ({"color": c, "linestyle": line, "marker": m, "markerfacecolor": face} for c, line, (face, m) in found)


def looks(labels: Sequence[str]) -> List[Dict[str, Any]]:
    """A look for each label, by its turn among the autoregressive or the parallel ones."""
    dark, bright = turns([DARK], DARK_MARKERS, DASHES), turns(COLOURS, MARKERS, "-")
    return [next(dark if is_autoregressive(label) else bright) for label in labels]


class NothingToDraw(ToolError):
    """No row has what a figure shows."""


def check_any(rows: Sequence[Row]) -> None:
    if not rows:
        raise NothingToDraw(
            "no rows for this figure (latency: of forced lengths; steps, speed: with BLEU; throughput: --batch-sizes; "
            "capacity: of several widths)"
        )


def conditions(rows: Sequence[Row]) -> str:
    """What all rows of a figure share. Raises ToolError where they do not, or where there are none."""
    check_any(rows)
    found = sorted({(row["device"], row["threads"], row["size"]) for row in rows})
    texts = [f"{device}, {threads} thread{'s' * (threads > 1)}, size {size}" for device, threads, size in found]
    if len(texts) > 1:
        raise ToolError(f"one figure of several conditions ({'; '.join(texts)}): choose by --where, e.g. size=small")
    if len({row["teacher_sha256"] for row in rows} - {None}) > 1:
        raise ToolError("one figure of several teachers: choose by --where teacher_sha256=...")
    return texts[0]


def noise(rows: Sequence[Row]) -> List[str]:
    """The line of the caption that a figure of times needs where some of them mean nothing."""
    told = "Other processes ran at the same time: these times mean nothing."
    return [told] if any(row["noisy"] for row in rows) else []


def latency(rows: Sequence[Row]) -> Chart:
    """Milliseconds a sentence over its length, of rows with forced lengths."""
    rows = [row for row in rows if row["forced_length"] and row["ms_per_sentence"]]
    about = f"{conditions(rows)}. One sentence at a time; every hypothesis is forced to the length."
    series = [
        Series(name, tuple(sorted((row["forced_length"], row["ms_per_sentence"]) for row in members)))
        for name, members in grouped(rows, str).items()
    ]
    return Chart(
        f"Time for one sentence by its length, size {rows[0]['size']}",
        "length of source and output (subwords)",
        "time for one sentence (ms)",
        series,
        [about, *noise(rows)],
        log_y=True,
        x_ticks=sorted({x for s in series for x, _ in s.points}),
    )


def steps(rows: Sequence[Row]) -> Chart:
    """BLEU over decoder passes; autoregressive systems, which pass once a token, are levels."""
    rows = [row for row in rows if row["bleu"] is not None and row["passes"]]
    parallel = [row for row in rows if not is_autoregressive(row["id"])]
    about = f"{conditions(rows if parallel else [])}. BLEU: detokenised sacreBLEU of the test set."
    taught = {"ar-greedy": "greedy_bleu", "ar-beam5": "teacher_bleu"}
    levels = {name: row[of] for name, of in taught.items() for row in parallel if row[of] is not None}
    levels |= {r["id"]: r["bleu"] for r in rows if is_autoregressive(r["id"]) and not TEACHER.fullmatch(r["id"])}
    series = [Series(s.label, s.points) for s in families(parallel, lambda row: (row["passes"], row["bleu"]))]
    return Chart(
        f"Quality by decoder passes, size {rows[0]['size']}",
        "decoder passes a sentence",
        "BLEU",
        series,
        [about, "ar-...: autoregressive, a pass a token"],
        x_ticks=sorted({x for s in series for x, _ in s.points if x == int(x)}),
        levels=levels,
    )


def front_of(points: Sequence[Point]) -> List[Point]:
    """Those that no other reaches in both coordinates, from left to right."""
    kept: List[Point] = []
    for point in sorted(set(points), reverse=True):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def speed(rows: Sequence[Row]) -> Chart:
    """BLEU over the speed against the teacher's beam 5."""
    rows = [row for row in rows if row["bleu"] is not None and (row["speedups"] or {}).get("beam5")]
    about = f"{conditions(rows)}. One sentence at a time. BLEU: detokenised sacreBLEU of the test set."
    key = "numbers: as in the ids (4: -t4)   ar-...: autoregressive   grey stairs: nothing is both faster and better"
    series = families(rows, lambda row: (row["speedups"]["beam5"], row["bleu"]))
    return Chart(
        f"Quality by speed, size {rows[0]['size']}",
        "times as fast as the teacher's beam 5",
        "BLEU",
        series,
        [about, key, *noise(rows)],
        front=front_of([point for s in series for point in s.points]),
    )


def throughput(rows: Sequence[Row]) -> Chart:
    """Sentences a second over the sentences in a batch."""
    rows = [row for row in rows if row["throughput"]]
    about = f"{conditions(rows)}. Sentences sorted by length, a batch at a time."
    series = [
        Series(short_name(row), tuple(sorted((float(size), rate) for size, rate in row["throughput"].items())))
        for row in rows
    ]
    return Chart(
        f"Throughput by size of batch, size {rows[0]['size']}",
        "sentences in a batch",
        "sentences a second",
        series,
        [about, *noise(rows)],
        log_y=True,
        x_ticks=sorted({x for s in series for x, _ in s.points}),
    )


def capacity(rows: Sequence[Row]) -> Chart:
    """Milliseconds a sentence over the width of the model, by number of threads, of systems of several widths."""
    groups: Dict[Tuple[Any, ...], Dict[float, Row]] = {}
    for row in rows:
        if row["forced_length"] and row["width"] and row["ms_per_sentence"]:
            shared = OF_CAPACITY.sub("", row["id"]), row["threads"], row["device"], row["forced_length"]
            groups.setdefault(shared, {})[row["width"]] = row
    groups = {shared: found for shared, found in groups.items() if len(found) > 1}
    drawn = [row for found in groups.values() for row in found.values()]
    check_any(drawn)
    if len({(device, length) for _, _, device, length in groups}) > 1:
        raise ToolError("one figure of several devices or lengths: choose by --where, e.g. forced_length=25")
    series = [
        Series(
            f"{name}, {threads} thread{'s' * (threads > 1)}",
            tuple((width, row["ms_per_sentence"]) for width, row in sorted(found.items())),
        )
        for (name, threads, _, _), found in groups.items()
    ]
    ((device, length),) = {(row["device"], row["forced_length"]) for row in drawn}
    about = f"{device}. One sentence at a time; every hypothesis is forced to {length} tokens."
    return Chart(
        "Time for one sentence by the width of the model",
        "width of the model's states",
        "time for one sentence (ms)",
        series,
        [about, *noise(drawn)],
        log_y=True,
        x_ticks=sorted({float(row["width"]) for row in drawn}),
    )


def curves(found: Dict[str, Curve]) -> Chart:
    """BLEU over epochs, of several curves over updates. Raises ToolError where one has no BLEU."""
    series, over = [], "epoch" if len(found) == 1 else "updates"
    for name, points in found.items():
        known = tuple((point[over], point["bleu"]) for point in points if point["bleu"] is not None)
        if not known:
            raise ToolError(f"{name} was not validated by BLEU")
        series.append(Series("" if len(found) == 1 else name, known))
    title = f"Validation of {next(iter(found))}" if len(found) == 1 else "Validation"
    notes = [summary(points) for points in found.values()] if len(found) == 1 else []
    return Chart(title, over, "BLEU of the valid set", series, notes, log_x=False)


CHARTS: Dict[str, Callable[[Sequence[Row]], Chart]] = {
    "latency": latency,
    "steps": steps,
    "speed": speed,
    "throughput": throughput,
    "capacity": capacity,
}


def draw_data(axes: Any, chart: Chart) -> None:
    """Levels, the front, lines and points, the numbers beside them."""
    if len(chart.front) > 1:
        axes.step(*zip(*chart.front), where="pre", color="#BBBBBB", linewidth=0.7)
    found = looks([*chart.levels, *(s.label for s in chart.series)])
    for (label, value), look in zip(chart.levels.items(), found):
        axes.axhline(value, label=label, **{**look, "marker": ""})
    for s, look in zip(chart.series, found[len(chart.levels) :]):
        line = look if len(s.points) > 1 else {**look, "linestyle": ""}
        axes.plot(*zip(*s.points), label=s.label, **line)
        for number, point in zip(s.numbers, s.points):
            axes.annotate(f"{number:g}", point, (2.5, 4), textcoords="offset points", color=look["color"], fontsize=7)


def draw(chart: Chart) -> Any:
    """The chart as a figure of matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = Figure((WIDTH, max(HEIGHT, 1.2 + ENTRY * len([*chart.levels, *chart.series]))))
    axes: Any = figure.add_subplot(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.set_title(chart.title, loc="left", fontsize=11, fontweight="bold")
    axes.set(xscale="log" if chart.log_x else "linear", yscale="log" if chart.log_y else "linear")
    for axis, is_log in ((axes.xaxis, chart.log_x), (axes.yaxis, chart.log_y)):
        plain = MaxNLocator(12, steps=[1, 2, 5, 10], integer=axis is axes.xaxis)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if is_log else plain)
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:,g}")
    if chart.x_ticks:
        axes.set_xticks(chart.x_ticks)
    draw_data(axes, chart)
    # In the order of the lines' last values, in which the eye meets them.
    handles = sorted(axes.get_legend_handles_labels()[0], key=lambda line: -line.get_ydata()[-1])
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    figure.supxlabel("\n".join(chart.caption), x=0.01, ha="left", fontsize=7, color="#444444")
    return figure


def drawing() -> Any:
    """A context in which matplotlib draws in our style, whatever the user's own. Raises ToolError without it."""
    try:
        from matplotlib import style
    except ImportError:
        raise ToolError("figures need matplotlib: bash scripts/install.sh") from None
    return style.context(["default", STYLE])


def write(name: str, rows: List[Row], stem: Path) -> None:
    """Draws a chart of CHARTS as STEM.png and STEM.svg. Raises ToolError."""
    check_all(rows)
    save(CHARTS[name](rows), stem)


def save(chart: Chart, stem: Path) -> None:
    """Draws a chart as STEM.png and STEM.svg, both or none. Raises ToolError without matplotlib."""
    save_drawn(lambda: draw(chart), stem)


def save_drawn(drawn: Callable[[], Any], stem: Path) -> None:
    """The figure of matplotlib that ``drawn`` makes, in our style, as STEM.png and STEM.svg."""
    # Without a date and the writer's version, so that files differ where figures do.
    about: Dict[str, Dict[str, Optional[str]]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    with drawing():
        figure = drawn()
        try:
            with ExitStack() as stack:
                for kind, metadata in about.items():
                    path = stack.enter_context(whole(Path(f"{stem}.{kind}")))
                    figure.savefig(path, format=kind, metadata=metadata)
        except OSError as error:
            raise ToolError(f"cannot write {stem}.png and .svg: {error.strerror or error}") from None
