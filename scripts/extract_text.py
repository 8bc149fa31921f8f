"""Parallel text out of the archives of WMT, IWSLT and OPUS, as they are served.

    extract_text.py --from nc.tgz training/nc.de-en.en nc.tgz training/nc.de-en.de --output train.en train.de

Each ``--from`` names an archive (tar, compressed or not, or zip) and a member of it for either side; members may hold
``*`` and ``?``, and ``inner.tgz!member`` is a member of an archive inside. By its name a member is plain text,
``train.tags.*`` of IWSLT, or the segments of ``.sgm`` and ``.xml``. Lines of ``train.tags`` that hold a talk's address,
keywords and so on are no text; ``--titles`` takes titles and descriptions for text, as fairseq's IWSLT14 recipe does.
"""

import argparse
import fnmatch
import html
import io
import re
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Iterator, List, Tuple

from files import fail, write_lines

SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
TAGGED = re.compile(r"<(doc|file|url|keywords|speaker|talkid|reviewer|translator|title|description)\b[^>]*>(.*)")
TITLES = ("title", "description")
Opened = Tuple[str, IO[bytes]]


def one_of(names: List[str], pattern: str, archive: str) -> str:
    """The name that the pattern means. None, or several: ends the program."""
    clean = {name.removeprefix("./"): name for name in names}
    found = fnmatch.filter(clean, pattern)
    if len(found) != 1:
        fail(f"{archive} holds {len(found)} members {pattern}")
    return clean[found[0]]


def opened(archive: str, stream: IO[bytes], pattern: str) -> Opened:
    """The member's own name and its bytes."""
    pattern, _, inner = pattern.partition("!")
    if zipfile.is_zipfile(stream):
        files = zipfile.ZipFile(stream)
        name = one_of(files.namelist(), pattern, archive)
        member: IO[bytes] = files.open(name)
    else:
        stream.seek(0)
        tar = tarfile.open(fileobj=stream)
        name = one_of([found.name for found in tar if found.isfile()], pattern, archive)
        member = tar.extractfile(name)  # type: ignore[assignment]  # a file has one
    if inner:
        return opened(f"{archive}!{name}", io.BytesIO(member.read()), inner)
    return name, member


def segments(text: str) -> Iterator[str]:
    """Of an SGM or XML test set, in order; entities resolved, each on one line."""
    for segment in SEGMENT.findall(text):
        yield " ".join(html.unescape(segment).split())


def untagged(lines: List[str], titles: bool) -> Iterator[str]:
    """Of ``train.tags``: the lines that are no tag, and what stands in the tags of titles if they are wanted."""
    for line in map(str.strip, lines):
        tagged = TAGGED.fullmatch(line)
        if not tagged and not line.startswith("</"):
            yield line
        elif tagged and titles and tagged[1] in TITLES:
            yield tagged[2].removesuffix(f"</{tagged[1]}>").strip()


def read(archive: Path, pattern: str, titles: bool) -> List[str]:
    """The lines of one member. What cannot be read ends the program with one line."""
    try:
        with open(archive, "rb") as stream:
            name, member = opened(str(archive), stream, pattern)
            text = member.read().decode("utf-8-sig", errors="replace")
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        fail(f"cannot read {archive}: {error}")
    if name.endswith((".sgm", ".xml")):
        return list(segments(text))
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if Path(name).name.startswith("train.tags."):
        return list(untagged(lines, titles))
    return [line.rstrip("\r") for line in lines]


def extract(text: List[str], titles: bool) -> Tuple[List[str], List[str]]:
    """Both sides of one text, of equally many lines; prints how many. Otherwise ends the program."""
    source, target = (read(Path(archive), member, titles) for archive, member in (text[:2], text[2:]))
    if len(source) != len(target):
        fail(f"{text[1]} of {text[0]} has {len(source)} lines, {text[3]} of {text[2]} has {len(target)}")
    if not source:
        fail(f"{text[1]} of {text[0]} has no lines")
    print(f"{Path(text[0]).name} {text[1]}: {len(source)} lines", file=sys.stderr)
    return source, target


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from",
        dest="texts",
        nargs=4,
        action="append",
        required=True,
        metavar=("ARCHIVE", "SOURCE", "ARCHIVE", "TARGET"),
        help="where either side of a text stands, in the order of the output",
    )
    parser.add_argument("--titles", action="store_true", help="of train.tags, titles and descriptions are text")
    parser.add_argument("--output", nargs=2, type=Path, required=True, metavar=("SOURCE", "TARGET"))
    return parser.parse_args()


def main() -> None:
    args = parse()
    pairs = [extract(text, args.titles) for text in args.texts]
    for side, path in enumerate(args.output):
        write_lines(path, (line for pair in pairs for line in pair[side]))
    print(f"{args.output[0]}, {args.output[1]}: {sum(len(pair[0]) for pair in pairs)} lines", file=sys.stderr)


if __name__ == "__main__":
    main()
