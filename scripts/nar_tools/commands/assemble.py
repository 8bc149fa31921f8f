"""Puts several results.json files together into one, each measured in a run of its own with the teacher's rows.

Of a row that several files have, the first file's is taken. Refused: two teachers of one size, a system that says other
things in another run, and hypotheses that are not there or not those of the row.

Example:
    nar assemble results/*.json --output results.json
"""

import argparse
from pathlib import Path
from typing import Sequence

from .. import cli
from ..measure import results


def main(argv: Sequence[str]) -> None:
    parser = cli.parser("assemble", __doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files that nar benchmark wrote")
    parser.add_argument("--output", type=Path, required=True)
    told = "hypotheses that rows name must be there, unchanged, from the folder of --output on (default: yes)"
    parser.add_argument("--check-hypotheses", action=argparse.BooleanOptionalAction, default=True, help=told)
    args = parser.parse_args(argv)
    rows = results.assembled([results.read(path) for path in args.results])
    if args.check_hypotheses:
        results.check_hypotheses(rows, args.output.parent)
    results.write(args.output, rows)
