"""Reads the validation curve of a training from its log, and writes it as data or as a figure.

Example:

    nar curve train.log --output curve.json --figure curve
    nar curve curve.json --figure curve

The log is what fairseq-train writes with --log-format simple. The curve has one point an epoch (its last validation),
as {"epoch", "updates", "loss", "bleu"}: the loss as the criterion logs it (bits a token), and BLEU, null where it was
not asked for. --figure STEM draws STEM.png and STEM.svg.
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
    options.add_argument("log", type=Path, help="the log, or a curve (.json)")
    options.add_argument("--output", type=Path, help="the curve as JSON")
    options.add_argument("--figure", type=Path, metavar="STEM", help="draw STEM.png and STEM.svg")
    return options.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    text = read(args.log).decode("utf-8", errors="replace")
    try:
        curve = curves.load(args.log) if args.log.suffix == ".json" else curves.points(text)
        note = curves.summary(curve)
        if args.output:
            rows = ",\n".join(" " + json.dumps(point) for point in curve)
            write_lines(args.output, f"[\n{rows}\n]".split("\n") if curve else ["[]"])
        if args.figure:
            from ..measure import figures

            figures.save(figures.curve(curve, args.log.name.partition(".")[0], note), args.figure)
    except (ValueError, OSError) as error:
        raise ToolError(str(error)) from None
    if note:
        print(note)
