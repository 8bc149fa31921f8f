"""Downloads an archive from the first address that serves it whole; an interrupted download goes on.

Example:

    nar fetch data/train.de.gz --sums checksums https://example.org/train.de.gz https://mirror.example.org/train.de.gz

A page of HTML in place of an archive, a cut archive (gzip or zip) and another checksum are refused, and the next
address is tried. Checksums, MD5 or SHA256, are lines "SUM  NAME" of the file --sums; what came without a known one is
written to `sha256sums` beside it, and is held to it the next time. Addresses may be file:///...
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Sequence

from .. import cli
from ..errors import ToolError
from ..files import write_lines
from ..provenance import digest

PATIENT = "--connect-timeout 20 --speed-time 60 --speed-limit 100 --retry 3 --retry-delay 1".split()
CURL = ["curl", "--fail", "--location", "--silent", "--show-error", *PATIENT]


def is_archive(path: Path) -> bool:
    """Whether a file is a gzip or zip file to its end."""
    try:
        if zipfile.is_zipfile(path):
            return zipfile.ZipFile(path).testzip() is None
        with gzip.open(path) as content:
            while content.read(1 << 20):
                pass
        return path.stat().st_size > 0  # to Python nothing at all is a gzip file too
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return False


def fault(path: Path, checksum: str) -> str:
    """What is wrong with a file that was served; empty if nothing is."""
    with open(path, "rb") as content:
        if b"<html" in (start := content.read(512).lower()) or b"<!doctype" in start:
            return "is an HTML page, not an archive"
    if not is_archive(path):
        return "is no gzip or zip file, or cut short"
    if checksum and checksum not in (digest(path, "sha256"), digest(path, "md5")):
        return "has another checksum than the one recorded"
    return ""


def download(url: str, part: Path) -> bool:
    """Goes on with what is there; where that gives no whole archive (a server that cannot go on), from the start."""
    if part.exists() and part.stat().st_size:
        goes_on = subprocess.run([*CURL, "--continue-at", "-", "--output", part, url], stderr=subprocess.DEVNULL)
        if goes_on.returncode == 0 and is_archive(part):
            return True
        new = part.with_name(f"{part.name}.new")
        if subprocess.run([*CURL, "--output", new, url]).returncode:
            return False
        new.replace(part)
        return True
    return subprocess.run([*CURL, "--output", part, url]).returncode == 0


def checksum(file: Path, sums: Sequence[Path]) -> str:
    """What the first of the files that knows it says of a file of this name; empty if none does."""
    lines = [line.split() for path in sums if path.is_file() for line in path.read_text(encoding="utf-8").splitlines()]
    return next((words[0] for words in lines if words[1:2] == [file.name]), "")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.parser("fetch", __doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument(
        "--sums", type=Path, nargs=1, default=[], metavar="FILE", help="checksums of files by their names"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = parse(argv)
    if not shutil.which("curl"):
        raise ToolError("the program curl is needed to download")
    args.file.parent.mkdir(parents=True, exist_ok=True)
    own, part = args.file.with_name("sha256sums"), args.file.with_name(f"{args.file.name}.part")
    known = checksum(args.file, [*args.sums, own])
    if args.file.exists() and known and not fault(args.file, known):
        return
    for url in args.urls:
        if download(url, part):
            wrong = fault(part, known)
            if not wrong:
                break
            print(f"nar fetch: {url} {wrong}", file=sys.stderr)
            part.unlink()
    else:
        raise ToolError(f"{args.file.name} could not be had; a recipe takes it from a folder too: OFFLINE=FOLDER")
    part.replace(args.file)
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    kept = [line for line in lines if line.split()[-1:] != [args.file.name]]
    write_lines(own, [*kept, f"{digest(args.file, 'sha256')}  {args.file.name}"])
