"""Reads the validation curve of a training from its log, and writes it as data or as a figure.

Example:

    nar curve train.log --output curve.json --figure curve
    nar curve curve.json --figure curve
    nar curve warm.curve.json cold.curve.json --figure starts

The log is what fairseq-train writes with --log-format simple. The curve has one point an epoch (its last validation),
as {"epoch", "updates", "loss", "bleu"}: the loss as the criterion logs it (bits a token), and BLEU, null where it was
not asked for. --figure STEM draws STEM.png and STEM.svg: BLEU over epochs, or over updates if there are several curves.
"""

import argparse
import json
from pathlib import Path
from typing import Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read, write_lines
from ..measure import curves


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("curve", __doc__)
    options.add_argument("logs", nargs="+", type=Path, metavar="log", help="the log, or a curve (.json)")
    options.add_argument("--output", type=Path, help="the curve as JSON, of one log")
    options.add_argument("--figure", type=Path, metavar="STEM", help="draw STEM.png and STEM.svg")
    return options.parse_args(argv)


def curve_of(log: Path) -> curves.Curve:
    """Raises ToolError, ValueError, OSError."""
    text = read(log).decode("utf-8", errors="replace")
    return curves.load(log) if log.suffix == ".json" else curves.points(text)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if args.output and len(args.logs) > 1:
        raise ToolError("--output writes one curve, so it wants one log")
    try:
        found = {log.name.partition(".")[0]: curve_of(log) for log in args.logs}
        if len(found) < len(args.logs):
            raise ToolError("a name stands for one curve: two of the files are called alike")
        if args.output:
            (curve,) = found.values()
            rows = ",\n".join(" " + json.dumps(point) for point in curve)
            write_lines(args.output, f"[\n{rows}\n]".split("\n") if curve else ["[]"])
        if args.figure:
            from ..measure import figures

            figures.save(figures.curves(found), args.figure)
    except (ValueError, OSError) as error:
        raise ToolError(str(error)) from None
    for name, curve in found.items():
        note = curves.summary(curve)
        if note:
            print(note if len(found) == 1 else f"{name}: {note}")
