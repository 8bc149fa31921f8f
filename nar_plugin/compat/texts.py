"""Which text a checkpoint belongs to: what it says of itself, and what the folder that it was released in says."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import numpy as np
from fairseq.data import Dictionary

SAMPLED = 1000
"""Sentences whose words are in the hash of a parallel text, beside the lengths of all."""
STATE = "text"
"""The entry of the task's state in a checkpoint."""


def digest(dictionary: Any) -> str:
    """Hash of the symbols in their order; how often each was seen does not matter. "" of a side that is no text."""
    if dictionary is None:
        return ""
    return hashlib.sha256("\n".join(dictionary.symbols).encode("utf-8", "surrogatepass")).hexdigest()


def parallel_digest(
    dictionaries: Sequence[Any], lengths: Sequence[Any], sentence: Callable[[int], Iterable[Sequence[int]]]
) -> str:
    """Hash of a parallel text in ids: of both dictionaries, of the tokens of every sentence on either side, counting
    ``</s>``, and of a thousand pairs, evenly spaced. To read all of a large corpus would take minutes.

    ``lengths``: those of the sources and of the targets; ``sentence``: the ids of a pair, with ``</s>``.
    """
    found = hashlib.sha256("\n".join(map(digest, dictionaries)).encode())
    sizes = [np.asarray(side, dtype=np.int64) for side in lengths]
    for side in sizes:
        found.update(side.tobytes())
    for i in range(0, len(sizes[0]), max(1, len(sizes[0]) // SAMPLED)):
        for ids in sentence(i):
            found.update(np.asarray(ids, dtype=np.int64).tobytes())
    return found.hexdigest()


def _direction(made_from: List[str]) -> Optional[str]:
    """``de-en`` of ``[train.de, train.en]``: the order of the files is that of the translation."""
    languages = list(dict.fromkeys(match[1] for name in made_from if (match := re.search(r"\.([^.]+)$", str(name)))))
    return "-".join(languages) if len(languages) == 2 else None


def released_text(checkpoint: str) -> Optional[Dict[str, str]]:
    """What ``manifest.json`` and ``dict.txt`` beside a released checkpoint say; None where they do not speak of it."""
    folder = Path(checkpoint).parent
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        direction = _direction(list(manifest["made_from"]))
        if Path(checkpoint).name not in manifest["files"] or direction is None:
            return None
        symbols = digest(Dictionary.load(str(folder / "dict.txt")))
    except Exception:  # no such folder, or a file of another kind by that name
        return None
    return {"source": symbols, "target": symbols, "direction": direction}
