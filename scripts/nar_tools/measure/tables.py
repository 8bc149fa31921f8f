"""Tables of text or Markdown: the one printer of aligned columns, and the columns and notes of rows of results."""

from typing import Any, Callable, Collection, Dict, List, Sequence

from .results import BASELINES, Row

UNKNOWN = "-"
WORDS = ("system", "engine", "train")
"""Headings of columns that hold words, not numbers."""
Columns = Dict[str, Callable[[Row], str]]
"""Heading and cell of every column; headings of words come before those of numbers."""


def aligned(cells: Sequence[Sequence[str]], markdown: bool = False, words: Collection[str] = WORDS) -> List[str]:
    """Lines of text, or of a table of Markdown, headings first; columns of ``words`` to the left, others to the right.

    >>> aligned([["system", "BLEU"], ["a", "9.50"], ["b", "33.50"]])
    ['system   BLEU', 'a        9.50', 'b       33.50']
    """
    widths = [max(map(len, column)) for column in zip(*cells)]
    is_left = [heading in words for heading in cells[0]]

    def line(values: Sequence[str]) -> List[str]:
        return [v.ljust(w) if left else v.rjust(w) for v, w, left in zip(values, widths, is_left)]

    if not markdown:
        return ["  ".join(line(values)).rstrip() for values in cells]
    rule = ["-" * w if left else "-" * (w - 1) + ":" for w, left in zip(widths, is_left)]
    return [f"| {' | '.join(values)} |" for values in (line(cells[0]), rule, *map(line, cells[1:]))]


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


def repeats_of(name: str) -> Callable[[Row], str]:
    """The cell of a share of what is repeated."""
    return lambda row: number(2)((row["repeats"] or {}).get(name))


def ratio_to(competitor: str) -> Callable[[Row], str]:
    """The cell of a row's speed over a competitor's."""
    return lambda row: number(2, "x")(row["competitor_ratio"] if row["competitor"] == competitor else None)


def identical(row: Row) -> str:
    """Whether what was drafted and verified is what greedy search gives."""
    share = row["as_greedy"]
    return UNKNOWN if share is None else "yes" if share == 100 else number(2, "%")(share)


def tokens_a_call(row: Row) -> str:
    """Of a forced length, the end symbol counted."""
    is_known = row["forced_length"] and row["passes"]
    return number(2)((row["forced_length"] + 1) / row["passes"] if is_known else None)


def is_of_calls(row: Row) -> bool:
    """Whether a row is there for what a call gives."""
    return row["psnr"] is not None or row["simulated"] is not None


def columns(rows: Sequence[Row], forced: bool, wide: bool) -> Columns:
    """Those of a table; only searches that some row was timed against have one."""
    compared = [name for name in BASELINES if any(name in (row["speedups"] or {}) for row in rows)]
    competitors = sorted({row["competitor"] for row in rows if row["competitor"]})
    engine: Columns = {"engine": lambda row: row["engine"]} if len({row["engine"] for row in rows}) > 1 else {}
    train: Columns = {"train": lambda row: row["train"] or UNKNOWN}
    quality: Columns = {"BLEU": rounded("bleu", 2), "gap": gap}
    spread: Columns = {"ms p95": rounded("ms_p95", 2)}
    details: Columns = {"length ratio": rounded("length_ratio", 3), "repetition %": rounded("repetition", 2)}
    if any(row["repeats"] for row in rows):
        details |= {f"{name} %": repeats_of(name) for name in ("words", "reference words", "2-grams")}
    return {
        "system": lambda row: row["id"],
        **engine,
        **({} if forced else train | quality | (details if wide else {})),
        **({"identical to greedy": identical} if any(row["as_greedy"] is not None for row in rows) else {}),
        **({"simulated": rounded("simulated", 0)} if any(row["simulated"] is not None for row in rows) else {}),
        **({"PSNR": rounded("psnr", 2)} if any(row["psnr"] is not None for row in rows) else {}),
        "passes": rounded("passes", 1),
        **({"tokens a call": tokens_a_call} if any(map(is_of_calls, rows)) else {}),
        "ms": lambda row: number(2)(row["ms_per_sentence"]) + "~" * row["noisy"],
        **({} if forced else spread),
        "bare ms": rounded("bare_ms", 2),
        **({"compile s": rounded("compile_s", 0)} if any(row["compile_s"] for row in rows) else {}),
        **{f"/ {name}": speed_over(name) for name in compared},
        **{f"/ {name}": ratio_to(name) for name in competitors},
    }


def signatures(rows: Sequence[Row]) -> List[str]:
    return [f"sacreBLEU: {signature}" for signature in sorted({row["signature"] for row in rows if row["signature"]})]


def conditions(rows: Sequence[Row]) -> str:
    """On what the times of the rows were measured."""
    return "; ".join(sorted({f"{row['device']}, threads: {row['threads']}, size: {row['size']}" for row in rows}))


def notes(rows: Sequence[Row]) -> List[str]:
    """What must stand below the tables for their numbers to mean something."""
    lines = signatures(rows)
    if any(row["forced_length"] is None for row in rows):
        lines.append("gap: BLEU below the teacher's beam 5")
    lines.append(f"ms: median a sentence at batch 1 ({conditions(rows)})")
    lines.append("/ greedy ...: times as fast as the teacher in the same run")
    competitors = sorted({row["competitor"] for row in rows if row["competitor"]})
    lines += [f"/ {name}: times as fast as {name} in the same run" for name in competitors]
    if any(row["simulated"] is not None for row in rows):
        lines.append(
            "simulated: every call was made to give so many tokens; the words mean nothing, the times alone do"
        )
    if any(row["noisy"] for row in rows):
        lines.append("~: other processes ran at the same time; these times mean nothing")
    return lines


def table(rows: Sequence[Row], markdown: bool = False, wide: bool = False) -> str:
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
