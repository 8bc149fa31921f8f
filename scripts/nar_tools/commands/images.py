"""Cuts images into patches that are lines of tokens, scores lines as images, and makes pictures of them.

`cut` writes the lines of a task: train, valid and test, of what is left of each patch (.low) and of the patch itself
(.high), with their dictionaries. `super_resolution` leaves the means of 4 by 4 pixels, `denoising` adds noise of a
standard deviation of 25 of 255, `inpainting` takes the middle out. The images are the photographs that scikit-learn
ships, or those of a folder: the last one by name is parted, its left part trains, a strip next to it validates, its
right half tests; all others train, by patches from anywhere in them. With --test-images N the last N images test and
the N before them validate; with --whole each image is one patch.

`score` says how near files of hypotheses are to the test split: PSNR in dB over all pixels, the mean absolute
difference, the share of equal pixels; with --results also in the rows of a results.json that are called as the files.
`picture` sets side by side what is given, a file of hypotheses, and the reference.

Example:

    nar images cut --output raw --restore super_resolution
    nar images score raw --hypotheses hypotheses/ar-greedy.txt hypotheses/sr-k6.txt
    nar images picture raw --hypotheses hypotheses/sr-k6.txt --output sr-k6.png
"""

import argparse
from pathlib import Path
from typing import Sequence

from .. import cli
from ..errors import ToolError
from ..measure import pixels
from ..text import images

ACTIONS = {
    "cut": "images to lines of tokens",
    "score": "how near hypotheses are to the test split",
    "picture": "the test split before and after, and as it should be",
}
SMALLEST, ZOOM, GAP = 8, 2, 8


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = cli.parser("images", __doc__)
    actions = options.add_subparsers(dest="action", required=True)
    for name, line in ACTIONS.items():
        action = actions.add_parser(name, help=line, description=line, allow_abbrev=False)
        add = action.add_argument
        if name == "cut":
            add("--output", type=Path, required=True, metavar="DIR", help="where the lines go")
            add(
                "--restore",
                choices=images.RESTORED,
                default=images.RESTORED[0],
                help="what is to be learnt (default the first)",
            )
            add("--images", type=Path, metavar="DIR", help="a folder of images (default: those of scikit-learn)")
            add("--side", type=int, default=32, help="of a patch, in pixels, a multiple of 4 (default 32)")
            add("--channels", type=int, choices=(1, 3), default=1, help="3: colours (default 1: grey)")
            add("--patches", type=int, default=10000, metavar="N", help="that train (default 10000)")
            add("--test-images", type=int, default=0, metavar="N", help="so many images test (0: a part of the last)")
            add("--whole", action="store_true", help="the middle square of each image, made smaller, is its one patch")
            add("--seed", type=int, default=1, help="of the places of patches and of noise (default 1)")
            continue
        add("folder", type=Path, help="what `cut` wrote")
        if name == "score":
            add("--hypotheses", type=Path, nargs="+", required=True, metavar="FILE", help="lines of the test split")
            add("--results", type=Path, metavar="FILE", help="a results.json whose rows get the scores")
        else:
            add("--hypotheses", type=Path, required=True, metavar="FILE", help="lines of the test split")
            add("--output", type=Path, required=True, metavar="FILE", help="a PNG")
    args = options.parse_args(argv)
    if args.action == "cut" and (args.side < SMALLEST or args.side % 4 or args.patches < 1 or args.test_images < 0):
        raise ToolError(
            f"--side wants a multiple of 4 from {SMALLEST} on, --patches 1 or more, --test-images 0 or more"
        )
    return args


def cut(args: argparse.Namespace) -> None:
    found = images.in_folder(args.images, args.channels) if args.images else images.shipped(args.channels)
    patches, columns = images.split(found, args.side, args.patches, args.test_images, args.whole, args.seed)
    facts = images.Facts(args.restore, args.side, args.channels, columns, args.seed)
    images.write(args.output, patches, facts)
    counts = ", ".join(f"{len(patches[name])} {name}" for name in images.SPLITS)
    print(f"{len(found)} images, patches of {facts.pixels} tokens: {counts}")


def score(args: argparse.Namespace) -> None:
    found = pixels.of_files(args.folder, args.hypotheses)
    if args.results:
        pixels.put_into(args.results, found)
    print(pixels.table(found))


def picture(args: argparse.Namespace) -> None:
    facts = images.facts_of(args.folder)
    shown = [
        images.patches_of(args.folder / "test.low", facts.low_side, facts.channels),
        images.patches_of(args.hypotheses, facts.side, facts.channels),
        images.patches_of(args.folder / "test.high", facts.side, facts.channels),
    ]
    if len({len(patches) for patches in shown}) > 1:
        raise ToolError(f"{args.hypotheses}: {len(shown[1])} images, where the test split has {len(shown[2])}")
    pictures = [images.mosaic(images.enlarged(patches, facts.side), facts.columns) for patches in shown]
    images.save(images.beside(pictures, GAP), args.output, ZOOM)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    {"cut": cut, "score": score, "picture": picture}[args.action](args)
