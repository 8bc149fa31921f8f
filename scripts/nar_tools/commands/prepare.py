"""Turns raw text into Moses tokens and BPE subwords, and back.

Example:

    nar prepare learn --input train.de:de train.en:en --merges 10000 --codes codes
    nar prepare apply --input train.de valid.de --lang de --codes codes --output-dir bpe
    nar prepare tokenize --input train.de --lang de --output train.tok.de
    nar prepare detokenize --input hypotheses.en --lang en --output plain.en

`apply` does to a line exactly what `fairseq-interactive --tokenizer moses --bpe subword_nmt --bpe-codes CODES` does to
it, so that a model is trained on what it will see in use. One line of input gives one line of output, whatever stands
in it. What some papers did and fairseq-interactive does not do has options of its own: --lowercase,
--normalize-punctuation and --romanian of `tokenize`. With --tokenized, `learn` and `apply` read what `tokenize` wrote.
"""

import argparse
from pathlib import Path
from typing import List, Sequence

from ..cli import parser
from ..errors import ToolError
from ..files import read_lines, write_lines
from ..text import subwords

ACTIONS = {
    "learn": "learn BPE codes from raw text",
    "apply": "raw text to Moses tokens, and these to BPE subwords",
    "tokenize": "raw text to Moses tokens",
    "detokenize": "tokens or BPE subwords to plain text",
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("prepare", __doc__)
    actions = options.add_subparsers(dest="action", required=True)
    for name, line in ACTIONS.items():
        action = actions.add_parser(name, help=line, description=line, allow_abbrev=False)
        action.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
        if name == "learn":
            action.add_argument("--input", nargs="+", required=True, metavar="FILE:LANG")
            action.add_argument("--merges", type=int, required=True, help="number of BPE merges")
        else:
            action.add_argument("--input", nargs="+", type=Path, required=True, metavar="FILE")
            action.add_argument("--lang", required=True, help="language code for the Moses rules")
            action.add_argument("--output", nargs="+", type=Path, metavar="FILE", help="one for each --input")
            action.add_argument("--output-dir", type=Path, metavar="DIR", help="a folder for files of the same names")
        if name in ("learn", "apply"):
            action.add_argument("--codes", type=Path, required=True, help="file of BPE codes")
            action.add_argument("--tokenized", action="store_true", help="the input is tokenised already")
        if name == "tokenize":
            action.add_argument("--lowercase", action="store_true")
            action.add_argument("--normalize-punctuation", action="store_true", help="as Moses' normalize-punctuation")
            action.add_argument("--romanian", choices=("comma", "plain"), default="", help="marks of Romanian letters")
    args = options.parse_args(argv)
    if args.jobs < 1:
        raise ToolError("--jobs wants 1 or more")
    return args


def outputs(args: argparse.Namespace) -> List[Path]:
    """Where the text of each input goes."""
    if (args.output is None) == (args.output_dir is None):
        raise ToolError("say either --output FILE... or --output-dir DIR")
    if args.output is not None:
        if len(args.output) != len(args.input):
            raise ToolError(f"{len(args.input)} files of --input, {len(args.output)} of --output")
        return list(args.output)
    names = [path.name for path in args.input]
    if len(set(names)) < len(names):
        raise ToolError("two files of --input have the same name: only one would be left in --output-dir")
    if any(path.resolve().parent == args.output_dir.resolve() for path in args.input):
        raise ToolError(f"{args.output_dir} is the folder of the input, which would be overwritten")
    return [args.output_dir / name for name in names]


def converter(args: argparse.Namespace) -> subwords.LineFunction:
    """What is done to a line."""
    if args.action == "detokenize":
        return subwords.detokenizer(args.lang)
    if args.action == "tokenize":
        return subwords.tokenizer(args.lang, args.normalize_punctuation, args.romanian, args.lowercase)
    return subwords.segmenter(args.codes, (lambda line: line) if args.tokenized else subwords.tokenizer(args.lang))


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if args.action == "learn":
        subwords.learn(args.input, args.merges, args.codes, args.jobs, args.tokenized)
        return
    places = outputs(args)
    convert = converter(args)
    for path, output in zip(args.input, places):
        lines = read_lines(path, clean=True)
        write_lines(output, subwords.converted(convert, lines, args.jobs, path.name))
