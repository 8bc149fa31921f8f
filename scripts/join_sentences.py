"""Parallel sentences joined to pairs of one length: the latency of a model at lengths that a corpus does not have.

join_sentences.py --input test.bpe.de test.bpe.en --length 250 --output joined.de joined.en [--lines 20]

Pairs that follow each other in the text are joined until both sides have --length tokens, and both are cut there, so
that every line of either output has exactly so many. The text is used again from its beginning where it is too short.
The cut sides are no translations of each other: good for times, not for scores.
"""

import argparse
import sys
from itertools import cycle
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

from files import fail, write_lines
from prepare_text import read_lines

Pair = Tuple[List[str], List[str]]


def joined(pairs: Sequence[Pair], length: int) -> Iterator[Pair]:
    """Endless pairs of ``length`` tokens a side. ``pairs``: some token on either side."""
    source: List[str] = []
    target: List[str] = []
    for more_source, more_target in cycle(pairs):
        source, target = source + more_source, target + more_target
        if min(len(source), len(target)) >= length:
            yield source[:length], target[:length]
            source, target = [], []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--length", type=int, required=True, help="tokens")
    parser.add_argument("--lines", type=int, default=20, help="pairs to write (default 20)")
    args = parser.parse_args()
    if args.length < 1 or args.lines < 1:
        fail("--length and --lines need 1 or more")
    source, target = map(read_lines, args.input)
    if len(source) != len(target):
        fail(f"{len(source)} lines of source, {len(target)} of target")
    pairs = [(s.split(), t.split()) for s, t in zip(source, target) if s.split() and t.split()]
    if not pairs:
        fail("there is no sentence to join")
    made = list(zip(*(pair for pair, _ in zip(joined(pairs, args.length), range(args.lines)))))
    for path, side in zip(args.output, made):
        write_lines(path, [" ".join(tokens) for tokens in side])
    print(f"{args.lines} pairs of {args.length} tokens a side", file=sys.stderr)


if __name__ == "__main__":
    main()
