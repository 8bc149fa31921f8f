"""The overview of a project: its measured rows beside what the papers of their methods report.

``papers.json`` says which rows stand in it, in which order: ``rows``, each with

    id         of a row of results.json
    method     its name for a reader
    paper      who published it, and the year; null for what no paper is held against
    corpus     what the paper's figures are of
    gap        BLEU that the paper's model is below the paper's own autoregressive teacher
    speedup    how many times as fast as that teacher it is, one sentence at a time
    over       the search of the teacher that ``speedup`` is over: greedy, beam3, ...

Whatever of the last five is not known is null.
"""

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..errors import ToolError
from ..files import read
from .results import Row, name_of
from .tables import UNKNOWN, aligned, conditions, gap, rounded, signatures, speed_over

Paper = Dict[str, Any]

FIELDS: Dict[str, type] = {
    **dict.fromkeys("id method paper corpus over".split(), str),
    **dict.fromkeys("gap speedup".split(), float),
}
REQUIRED = ("id", "method")
WORDS = ("method", "system")


def is_right(paper: Any) -> bool:
    """Whether an entry of papers.json has all fields, each of its kind."""
    if not isinstance(paper, dict) or paper.keys() != FIELDS.keys() or any(paper[name] is None for name in REQUIRED):
        return False
    kinds = {name: (int, float) if kind is float else kind for name, kind in FIELDS.items()}
    return all(value is None or isinstance(value, kinds[name]) for name, value in paper.items())


def load(path: Path) -> List[Paper]:
    """The entries of a papers.json, checked."""
    try:
        papers: List[Paper] = json.loads(read(path).decode("utf-8"))["rows"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(f"{path} is no JSON with rows of papers") from None
    wrong = [paper for paper in papers if not is_right(paper)]
    if wrong:
        raise ToolError(f"{path}: a row needs {', '.join(FIELDS)}, unlike {json.dumps(wrong[0])[:100]}")
    return papers


def row_of(paper: Paper, rows: Sequence[Row]) -> Row:
    """The one measured row of an entry, at its own lengths."""
    found = [row for row in rows if row["id"] == paper["id"] and row["forced_length"] is None]
    if not found:
        raise ToolError(f"no row {paper['id']} of free lengths")
    if len(found) > 1:
        raise ToolError(f"several rows {paper['id']}: {', '.join(map(name_of, found))}; choose by --where")
    return found[0]


def reported_gap(paper: Paper) -> str:
    return UNKNOWN if paper["gap"] is None else f"{paper['gap']:.1f} ({paper['corpus']})"


def reported_speed(paper: Paper) -> str:
    over = f" {paper['over']}" if paper["over"] else ""
    return UNKNOWN if paper["speedup"] is None else f"{paper['speedup']:.1f}x{over}"


def speed_over_beam(row: Row) -> str:
    """Over beam 5; where that was not timed, over the row's own baseline, which is named."""
    if "beam5" in (row["speedups"] or {}) or row["speedup"] is None:
        return speed_over("beam5")(row)
    return f"{row['speedup']:.2f}x ({row['baseline']})"


def cells(paper: Paper, row: Row) -> Dict[str, str]:
    """A line of the table by its headings."""
    return {
        "method": paper["method"],
        "system": row["id"],
        "BLEU": rounded("bleu", 2)(row),
        "gap": gap(row),
        "paper's gap": reported_gap(paper),
        "passes": rounded("passes", 1)(row),
        "/ greedy": speed_over("greedy")(row),
        "/ beam5": speed_over_beam(row) + "~" * row["noisy"],
        "paper's speed": reported_speed(paper),
    }


def sources(papers: Sequence[Paper]) -> str:
    """Which paper stands behind which system."""
    systems: Dict[str, List[str]] = {}
    for paper in papers:
        if paper["paper"]:
            systems.setdefault(paper["paper"], []).append(paper["id"])
    return "; ".join(f"{', '.join(ids)}: {name}" for name, ids in systems.items())


def overview(rows: Sequence[Row], papers: Sequence[Paper], markdown: bool = False) -> str:
    """The table, and what must stand below it for its numbers to mean something."""
    if not papers:
        raise ToolError("no rows of papers")
    chosen = [row_of(paper, rows) for paper in papers]
    lines = [cells(paper, row) for paper, row in zip(papers, chosen)]
    notes = [
        *signatures(chosen),
        "gap: BLEU below the teacher's beam 5",
        f"/ greedy, / beam5: times as fast as the teacher in the same run, at batch 1 ({conditions(chosen)})",
        "paper's gap, paper's speed: as the paper reports them, below and over a teacher of its own",
        f"papers: {sources(papers)}",
    ]
    if any(row["noisy"] for row in chosen):
        notes.append("~: other processes ran at the same time; these times mean nothing")
    table = aligned([list(lines[0]), *(list(line.values()) for line in lines)], markdown, WORDS)
    return "\n".join([*table, "", *(note + "  " * markdown for note in notes)]).rstrip()
