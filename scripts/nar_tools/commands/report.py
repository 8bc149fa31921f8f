"""Prints the rows of results.json files as tables, or draws a figure of them.

A table for each size of model, device and forced length, sacreBLEU's signature below. --overview: one table of the rows
that papers.json names (its fields: scripts/nar_tools/measure/overview.py), beside what the papers report. --table
throughput: sentences a second by size of batch (nar benchmark --batch-sizes), and from which size on a system is slower
than its competitor. A figure is written as PNG and SVG.

--refresh writes the tables of a README anew: what stands between  <!-- nar report ARGUMENTS -->  and  <!-- end -->; the
arguments are as here, and paths begin at the README.

Example:
    nar report results.json --where size=small --where forced_length=null --markdown
    nar report results.json --overview papers.json
    nar report results.json --figure latency --output figures/latency
    nar report --refresh README.md
"""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import List, Sequence

from .. import cli, files
from ..errors import ToolError
from ..measure import figures, overview, results, tables, throughput

BLOCK = re.compile(r"(<!-- nar report (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser("report", __doc__)
    add = parser.add_argument
    add("results", nargs="*", type=Path, help="files that nar benchmark wrote")
    chosen = "only such rows, e.g. size=base or forced_length=null; repeatable (one field: any of its values)"
    add("--where", action="append", default=[], metavar="FIELD=VALUE", help=chosen)
    add("--markdown", action="store_true", help="tables for a README")
    add("--wide", action="store_true", help="tables with ratio of lengths and repetitions")
    add("--table", choices=("systems", "throughput"), default="systems", help="which tables (default: systems)")
    add("--overview", type=Path, metavar="PAPERS", help="the rows that this papers.json names, beside the papers'")
    add("--figure", choices=(*figures.CHARTS, "all"), help="ms by length or width, BLEU by passes or speed, throughput")
    add("--output", type=Path, metavar="STEM", help="STEM.png and STEM.svg are written; with --figure all a folder")
    add("--refresh", type=Path, metavar="README", help="writes the tables of a README anew")
    args = parser.parse_args(argv)
    if bool(args.refresh) == bool(args.results):
        parser.error("files of results, or --refresh README")
    if bool(args.figure) != bool(args.output):
        parser.error("--figure and --output go together")
    if args.figure and (args.markdown or args.wide or args.overview or args.table == "throughput"):
        parser.error("--markdown, --wide, --table and --overview are for tables, not for a --figure")
    if sum([bool(args.overview), args.wide, args.table == "throughput"]) > 1:
        parser.error("--overview, --wide and --table throughput are different tables")
    return args


def rows_of(args: argparse.Namespace, folder: Path = Path()) -> List[results.Row]:
    """The rows that the arguments ask for; paths are relative to the folder."""
    return results.select([row for path in args.results for row in results.read(folder / path)], args.where)


def table_of(args: argparse.Namespace, markdown: bool, folder: Path = Path()) -> str:
    """The tables that the arguments ask for; paths are relative to the folder."""
    if args.overview:
        return overview.overview(rows_of(args, folder), overview.load(folder / args.overview), markdown)
    if args.table == "throughput":
        return throughput.table(rows_of(args, folder), markdown)
    return tables.table(rows_of(args, folder), markdown, args.wide)


def refreshed(text: str, folder: Path) -> str:
    """A README with all its tables made anew."""

    def block(found: "re.Match[str]") -> str:
        args = parse(shlex.split(found[2]))
        if args.refresh or args.figure:
            raise ToolError(f"a block makes tables, nothing else: {found[2]}")
        return f"{found[1]}\n{table_of(args, True, folder)}\n\n{found[3]}"

    return BLOCK.sub(block, text)


def refresh(readme: Path) -> None:
    text = files.read(readme).decode("utf-8")
    if not BLOCK.search(text):
        raise ToolError(f"{readme} has no block  <!-- nar report ARGUMENTS -->  ...  <!-- end -->")
    files.write_lines(readme, refreshed(text, readme.parent).removesuffix("\n").split("\n"))


def draw(name: str, rows: List[results.Row], output: Path) -> None:
    """One figure, or every one that the rows have something for."""
    if name != "all":
        figures.write(name, rows, output)
        return
    for chart in figures.CHARTS:
        try:
            figures.write(chart, rows, output / chart)
        except figures.NothingToDraw as error:
            print(f"no figure {chart}: {error}", file=sys.stderr)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if args.refresh:
        refresh(args.refresh)
    elif args.figure:
        draw(args.figure, rows_of(args), args.output)
    else:
        print(table_of(args, args.markdown))
