"""Measures what a latent transformer loses in its codes, and what in predicting them.

Takes the flags of fairseq-generate besides its own. The sentences of --gen-subset are decoded with the lengths of their
references from the codes of these references («true»: the ceiling), from those of another sentence («foreign»: if that
is as good, the decoder does without its codes), from the predictor's where it is given the true ones before («forced»),
and from its own («predicted»). Then: the cross-entropy of the words given true codes, that of the codes, how many codes
are in use, and their perplexity. With --show N, of the first N sentences: their codes, the words that each stands for,
and what is said where one of them is the next most probable.

Example:
    nar codes DATA_BIN --path student.pt --user-dir nar_plugin --task translation_nar --gen-subset valid \\
        --reference valid.en
"""

import argparse
from pathlib import Path
from typing import List, Sequence, Tuple

from .. import cli, files
from ..measure.system import quietly


def parse(argv: Sequence[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Our own flags, and those that are left to fairseq."""
    parser = cli.parser("codes", __doc__)
    parser.add_argument("--reference", type=Path, help="the raw text of the subset, for BLEU")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="sentences whose codes are shown")
    return parser.parse_known_args(argv)


def main(argv: Sequence[str]) -> None:
    args, flags = parse(argv)
    with quietly():
        from ..measure import codes  # torch takes seconds to load

        references = files.read_lines(args.reference, clean=True) if args.reference else []
        lines = codes.main(flags, references, args.show)
    print("\n".join(lines))
