"""Lines of text out of files as corpora are served: archives, and texts in archives, compressed or not."""

import fnmatch
import gzip
import html
import io
import re
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Iterator, List, Tuple

from ..errors import ToolError
from ..progress import reading

ITSELF = "-"
"""In place of a member's name: the file is no archive, but the text."""
SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
TAGGED = re.compile(r"<(doc|file|url|keywords|speaker|talkid|reviewer|translator|title|description)\b[^>]*>(.*)")
TITLES = ("title", "description")
Member = Tuple[str, bytes]
"""Its own name, and what it holds."""


def meant(names: List[str], pattern: str) -> List[str]:
    """Those of the names that the pattern means."""
    return [name for name in names if fnmatch.fnmatchcase(name.removeprefix("./"), pattern)]


def only(names: List[str], pattern: str, archive: str) -> str:
    if len(names) != 1:
        raise ToolError(f"{archive} holds {len(names)} members {pattern}")
    return names[0]


def of_zip(stream: IO[bytes], pattern: str, archive: str) -> Member:
    files = zipfile.ZipFile(stream)
    name = only(meant(files.namelist(), pattern), pattern, archive)
    return name, files.read(name)


def of_tar(stream: IO[bytes], pattern: str, archive: str) -> Member:
    """In one pass, for a compressed archive is slow to read."""
    names: List[str] = []
    content = b""
    with tarfile.open(fileobj=stream) as tar:
        for found in tar:
            if found.isfile() and meant([found.name], pattern):
                names.append(found.name)
                file = tar.extractfile(found) if len(names) == 1 else None
                content = file.read() if file else content
    return only(names, pattern, archive), content


def member(stream: IO[bytes], pattern: str, archive: str) -> Member:
    """The one that the pattern means, ``inner.tgz!member`` within an archive inside."""
    pattern, _, inner = pattern.partition("!")
    is_zip = zipfile.is_zipfile(stream)
    stream.seek(0)
    name, content = (of_zip if is_zip else of_tar)(stream, pattern, archive)
    return member(io.BytesIO(content), inner, f"{archive}!{name}") if inner else (name, content)


def itself(stream: IO[bytes], path: Path) -> Member:
    """A file that is one text, gzipped or not."""
    content = stream.read()
    is_gzip = content.startswith(b"\x1f\x8b")
    return path.name.removesuffix(".gz"), gzip.decompress(content) if is_gzip else content


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


def content_of(path: Path, pattern: str) -> Member:
    """What a file holds. What cannot be read is a ToolError."""
    hint = ""
    try:
        with reading(path, path.name) as stream:
            return itself(stream, path) if pattern == ITSELF else member(stream, pattern, str(path))
    except tarfile.ReadError as error:
        hint = f"{error} (no archive; if the file itself is the text, its member is -)"
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        hint = str(error)
    raise ToolError(f"cannot read {path}: {hint}")


def lines_of(path: Path, pattern: str, titles: bool) -> List[str]:
    """The lines of one text, read as its name says."""
    name, content = content_of(path, pattern)
    text = content.decode("utf-8-sig", errors="replace")
    if name.endswith((".sgm", ".xml")):
        return list(segments(text))
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if Path(name).name.startswith("train.tags."):
        return list(untagged(lines, titles))
    return [line.rstrip("\r") for line in lines]


def parallel(source: Tuple[Path, str], target: Tuple[Path, str], titles: bool) -> Tuple[List[str], List[str]]:
    """Both sides of one text, each given as a file and a member of it; equally many lines, at least one."""
    sides = lines_of(*source, titles), lines_of(*target, titles)
    if len(sides[0]) != len(sides[1]):
        raise ToolError(f"{called(*source)} has {len(sides[0])} lines, {called(*target)} has {len(sides[1])}")
    if not sides[0]:
        raise ToolError(f"{called(*source)} has no lines")
    return sides


def called(path: Path, pattern: str) -> str:
    """A text's name in messages."""
    return str(path) if pattern == ITSELF else f"{pattern} of {path}"
