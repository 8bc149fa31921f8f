"""Files of ``--shortlist``, as ``nar align`` writes them.

The first line is JSON: the hashes of both dictionaries (``compat.digest``) and how many lines follow. Each of those is
a source word, a tab, and its target words parted by spaces; beside an empty source word stand those of every sentence.
"""

import json
from typing import Any, Dict, List

from ..compat import digest
from ..methods.contract import UsageError
from ..methods.shortlist import Lexicon
from ..methods.symbols import Symbols


def read(path: str, source: Any, target: Any, symbols: Symbols) -> Lexicon:
    """The lexicon in a file. Raises UsageError, one line, where there is none, or one of other dictionaries."""
    if source is None:
        raise UsageError("--shortlist: the sources of this --task are no text; leave it out")
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            head, *lines = file.read().removesuffix("\n").split("\n")
    except OSError as error:
        raise UsageError(f"--shortlist {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        head, lines = "", []
    check(path, header(path, head), len(lines), source, target)
    rows: List[List[int]] = [[] for _ in source.symbols]
    always: List[int] = []
    for number, line in enumerate(lines, 2):
        word, tab, words = line.partition("\t")
        try:
            ids = [target.indices[one] for one in words.split(" ") if words]
            (rows[source.indices[word]] if word else always).extend(ids)
        except KeyError as error:
            told = f"no dictionary has {error}" if tab else "there is no tab"
            raise UsageError(f"--shortlist {path}, line {number}: {told}; make it anew (nar align)") from None
    return Lexicon(rows, always, symbols)


def header(path: str, line: str) -> Dict[str, Any]:
    """What the first line says."""
    try:
        found = json.loads(line)
        return {name: found[name] for name in ("source", "target", "lines")}
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"--shortlist {path} is no file of nar align") from None


def check(path: str, told: Dict[str, Any], lines: int, source: Any, target: Any) -> None:
    """Raises UsageError for a file of other dictionaries, or one that was cut."""
    sides = {"source": source, "target": target}
    others = [side for side, dictionary in sides.items() if told[side] != digest(dictionary)]
    if others:
        named = " and another ".join(others)
        raise UsageError(f"--shortlist {path} was made with another {named} dictionary; make one with nar align --dict")
    if lines != told["lines"]:
        raise UsageError(f"--shortlist {path} has {lines} lines of {told['lines']}: make it anew (nar align)")
