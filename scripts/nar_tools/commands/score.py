"""Scores files of hypotheses with sacreBLEU, and shows them beside the figures that papers report.

Example:

    nar score expected.json --reference test.de --hypotheses hypotheses --output scores.json

Every ID.txt in the folder of --hypotheses is one system's text: detokenised, one sentence a line. expected.json holds
"note", "signature" (the scores' BLEU must have it) and "rows"; a row holds "id", "bleu" and "paper" (a paper's figure
and where it stands), "teacher" (the BLEU of its teacher, or null) and "tolerance" (BLEU). A paper's figure is never
shown as one of ours: it has a column of its own. With --strict the program ends with status 1 where a score of ours is
further below the paper's than the tolerance.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read, read_lines, write_lines
from ..provenance import commit, now, sha256

TEACHER = "ar-beam5"
HEADINGS = ("system", "BLEU", "gap", "paper", "its gap", "verdict", "source")
WORDS = ("system", "verdict", "source")
Row = Dict[str, Any]


def expected_of(path: Path) -> Dict[str, Any]:
    """The file, which must be what the docstring says."""
    try:
        expected = json.loads(read(path))
        assert isinstance(expected["note"], str) and isinstance(expected["signature"], str)
        for row in expected["rows"]:
            assert isinstance(row["id"], str) and isinstance(row["paper"], str)
            assert isinstance(row["bleu"], (int, float)) and row["tolerance"] >= 0
            assert row["teacher"] is None or isinstance(row["teacher"], (int, float))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ToolError(f"{path} is no file of expected scores: {type(error).__name__} {error}") from None
    return dict(expected)


def score(path: Path, references: List[str], lowercase: bool) -> Row:
    """The scores of a file of hypotheses, which must have as many lines as the reference."""
    from ..measure.scores import scores

    try:
        found = scores(read_lines(path), references, lowercase)
    except ValueError as error:
        raise ToolError(f"{path}: {error}") from None
    return {"id": path.stem, **found, "hypotheses_sha256": sha256(path)}


def compared(ours: Dict[str, Row], expected: Dict[str, Any]) -> List[Row]:
    """A row for every id that was scored or is expected: ours, the paper's, and what is missing to it."""
    papers = {row["id"]: row for row in expected["rows"]}
    rows = []
    for name in [*ours, *(name for name in papers if name not in ours)]:
        paper = papers.get(name)
        row = {"id": name, "bleu": None, **ours.get(name, {})}
        row |= {"paper": paper and paper["paper"], "paper_bleu": paper and paper["bleu"]}
        row["gap"] = difference(ours.get(TEACHER, {}).get("bleu"), row["bleu"])
        row["paper_gap"] = paper and difference(paper["teacher"], paper["bleu"])
        row["missing"] = paper and difference(paper["bleu"], row["bleu"])
        row["met"] = row["missing"] <= paper["tolerance"] if paper and row["missing"] is not None else None
        rows.append(row)
    return rows


def difference(larger: Optional[float], smaller: Optional[float]) -> Optional[float]:
    return None if larger is None or smaller is None else round(larger - smaller, 2)


def verdict(row: Row) -> str:
    if row["bleu"] is None:
        return "not measured"
    if row["met"] is None:
        return "no figure of a paper"
    return "met" if row["met"] else f"{row['missing']:.2f} below"


def table(rows: List[Row]) -> List[str]:
    from ..measure import tables

    number = tables.number(2)
    cells = [
        [row["id"], *map(number, (row["bleu"], row["gap"], row["paper_bleu"], row["paper_gap"])), verdict(row)]
        + [row["paper"] or ""]
        for row in rows
    ]
    return tables.aligned([HEADINGS, *cells], words=WORDS)


def scored(folder: Path, references: List[str], lowercase: bool, signature: str) -> Dict[str, Row]:
    """The scores of all systems, by id; they must be of the signature that is expected."""
    ours = {path.stem: score(path, references, lowercase) for path in sorted(folder.glob("*.txt"))}
    if not ours:
        raise ToolError(f"no hypotheses in {folder}")
    strange = {row["signature"] for row in ours.values() if row["signature"].split(" ")[0] != signature}
    if strange:
        raise ToolError(f"scores are {', '.join(strange)}, those expected are {signature}")
    return ours


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("score", __doc__)
    options.add_argument("expected", type=Path)
    options.add_argument("--reference", type=Path, required=True, help="the raw target text")
    options.add_argument("--hypotheses", type=Path, required=True, help="folder")
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--lowercase", action="store_true", help="scores of lower-cased text")
    options.add_argument("--strict", action="store_true", help="end with 1 where a tolerance is not met")
    return options.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    expected = expected_of(args.expected)
    ours = scored(args.hypotheses, read_lines(args.reference), args.lowercase, expected["signature"])
    rows = compared(ours, expected)
    result = {"commit": commit(), "date": now(), "reference_sha256": sha256(args.reference), "rows": rows}
    write_lines(args.output, json.dumps(result, indent=1, ensure_ascii=False).split("\n"))
    print("\n".join([*table(rows), "", f"sacreBLEU: {expected['signature']}", expected["note"]]))
    if args.strict and any(row["met"] is False for row in rows):
        raise SystemExit(1)
