"""Says where the time of a decode goes, operator by operator, and what its products of matrices alone would take.

Takes the flags of fairseq-generate besides its own; --engine and --shortlist among them. An operator's time is its own,
without that of those it calls; the profiler makes small ones look a little dearer than they are. On a CPU alone.

Example:
    nar profile data-bin --user-dir nar_plugin --task translation_nar --path student.pt --cpu --in-batches 20
"""

import argparse
from typing import List, Sequence, Tuple

from .. import cli
from ..measure.system import quietly


def parse(argv: Sequence[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Our own flags, and those that are left to fairseq."""
    parser = cli.parser("profile", __doc__)
    add = parser.add_argument
    add("--sentences", type=int, default=20, metavar="N", help="the first N of the subset (default 20)")
    add("--in-batches", type=int, default=1, metavar="N", help="so many at once (default 1)")
    add("--repeats", type=int, default=5, help="decodes, of which the table has the mean (default 5)")
    add("--operators", type=int, default=15, metavar="N", help="the N dearest are shown (default 15)")
    add("--threads", type=int, default=1, help="(default 1)")
    args, flags = parser.parse_known_args(argv)
    if min(args.sentences, args.in_batches, args.repeats, args.operators, args.threads) < 1:
        parser.error("--sentences, --in-batches, --repeats, --operators and --threads need 1 or more")
    return args, flags


def main(argv: Sequence[str]) -> None:
    args, flags = parse(argv)
    with quietly():
        from ..measure import operators  # torch takes seconds to load

        system = operators.Profiled(flags, args.threads)
        print("\n".join(operators.lines(system.profile(args.in_batches, args.sentences, args.repeats), args.operators)))
