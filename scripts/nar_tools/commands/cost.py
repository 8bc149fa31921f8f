"""Measures what trainings take: parameters, time and memory of an update here, and an estimate of their hours on a GPU.

Example:

    DRY_RUN=1 bash examples/wmt14_en_de/run.sh teacher mask_predict | nar cost --types 32000
    nar cost commands.txt --types 32000

The input is text with commands in it; every line that starts with fairseq-train, or with torchrun or srun and has
fairseq-train in it, gives one row. An update has as many tokens as --max-tokens x --update-freq x
--distributed-world-size (1 if absent) of the command. One batch of random sentences, of --length tokens a side, is
trained twice with the command's flags, in float32 on the CPU; the second time is measured. Its operations are torch's
count (FlopCounterMode: matrix products alone). The hours on a GPU are the operations of the whole training, divided by
the GPU's peak in bfloat16 or float16 (dense, as its maker states it) and by --utilization, the share of the peak that
a training reaches. That share is an assumption, not a measurement. Several GPUs divide the hours, if the batch is large
enough for all of them.
"""

import argparse
import multiprocessing
import re
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import takewhile
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read_lines
from ..progress import progress

PROGRAM = "fairseq-train"
STARTERS = ("torchrun", "srun", PROGRAM)
BEYOND = re.compile(r"[|;&]|\d?[<>]")
"""What no longer belongs to a command: pipes, redirections."""
Row = Dict[str, Any]


def trainings(lines: Sequence[str]) -> List[List[str]]:
    """The flags of every command of fairseq-train that stands on a line of its own."""
    found = []
    for line in lines:
        if not line.startswith(tuple(f"{starter} " for starter in STARTERS)):
            continue
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ToolError(f"no command of a shell ({error}): {line[:100]}") from None
        if PROGRAM in words:
            flags = words[words.index(PROGRAM) + 1 :]
            found.append(list(takewhile(lambda word: not BEYOND.match(word), flags)))
    if not found:
        raise ToolError("no line of the input is a command of fairseq-train")
    return found


def measured(flags: List[str], **settings: Any) -> Row:
    """The row of one training. What the libraries die of is a ToolError, in their process already."""
    from ..measure.system import quietly

    with quietly():
        from ..measure.costs import row_of

        return row_of(flags, **settings)


def apart(flags: List[str], **settings: Any) -> Row:
    """The same in a process of its own, for a peak of memory is a process's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, flags, **settings).result()
        except BrokenProcessPool:
            raise ToolError(f"the process of {PROGRAM} {shlex.join(flags)} was killed (out of memory?)") from None


def cells(row: Row) -> List[str]:
    whole = [f"{row['update']:,}", f"{row['updates']:,}"]
    measured_here = [f"{row['seconds']:.1f}", f"{row['memory']:.1f}", f"{1000 * row['tflop'] / row['tokens']:.2f}"]
    hours = [f"{hours:,.0f}" for hours in row["hours"].values()]
    return [row["arch"], f"{row['parameters'] / 1e6:.1f}", *measured_here, *whole, *hours]


def table(rows: Sequence[Row]) -> List[str]:
    from ..measure.tables import aligned

    heading = ["system", "M parameters", "s", "GB", "TFLOP / 1,000 tokens", "tokens an update", "updates"]
    return aligned([heading + [f"{name} h" for name in rows[0]["hours"]], *map(cells, rows)], markdown=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("cost", __doc__)
    options.add_argument("commands", nargs="?", type=Path, help="a file with commands (default: standard input)")
    options.add_argument("--types", type=int, default=32000, help="size of the dictionaries (default 32000)")
    options.add_argument("--length", type=int, default=30, help="tokens a sentence (default 30)")
    options.add_argument("--tokens", type=int, default=1500, help="tokens of the batch that is measured (default 1500)")
    options.add_argument("--utilization", type=float, default=0.3, help="share of a GPU's peak (default 0.3)")
    args = options.parse_args(argv)
    if not 0 < args.utilization <= 1 or min(args.length, args.tokens) < 2 or args.types < 10:
        raise ToolError("--utilization wants a share, --length and --tokens 2 or more, --types 10 or more")
    if args.commands is None and sys.stdin.isatty():
        raise ToolError(f"name a file with commands of {PROGRAM}, or pipe them in")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    settings = {name: getattr(args, name) for name in ("types", "length", "tokens", "utilization")}
    lines = sys.stdin.read().split("\n") if args.commands is None else read_lines(args.commands)
    found = trainings(lines)
    rows = [apart(flags, **settings) for flags in progress(found, "measuring", "trainings")]
    print("\n".join(table(rows)))
