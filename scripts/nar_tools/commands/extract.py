"""Takes parallel text out of the files in which WMT, IWSLT and OPUS serve it.

Example:

    nar extract --from nc.tgz training/nc.de-en.en nc.tgz training/nc.de-en.de --output train.en train.de
    nar extract --from train.en.gz - train.de.gz - --output train.en train.de

Each --from names, for either side, an archive (zip, or tar, compressed or not) and a member of it; the texts of several
--from follow one another. A member may hold * and ?, and inner.tgz!member is a member of an archive inside the archive.
The member - means that the file is no archive but the text itself, gzipped or not. By its name a text is plain lines,
train.tags.* of IWSLT, or the segments of .sgm and .xml. The lines of train.tags that hold a talk's address, keywords
and so on are left out; with --titles its titles and descriptions are kept, as fairseq's IWSLT14 recipe does.
"""

import argparse
import sys
from pathlib import Path
from typing import List, Sequence, Tuple

from ..cli import parser
from ..files import write_lines
from ..text import extract


def parse(argv: Sequence[str]) -> argparse.Namespace:
    options = parser("extract", __doc__)
    options.add_argument(
        "--from",
        dest="texts",
        nargs=4,
        action="append",
        required=True,
        metavar=("FILE", "SOURCE", "FILE", "TARGET"),
        help="where either side of a text stands, in the order of the output",
    )
    options.add_argument("--titles", action="store_true", help="keep the titles and descriptions of train.tags")
    options.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    return options.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    pairs: List[Tuple[List[str], List[str]]] = []
    for source_file, source, target_file, target in args.texts:
        pairs.append(extract.parallel((Path(source_file), source), (Path(target_file), target), args.titles))
        name = "" if source == extract.ITSELF else f" {source}"
        print(f"{Path(source_file).name}{name}: {len(pairs[-1][0])} lines", file=sys.stderr)
    for side, path in enumerate(args.output):
        write_lines(path, (line for pair in pairs for line in pair[side]))
    print(f"{args.output[0]}, {args.output[1]}: {sum(len(pair[0]) for pair in pairs)} lines", file=sys.stderr)
