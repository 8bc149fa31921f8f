"""Prints the rows of results.json files as a table, with sacreBLEU's signature below.

report.py results.json [more.json ...] [--markdown]
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import results
from results import Row

BASELINES = ("greedy", "beam3", "beam4", "beam5")
UNKNOWN = "-"


def number(digits: int, suffix: str = "") -> Callable[[Any], str]:
    """A formatter of numbers that may be null."""
    return lambda value: UNKNOWN if value is None else f"{value:.{digits}f}{suffix}"


def speed_over(name: str) -> Callable[[Row], str]:
    """The cell of a row's speed over one of the teacher's searches."""
    return lambda row: number(2, "x")((row["speedups"] or {}).get(name))


def columns(rows: List[Row]) -> Dict[str, Callable[[Row], str]]:
    """Heading and cell of every column; only searches that some row was timed against have one."""
    compared = [name for name in BASELINES if any(name in (row["speedups"] or {}) for row in rows)]
    return {
        "system": lambda row: row["id"],
        "train": lambda row: row["train"] or UNKNOWN,
        "BLEU": lambda row: number(2)(row["bleu"]),
        "passes": lambda row: number(1)(row["passes"]),
        "ms": lambda row: number(2)(row["ms_per_sentence"]) + "~" * row["noisy"],
        "ms p95": lambda row: number(2)(row["ms_p95"]),
        "bare ms": lambda row: number(2)(row["bare_ms"]),
        **{f"/ {name}": speed_over(name) for name in compared},
    }


def notes(rows: List[Row]) -> List[str]:
    """What must stand below the table for its numbers to mean something."""
    lines = [f"sacreBLEU: {signature}" for signature in sorted({row["signature"] for row in rows if row["signature"]})]
    conditions = sorted({f"{row['device']}, threads: {row['threads']}, size: {row['size']}" for row in rows})
    lines += [f"ms: median a sentence at batch 1 ({'; '.join(conditions)}); / greedy ...: times as fast as the teacher"]
    if any(row["noisy"] for row in rows):
        lines.append("~: other processes ran at the same time; these times mean nothing")
    return lines


def table(rows: List[Row], markdown: bool = False) -> str:
    """Aligned text, or a table of Markdown; the first two columns to the left, numbers to the right."""
    cells = [list(columns(rows)), *([cell(row) for cell in columns(rows).values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]

    def line(values: List[str]) -> List[str]:
        return [v.ljust(w) if i < 2 else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths))]

    if not markdown:
        return "\n".join(["  ".join(line(values)).rstrip() for values in cells] + [""] + notes(rows))
    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    marked = [f"| {' | '.join(values)} |" for values in (line(cells[0]), rule, *map(line, cells[1:]))]
    return "\n".join(marked + [""] + [f"{note}  " for note in notes(rows)]).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="files that benchmark.py wrote")
    parser.add_argument("--markdown", action="store_true", help="for a README")
    args = parser.parse_args()
    try:
        rows = [row for path in args.results for row in results.read(path)]
    except results.ResultsError as error:
        print(f"report.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(table(rows, args.markdown))


if __name__ == "__main__":
    main()
