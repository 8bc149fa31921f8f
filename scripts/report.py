"""Prints the rows of results.json files as tables, or draws a figure of them.

    report.py results.json [more.json ...] [--where FIELD=VALUE ...] [--markdown] [--wide]
    report.py results.json --figure {latency,steps,speed} --output figures/latency [--where FIELD=VALUE ...]
    report.py --refresh README.md
    report.py latents DATA_BIN --path model.pt ... --output figures/latents          (latents.py: pictures of a decode)

A table for each size of model, device and forced length, sacreBLEU's signature below. A figure is written as PNG
and SVG. --refresh writes the tables of a README anew: what stands between  <!-- report.py ARGUMENTS -->  and
<!-- end -->; the arguments are as above, and paths begin at the README.
"""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import figures
import results
from files import write_lines
from results import Row

BASELINES = ("greedy", "beam3", "beam4", "beam5")
UNKNOWN = "-"
BLOCK = re.compile(r"(<!-- report\.py (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
Columns = Dict[str, Callable[[Row], str]]
"""Heading and cell of every column; headings of words come before those of numbers."""


def number(digits: int, suffix: str = "") -> Callable[[Any], str]:
    """A formatter of numbers that may be null."""
    return lambda value: UNKNOWN if value is None else f"{value:.{digits}f}{suffix}"


def rounded(field: str, digits: int) -> Callable[[Row], str]:
    """The cell of a field that is a number."""
    return lambda row: number(digits)(row[field])


def gap(row: Row) -> str:
    """BLEU below the teacher's beam 5."""
    known = row["bleu"] is not None and row["teacher_bleu"] is not None
    return number(2)(row["teacher_bleu"] - row["bleu"] if known else None)


def speed_over(name: str) -> Callable[[Row], str]:
    """The cell of a row's speed over one of the teacher's searches."""
    return lambda row: number(2, "x")((row["speedups"] or {}).get(name))


def columns(rows: List[Row], forced: bool, wide: bool) -> Columns:
    """Those of a table; only searches that some row was timed against have one."""
    compared = [name for name in BASELINES if any(name in (row["speedups"] or {}) for row in rows)]
    train: Columns = {"train": lambda row: row["train"] or UNKNOWN}
    quality: Columns = {"BLEU": rounded("bleu", 2), "gap": gap}
    spread: Columns = {"ms p95": rounded("ms_p95", 2)}
    details: Columns = {"length ratio": rounded("length_ratio", 3), "repetition %": rounded("repetition", 2)}
    return {
        "system": lambda row: row["id"],
        **({} if forced else train | quality | (details if wide else {})),
        "passes": rounded("passes", 1),
        "ms": lambda row: number(2)(row["ms_per_sentence"]) + "~" * row["noisy"],
        **({} if forced else spread),
        "bare ms": rounded("bare_ms", 2),
        **{f"/ {name}": speed_over(name) for name in compared},
    }


def notes(rows: List[Row]) -> List[str]:
    """What must stand below the tables for their numbers to mean something."""
    lines = [f"sacreBLEU: {signature}" for signature in sorted({row["signature"] for row in rows if row["signature"]})]
    if any(row["forced_length"] is None for row in rows):
        lines.append("gap: BLEU below the teacher's beam 5")
    conditions = sorted({f"{row['device']}, threads: {row['threads']}, size: {row['size']}" for row in rows})
    lines.append(f"ms: median a sentence at batch 1 ({'; '.join(conditions)})")
    lines.append("/ greedy ...: times as fast as the teacher in the same run")
    if any(row["noisy"] for row in rows):
        lines.append("~: other processes ran at the same time; these times mean nothing")
    return lines


def aligned(cells: List[List[str]], markdown: bool) -> List[str]:
    """Lines of text, or of a table of Markdown; columns of words to the left, of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    words = [heading in ("system", "train") for heading in cells[0]]

    def line(values: Sequence[str]) -> List[str]:
        return [v.ljust(w) if is_word else v.rjust(w) for v, w, is_word in zip(values, widths, words)]

    if not markdown:
        return ["  ".join(line(values)).rstrip() for values in cells]
    rule = ["-" * w if is_word else "-" * (w - 1) + ":" for w, is_word in zip(widths, words)]
    return [f"| {' | '.join(values)} |" for values in (line(cells[0]), rule, *map(line, cells[1:]))]


def table(rows: List[Row], markdown: bool = False, wide: bool = False) -> str:
    """All tables of the rows, each with its title, and the notes; ``wide``: lengths and repetitions too."""
    groups: Dict[Any, List[Row]] = {}
    for row in sorted(rows, key=lambda row: (bool(row["forced_length"]), row["size"] != "small", row["forced_length"])):
        groups.setdefault((row["forced_length"], row["size"], row["device"]), []).append(row)
    lines: List[str] = []
    for (forced, size, device), members in groups.items():
        length = f"every hypothesis forced to {forced} tokens" if forced else "lengths the systems' own"
        shown = columns(members, bool(forced), wide)
        cells = [list(shown), *([cell(row) for cell in shown.values()] for row in members)]
        lines += [f"Size {size}, {device}, {length}:", *[""] * markdown, *aligned(cells, markdown), ""]
    return "\n".join(lines + [note + "  " * markdown for note in notes(rows)]).rstrip()


def matches(value: Any, text: str) -> bool:
    """Whether a field is what a user wrote: words as they are, all else as in JSON (4, true, null)."""
    if isinstance(value, str):
        return value == text
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False


def select(rows: List[Row], conditions: Sequence[str]) -> List[Row]:
    """Rows that meet every FIELD=VALUE; of several values of one field, any. Raises ResultsError if none do."""
    wanted: Dict[str, List[str]] = {}
    for condition in conditions:
        field, equals, value = condition.partition("=")
        if not equals or field not in results.FIELDS:
            raise results.ResultsError(f"--where wants FIELD=VALUE of a field in results.py, not {condition}")
        wanted.setdefault(field, []).append(value)
    chosen = [row for row in rows if all(any(matches(row[f], v) for v in values) for f, values in wanted.items())]
    if not chosen:
        raise results.ResultsError(f"no row has {' and '.join(conditions)}" if conditions else "no rows")
    return chosen


def rows_of(args: argparse.Namespace, folder: Path = Path()) -> List[Row]:
    """The rows that the arguments ask for; paths are relative to the folder. Raises ResultsError."""
    return select([row for path in args.results for row in results.read(folder / path)], args.where)


def refreshed(text: str, folder: Path) -> str:
    """A README with all its tables made anew. Raises ResultsError."""

    def block(found: "re.Match[str]") -> str:
        args = parse(shlex.split(found[2]))
        return f"{found[1]}\n{table(rows_of(args, folder), True, args.wide)}\n\n{found[3]}"

    return BLOCK.sub(block, text)


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("results", nargs="*", type=Path, help="files that benchmark.py wrote")
    chosen = "only such rows, e.g. size=base or forced_length=null; repeatable (one field: any of its values)"
    add("--where", action="append", default=[], metavar="FIELD=VALUE", help=chosen)
    add("--markdown", action="store_true", help="tables for a README")
    add("--wide", action="store_true", help="tables with ratio of lengths and repetitions")
    add("--figure", choices=tuple(figures.CHARTS), help="ms over length, BLEU over passes, BLEU over speed")
    add("--output", type=Path, metavar="STEM", help="STEM.png and STEM.svg are written")
    add("--refresh", type=Path, metavar="README", help="writes the tables of a README anew")
    args = parser.parse_args(argv)
    if bool(args.refresh) == bool(args.results):
        parser.error("files of results, or --refresh README")
    if bool(args.figure) != bool(args.output):
        parser.error("--figure and --output go together")
    if args.figure and (args.markdown or args.wide):
        parser.error("--markdown and --wide are for tables, not for a --figure")
    return args


def main() -> None:
    if sys.argv[1:2] == ["latents"]:
        import latents  # torch takes seconds to load

        latents.main(sys.argv[2:])
        return
    args = parse()
    try:
        if args.refresh:
            text = args.refresh.read_text(encoding="utf-8")
            write_lines(args.refresh, refreshed(text, args.refresh.parent).removesuffix("\n").split("\n"))
        elif args.figure:
            figures.write(args.figure, rows_of(args), args.output)
        else:
            print(table(rows_of(args), args.markdown, args.wide))
    except (results.ResultsError, OSError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
