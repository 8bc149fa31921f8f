"""Makes a lexical shortlist: which target words go with each source word, for decodes with --shortlist.

Example:

    nar align --input distilled/train.de distilled/train.en --dict data-bin/dict.de.txt data-bin/dict.en.txt \\
        --output shortlist.txt
    fairseq-generate data-bin ... --shortlist shortlist.txt

The text is that which the model learnt from, in subwords, so that the lists hold what the model says. A source word
gets its --per-word most probable translations (IBM model 1), and every sentence the --frequent most frequent words.
--vmap writes the same lists as CTranslate2 reads them (--vocab_mapping of its converters). --random draws the lists by
chance instead, to time models that have learnt nothing. It needs the library sil-thot (pip install sil-thot).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Sequence, Tuple

from ..cli import parser
from ..errors import ToolError
from ..jobs import shortlists


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options, sides = parser("align", __doc__), ("SOURCE", "TARGET")
    made_of = options.add_mutually_exclusive_group(required=True)
    made_of.add_argument("--input", nargs=2, type=Path, metavar=sides, help="a parallel text in subwords")
    made_of.add_argument("--random", type=int, metavar="SEED", help="no text: words drawn by chance")
    options.add_argument("--dict", nargs=2, type=Path, required=True, metavar=sides, help="dict.txt of either side")
    options.add_argument("--output", type=Path, required=True, metavar="FILE", help="for --shortlist")
    options.add_argument("--vmap", type=Path, metavar="FILE", help="the same for CTranslate2")
    options.add_argument("--per-word", type=int, default=100, help="target words a source word (default: 100)")
    options.add_argument("--frequent", type=int, default=100, help="target words of every sentence (default: 100)")
    options.add_argument("--floor", type=float, default=1e-6, help="least probability of a translation (default: 1e-6)")
    options.add_argument("--lines", type=int, default=200_000, help="align at most so many pairs (default: 200,000)")
    args = options.parse_args(argv)
    if min(args.per_word, args.lines) < 1 or args.frequent < 0:
        raise ToolError("--per-word and --lines need 1 or more, --frequent 0 or more")
    if not 0 <= args.floor <= 1:
        raise ToolError(f"--floor {args.floor}: it takes a number from 0 to 1")
    return args


def made(args: argparse.Namespace, sides: Tuple[Any, Any]) -> shortlists.Shortlist:
    if args.input is None:
        return shortlists.drawn(args.random, sides, args.per_word, args.frequent)
    return shortlists.aligned(args.input, sides, args.per_word, args.frequent, args.floor, args.lines)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    sides = (shortlists.dictionary(args.dict[0]), shortlists.dictionary(args.dict[1]))
    shortlist = made(args, sides)
    shortlists.write(args.output, shortlist, sides)
    if args.vmap is not None:
        shortlists.write_vmap(args.vmap, shortlist)
    mean = sum(map(len, shortlist.words.values())) / max(1, len(shortlist.words))
    every = len(shortlist.always)
    print(
        f"{args.output}: {len(shortlist.words):,} source words, {mean:.1f} words each, {every} for all", file=sys.stderr
    )
