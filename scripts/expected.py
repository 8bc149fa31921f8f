"""Scores the hypotheses of a recipe, and sets them beside what the papers report.

    expected.py expected.json --reference test.de --hypotheses hypotheses/ --output scores.json [--lowercase]

Every ``<id>.txt`` of the folder is a line a sentence, detokenised. expected.json holds ``note``, ``signature`` (that of
BLEU, which scores must have) and ``rows``: ``id``, ``bleu`` and ``paper`` (a paper's figure and where it stands),
``teacher`` (its teacher's BLEU, or null) and ``tolerance`` (BLEU). A figure of a paper is never shown as ours: it has a
column of its own. ``--strict`` ends with 1 where ours is further below it than tolerated.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from files import fail, read, write_lines
from provenance import commit, now, sha256
from scores import scores

TEACHER = "ar-beam5"
Row = Dict[str, Any]


def expected_of(path: Path) -> Dict[str, Any]:
    """The file, checked; ends the program where it is not what the docstring says."""
    try:
        expected = json.loads(read(path))
        assert isinstance(expected["note"], str) and isinstance(expected["signature"], str)
        for row in expected["rows"]:
            assert isinstance(row["id"], str) and isinstance(row["paper"], str)
            assert isinstance(row["bleu"], (int, float)) and row["tolerance"] >= 0
            assert row["teacher"] is None or isinstance(row["teacher"], (int, float))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        fail(f"{path} is no file of expected scores: {type(error).__name__} {error}")
    return dict(expected)


def lines_of(path: Path) -> List[str]:
    return read(path).decode("utf-8", errors="replace").removesuffix("\n").split("\n")


def score(path: Path, references: List[str], lowercase: bool) -> Row:
    """The scores of a file of hypotheses. As many lines as references, or the program ends."""
    try:
        found = scores(lines_of(path), references, lowercase)
    except ValueError as error:
        fail(f"{path}: {error}")
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
    heading = ["system", "BLEU", "gap", "paper", "its gap", "", "source"]
    cells = [heading] + [
        [row["id"], *map(number, (row["bleu"], row["gap"], row["paper_bleu"], row["paper_gap"])), verdict(row)]
        + [row["paper"] or ""]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]


def number(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.2f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expected", type=Path)
    parser.add_argument("--reference", type=Path, required=True, help="the raw target text")
    parser.add_argument("--hypotheses", type=Path, required=True, help="folder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lowercase", action="store_true", help="scores of lower-cased text")
    parser.add_argument("--strict", action="store_true", help="ends with 1 where a tolerance is not met")
    return parser.parse_args()


def main() -> None:
    args = parse()
    expected = expected_of(args.expected)
    references = lines_of(args.reference)
    ours = {path.stem: score(path, references, args.lowercase) for path in sorted(args.hypotheses.glob("*.txt"))}
    if not ours:
        fail(f"no hypotheses in {args.hypotheses}")
    strange = {row["signature"] for row in ours.values() if row["signature"].split(" ")[0] != expected["signature"]}
    if strange:
        fail(f"scores are {', '.join(strange)}, those expected are {expected['signature']}")
    rows = compared(ours, expected)
    result = {"commit": commit(), "date": now(), "reference_sha256": sha256(args.reference), "rows": rows}
    write_lines(args.output, json.dumps(result, indent=1, ensure_ascii=False).split("\n"))
    print("\n".join([*table(rows), "", f"sacreBLEU: {expected['signature']}", expected["note"]]))
    if args.strict and any(row["met"] is False for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
