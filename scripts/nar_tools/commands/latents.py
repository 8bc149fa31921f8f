"""Draws how latents are refined, by a model with Gaussian latents or by a refiner and the model it stands on.

Takes the flags of fairseq-generate besides its own; of those that decode --latent-step-size alone.

STEM.plane: the latents of sentence N (0 is the first), with the length of its reference: the prior's mean, where delta
steps (and a refiner's steps) lead, the posterior's mean given the reference, and the field of a refiner's steps. All
latents of the sentence are one point; the plane is that of the two principal components of the points that are drawn.
STEM.bound and STEM.bleu: over 0 … K steps of each kind, the mean of a bound's proxy, log p(y | z, x) − KL(q ‖ p) +
log p(length) in nats with z the mean of q(z | x, y), for the output y of each sentence; and, with --reference, the raw
text, its BLEU. Each is a .png and a .svg.

Example:
    nar latents bin --user-dir nar_plugin --task translation_nar --path refiner.pt --gen-subset test \\
        --output figures/latents --reference test.en --steps 4
"""

import argparse
from pathlib import Path
from typing import List, Sequence, Tuple

from .. import cli, files
from ..errors import ToolError
from ..measure import figures
from ..measure.system import quietly


def parse(argv: Sequence[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Our own flags, and those that are left to fairseq."""
    parser = cli.parser("latents", __doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="STEM", help="STEM.plane.png and so on are written")
    add("--reference", type=Path, help="the raw text of the test set, for BLEU")
    add("--sentence", type=int, default=0, metavar="N", help="the one whose latents are drawn (default 0)")
    add("--steps", type=int, default=4, metavar="K", help="steps that are made (default 4)")
    args, flags = parser.parse_known_args(argv)
    if args.steps < 1:
        parser.error("--steps needs 1 or more")
    return args, flags


def run(args: argparse.Namespace, flags: List[str]) -> None:
    from ..measure import latents  # torch takes seconds to load

    references = files.read_lines(args.reference, clean=True) if args.reference else []
    refined = latents.Refined(flags)
    count = len(refined.dataset)
    if references and len(references) != count:
        raise ToolError(f"{args.reference} has {len(references)} lines for {count} sentences")
    if not 0 <= args.sentence < count:
        raise ToolError(f"--sentence {args.sentence}: there are {count}, from 0")
    found = refined.by_steps(args.steps, references)
    print("inference  steps  bound's proxy, nats  BLEU")
    for kind, row in found.items():
        for step, (bound, bleu) in enumerate(row):
            print(f"{kind:9}  {step:5}  {bound:19.3f}  {f'{bleu:5.2f}' if references else '-'}")
    draw = latents.draw_plane
    figures.save_drawn(lambda: draw(refined, args.sentence, args.steps), Path(f"{args.output}.plane"))
    for name, chart in latents.charts(found, count, bool(references)).items():
        figures.save(chart, Path(f"{args.output}.{name}"))


def main(argv: Sequence[str]) -> None:
    args, flags = parse(argv)
    with quietly():
        run(args, flags)
