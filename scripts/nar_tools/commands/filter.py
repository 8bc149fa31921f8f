"""Leaves out the sentence pairs of a training text that are empty, too long, or too unlike in length.

Example:

    nar filter --input train.en train.de --output clean.en clean.de --longest 250 --ratio 1.5
    nar filter --input train.en train.de --output clean.en clean.de --longest 250 --hold-out 23 valid.en valid.de

A length is a number of tokens, as they stand between spaces. --longest N keeps the pairs whose sides both have 1 to N
tokens, --ratio R those in which neither side is more than R times as long as the other (Moses' clean-corpus-n). With
--hold-out K every K-th pair that is left goes to the two files named there, and not to the output.
"""

import argparse
import sys
from pathlib import Path
from typing import Sequence

from ..cli import parser
from ..errors import ToolError
from ..text import filter as filters


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("filter", __doc__)
    options.add_argument("--input", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    options.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    options.add_argument("--longest", type=int, required=True, metavar="N", help="tokens a side")
    options.add_argument("--ratio", type=float, default=float("inf"), metavar="R", help="default: any")
    options.add_argument("--hold-out", nargs=3, metavar=("K", "SOURCE", "TARGET"), help="every K-th pair to these")
    args = options.parse_args(argv)
    every = args.hold_out[0] if args.hold_out else "1"
    if not every.isdigit() or int(every) < 1 or args.longest < 1 or args.ratio < 1:
        raise ToolError("--hold-out, --longest and --ratio want numbers of 1 or more")
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    every, *names = args.hold_out or ["1"]
    held = [Path(name) for name in names]
    counts = filters.split(args.input, args.output, args.longest, args.ratio, held, int(every))
    total, kept = sum(counts.values()), counts.pop("")
    split_off = f", {kept // int(every)} of them to {held[0]} and {held[1]}" if held else ""
    left_out = filters.described(counts)
    print(
        f"{args.output[0]}, {args.output[1]}: {kept} of {total} pairs kept{split_off}; left out: {left_out}",
        file=sys.stderr,
    )
