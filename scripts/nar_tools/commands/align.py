"""Aligns a parallel text, for a lexical shortlist of decodes or the word counts that a training reads.

Example:

    nar align --input distilled/train.de distilled/train.en --dict data-bin/dict.de.txt data-bin/dict.en.txt \\
        --output shortlist.txt
    fairseq-generate data-bin ... --shortlist shortlist.txt
    nar align --input distilled/train.de distilled/train.en --dict data-bin/dict.de.txt data-bin/dict.en.txt \\
        --word-counts counts --held-out valid valid.de valid.en
    fairseq-train data-bin ... --arch fertility_nat_small --word-counts counts

The text is that which the model learns from, in subwords. In a shortlist (--output) a source word gets its --per-word
most probable translations (IBM model 1), and every sentence the --frequent most frequent words. --vmap writes the same
lists as CTranslate2 reads them (--vocab_mapping of its converters). --random draws the lists by chance instead, to time
models that have learnt nothing. --word-counts writes a file a split into a folder: every target word is one source
word's (fast_align), so that the numbers of a sentence add up to its target; a text that is --held-out is aligned by
the model of the input. It needs the library sil-thot (pip install sil-thot).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Sequence, Tuple

from ..cli import parser
from ..errors import ToolError
from ..jobs import shortlists, word_counts
from ..text import alignment


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options, sides = parser("align", __doc__), ("SOURCE", "TARGET")
    made_of = options.add_mutually_exclusive_group(required=True)
    made_of.add_argument("--input", nargs=2, type=Path, metavar=sides, help="a parallel text in subwords")
    made_of.add_argument("--random", type=int, metavar="SEED", help="no text: words drawn by chance")
    options.add_argument("--dict", nargs=2, type=Path, required=True, metavar=sides, help="dict.txt of either side")
    options.add_argument("--output", type=Path, metavar="FILE", help="for --shortlist")
    options.add_argument("--vmap", type=Path, metavar="FILE", help="the same for CTranslate2")
    options.add_argument("--word-counts", type=Path, metavar="FOLDER", help="for --word-counts: its file train")
    options.add_argument(
        "--held-out", nargs=3, action="append", default=[], metavar=("SPLIT", *sides), help="and a file of this text"
    )
    options.add_argument("--per-word", type=int, default=100, help="target words a source word (default: 100)")
    options.add_argument("--frequent", type=int, default=100, help="target words of every sentence (default: 100)")
    options.add_argument("--floor", type=float, default=1e-6, help="least probability of a translation (default: 1e-6)")
    options.add_argument(
        "--lines", type=int, default=200_000, help="learn from at most so many pairs (default: 200,000)"
    )
    args = options.parse_args(argv)
    if min(args.per_word, args.lines) < 1 or args.frequent < 0:
        raise ToolError("--per-word and --lines need 1 or more, --frequent 0 or more")
    if not 0 <= args.floor <= 1:
        raise ToolError(f"--floor {args.floor}: it takes a number from 0 to 1")
    if args.output is None and args.word_counts is None:
        raise ToolError("--output, for a shortlist, or --word-counts: one of them says what is made")
    if args.output is None and args.vmap is not None:
        raise ToolError("--vmap writes the lists of --output once more")
    if args.word_counts is None and args.held_out:
        raise ToolError("--held-out is a text for --word-counts")
    if args.word_counts is not None and args.input is None:
        raise ToolError("--word-counts are those of a text: --input, not --random")
    return args


def made(args: argparse.Namespace, sides: Tuple[Any, Any]) -> shortlists.Shortlist:
    if args.input is None:
        return shortlists.drawn(args.random, sides, args.per_word, args.frequent)
    return shortlists.aligned(args.input, sides, args.per_word, args.frequent, args.floor, args.lines)


def make_shortlist(args: argparse.Namespace, sides: Tuple[Any, Any]) -> None:
    shortlist = made(args, sides)
    shortlists.write(args.output, shortlist, sides)
    if args.vmap is not None:
        shortlists.write_vmap(args.vmap, shortlist)
    mean = sum(map(len, shortlist.words.values())) / max(1, len(shortlist.words))
    every = len(shortlist.always)
    print(
        f"{args.output}: {len(shortlist.words):,} source words, {mean:.1f} words each, {every} for all", file=sys.stderr
    )


def make_word_counts(args: argparse.Namespace, sides: Tuple[Any, Any]) -> None:
    texts = {"train": args.input, **{split: [Path(one) for one in paths] for split, *paths in args.held_out}}
    pairs = {split: shortlists.read_pairs(paths, sides) for split, paths in texts.items()}
    step = shortlists.spacing(len(pairs["train"]), args.lines)
    model = alignment.aligner(shortlists.with_words(pairs["train"][::step]))
    for split, some in pairs.items():
        counts = word_counts.aligned(model, some)
        word_counts.write(args.word_counts / split, some, counts, sides)
        words = sum(map(len, counts))
        mean, zeros = sum(map(sum, counts)) / max(1, words), sum(one.count(0) for one in counts) / max(1, words)
        told = f"{len(counts):,} sentences, {mean:.2f} target words a source word, none of {zeros:.0%}"
        print(f"{args.word_counts / split}: {told}", file=sys.stderr)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    sides = (shortlists.dictionary(args.dict[0]), shortlists.dictionary(args.dict[1]))
    if args.output is not None:
        make_shortlist(args, sides)
    if args.word_counts is not None:
        make_word_counts(args, sides)
