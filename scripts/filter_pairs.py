"""Leaves out the pairs of a training text that are empty, too long, or too unlike in length; splits some off.

    filter_pairs.py --input train.en train.de --output clean.en clean.de --longest 250 --ratio 1.5
    filter_pairs.py ... --hold-out 23 valid.en valid.de

A length is a number of tokens, as they stand between spaces. ``--longest N`` keeps pairs whose sides both have 1 to N
of them, ``--ratio R`` those of which neither side is more than R times as long as the other (Moses' clean-corpus-n).
With ``--hold-out K`` every K-th pair that is left goes to the two files named, and not to the output.
"""

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Iterator, List, Sequence, Tuple

from files import fail, whole

Pair = Tuple[str, str]


def pairs(paths: List[Path], stack: ExitStack) -> Iterator[Pair]:
    """The pairs of two files. Unequal numbers of lines end the program."""
    try:
        sides = [stack.enter_context(open(path, encoding="utf-8", newline="\n")) for path in paths]
        for source in sides[0]:
            target = sides[1].readline()
            if not target:
                fail(f"{paths[0]} has more lines than {paths[1]}")
            yield source.rstrip("\n"), target.rstrip("\n")
        if sides[1].readline():
            fail(f"{paths[1]} has more lines than {paths[0]}")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {paths[0]} and {paths[1]}: {error}")


def fault(pair: Pair, longest: int, ratio: float) -> str:
    """Why a pair is left out; empty if it stays."""
    source, target = (len(side.split()) for side in pair)
    if not source or not target:
        return "empty"
    if max(source, target) > longest:
        return "too long"
    return "unlike in length" if max(source, target) > ratio * min(source, target) else ""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--longest", type=int, required=True, metavar="N", help="tokens a side")
    parser.add_argument("--ratio", type=float, default=float("inf"), metavar="R", help="default: any")
    parser.add_argument("--hold-out", nargs=3, metavar=("K", "SOURCE", "TARGET"), help="every K-th pair to these files")
    args = parser.parse_args()
    every = args.hold_out[0] if args.hold_out else "1"
    if not every.isdigit() or int(every) < 1 or args.longest < 1 or args.ratio < 1:
        parser.error("--hold-out, --longest and --ratio want numbers of 1 or more")
    return args


def main() -> None:
    args = parse()
    every = int(args.hold_out[0]) if args.hold_out else 0
    held = [Path(name) for name in args.hold_out[1:]] if args.hold_out else []
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        given = pairs(args.input, stack)
        written = [
            stack.enter_context(open(stack.enter_context(whole(path)), "w", encoding="utf-8", newline="\n"))
            for path in [*args.output, *held]
        ]
        for pair in given:
            reason = fault(pair, args.longest, args.ratio)
            counts[reason] += 1
            if not reason:
                write(pair, written[2:] if every and not counts[""] % every else written[:2])
        if not counts[""]:
            fail(f"of {sum(counts.values())} pairs none is left: {describe(counts)}")
    total, kept = sum(counts.values()), counts.pop("")
    split_off = f", {kept // every} of them to {held[0]} and {held[1]}" if every else ""
    print(
        f"{args.output[0]}, {args.output[1]}: {kept} of {total} pairs kept{split_off}; left out: {describe(counts)}",
        file=sys.stderr,
    )


def describe(counts: "Counter[str]") -> str:
    """How many pairs were left out, by reason."""
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()) if reason) or "none"


def write(pair: Pair, files: Sequence[IO[str]]) -> None:
    for side, file in zip(pair, files, strict=True):
        file.write(side + "\n")


if __name__ == "__main__":
    main()
