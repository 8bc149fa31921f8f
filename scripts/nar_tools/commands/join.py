"""Joins parallel sentences to pairs of one length, to time decoders at lengths that a corpus does not have.

Example:

    nar join --input test.bpe.de test.bpe.en --length 250 --output joined.de joined.en --lines 20

Pairs that follow each other in the text are joined until both sides have --length tokens, and both are cut there, so
that every line of either output has exactly that many. Where the text is too short it is used again from its
beginning. The cut sides are no translations of each other: they are good for timing, not for scores.
"""

import argparse
import sys
from pathlib import Path
from typing import Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read_lines, write_lines
from ..text import join


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("join", __doc__)
    options.add_argument("--input", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    options.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    options.add_argument("--length", type=int, required=True, help="tokens")
    options.add_argument("--lines", type=int, help="pairs to write (default: 2,000 tokens, from 3 to 20 pairs)")
    args = options.parse_args(argv)
    if args.length < 1 or args.lines is not None and args.lines < 1:
        raise ToolError("--length and --lines need 1 or more")
    args.lines = args.lines or join.enough(args.length)
    return args


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    source, target = (read_lines(path, clean=True) for path in args.input)
    for path, lines in zip(args.output, join.sides(source, target, args.length, args.lines)):
        write_lines(path, lines)
    print(f"{args.lines} pairs of {args.length} tokens a side", file=sys.stderr)
