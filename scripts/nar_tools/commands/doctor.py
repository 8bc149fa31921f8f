"""Says whether this installation is sound, and what to do where it is not.

Each line is a check: ok, warn (it works, but not as well as it could) or FAIL, what was found, and what to do. The exit
status is 1 if anything FAILs, else 0. A report of a bug is worth more with this output in it.

Example:
  nar doctor
  nar doctor | grep -v ^ok
"""

import sys
from collections import Counter
from typing import Sequence

from .. import cli
from ..installation.checks import FAIL, OK, WARN, verdicts
from ..installation.facts import gather


def main(argv: Sequence[str]) -> None:
    cli.parser("doctor", __doc__).parse_args(argv)
    records = list(verdicts(gather()))
    for record in records:
        print(record)
    counts = Counter(record.verdict for record in records)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in (OK, WARN, FAIL)))
    if counts[FAIL]:
        sys.exit(1)
