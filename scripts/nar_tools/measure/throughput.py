"""The table of throughput: sentences a second by size of batch, and where a row falls behind its competitor."""

from typing import List, Optional, Sequence

from ..errors import ToolError
from .results import Row, short_name
from .tables import UNKNOWN, aligned, conditions


def sizes_of(rows: Sequence[Row]) -> List[int]:
    """All sizes of batches that some row has."""
    return sorted({int(size) for row in rows for size in row["throughput"]})


def crossing(row: Row) -> Optional[int]:
    """The least size of batch at which a row is slower than its competitor; None: at none that both have."""
    theirs = row["competitor_throughput"]
    slower = [int(size) for size, rate in row["throughput"].items() if size in theirs and rate < theirs[size]]
    return min(slower, default=None)


def verdict(row: Row) -> str:
    """The crossing in words."""
    size = crossing(row)
    if size is not None:
        return f"{short_name(row)}: at batch {size} already slower than {row['competitor']}"
    return f"{short_name(row)}: at no size of batch slower than {row['competitor']}"


def table(rows: Sequence[Row], markdown: bool = False) -> str:
    """The rows that have a throughput, and what it was measured on. Raises ToolError where none has."""
    rows = [row for row in rows if row["throughput"]]
    if not rows:
        raise ToolError("no row has a throughput (nar benchmark --batch-sizes)")
    sizes = sizes_of(rows)
    cells = [["system", "engine", *map(str, sizes)]]
    for row in rows:
        rates = (row["throughput"].get(str(size)) for size in sizes)
        cells.append([short_name(row), row["engine"], *(UNKNOWN if rate is None else f"{rate:.1f}" for rate in rates)])
    lines = [f"sentences a second, by sentences in a batch, sorted by length ({conditions(rows)})"]
    lines += [verdict(row) for row in rows if row["competitor_throughput"] and row["competitor"] != row["id"]]
    if any(row["noisy"] for row in rows):
        lines.append("other processes ran at the same time; these times mean nothing")
    return "\n".join([*aligned(cells, markdown), "", *(line + "  " * markdown for line in lines)]).rstrip()
