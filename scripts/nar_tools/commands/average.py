"""Averages the weights of checkpoints of one model.

Example:

    nar average --inputs a.pt b.pt --output average.pt
    nar average --dir checkpoints --last 5 --output average.pt
    nar average --dir checkpoints --best 5 --metric bleu --output average.pt

The average decodes like any checkpoint, but training cannot go on from it: the state of the optimizer is left out.
"""

import argparse
from pathlib import Path
from typing import Sequence

from ..cli import parser
from ..errors import ToolError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("average", __doc__)
    options.add_argument("--inputs", nargs="+", type=Path, default=[], help="the checkpoints")
    options.add_argument("--dir", type=Path, help="a folder of checkpoints, for --last or --best")
    options.add_argument("--last", type=int, metavar="K", help="the last K updates, or epochs if no updates were saved")
    options.add_argument("--best", type=int, metavar="K", help="the K best")
    options.add_argument("--or-fewer", action="store_true", help="of --best: all that there are, where they are fewer")
    options.add_argument("--metric", default="bleu", help="of --best: bleu (default), loss, ... as the files are named")
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--half", action="store_true", help="store float16")
    kept_out = "leave the folders of this machine out of the settings: for a file that others will get"
    options.add_argument("--forget-paths", action="store_true", help=kept_out)
    return options.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    ways = [bool(args.inputs), args.last is not None, args.best is not None]
    if sum(ways) != 1 or bool(args.dir) == bool(args.inputs):
        raise ToolError("say either --inputs A.pt B.pt ..., or --dir D --last K, or --dir D --best K")
    from ..jobs import averages  # torch takes seconds to load

    if args.inputs:
        paths = list(args.inputs)
    elif args.last is not None:
        paths = averages.last(args.dir, args.last)
    else:
        paths = averages.best(args.dir, args.best, args.metric, args.or_fewer)
    state = averages.average(paths, args.half)
    if args.forget_paths:
        state.update({name: averages.without_paths(state.get(name)) for name in ("cfg", "args")})
    averages.save(state, args.output)
    print(f"{args.output}: average of {len(paths)}:", *paths, sep="\n  ")
