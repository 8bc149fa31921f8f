"""Files of ``--word-counts``, as ``nar align`` writes them: how many target words each source word has.

The folder has a file a split, ``train``, ``valid``. The first line is JSON: the hash of the text
(``compat.parallel_digest``) and how many lines follow. Each of those is of a sentence, in the order of the text: a
number for each of its source words, parted by spaces, which add up to the target's words.
"""

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from torch import Tensor

from ..compat import parallel_digest
from ..methods.contract import UsageError


class WordCounts:
    """Those of the splits that a task loads."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.splits: Dict[str, Split] = {}

    def load(self, split: str, dataset: Any) -> None:
        """The file of a split. ``dataset``: fairseq's, of sentence pairs, none of them cut yet.

        Raises UsageError, one line, where there is no file, or one of another text.
        """
        self.splits[split] = Split(str(self.folder / split), dataset)

    def rows(self, ids: Tensor, split: str, sizes: Any) -> Tensor:
        """(B, S) counts of the sentences ``ids`` (B,) of a split, right-padded with 0; the end symbol of a source has
        the count 1. ``sizes``: tokens of all sources; those that were cut have the counts of what is left."""
        return self.splits[split].rows(ids, np.asarray(sizes))


class Split:
    """A file, held against the text that it is of."""

    def __init__(self, path: str, dataset: Any) -> None:
        head, *lines = read(path)
        told = header(path, head)
        sizes = [np.asarray(side) for side in (dataset.src_sizes, dataset.tgt_sizes)]
        check(path, told, len(lines), len(sizes[0]))
        counts = [numbers(path, number, line) for number, line in enumerate(lines, 2)]
        check_sums(path, counts, sizes)
        dictionaries = dataset.src_dict, dataset.tgt_dict
        found = parallel_digest(dictionaries, sizes, lambda i: (dataset.src[i].tolist(), dataset.tgt[i].tolist()))
        if told["text"] != found:
            raise UsageError(f"{path} was made of another text; make it anew (nar align --word-counts)")
        self.ends = np.cumsum([0, *map(len, counts)])
        self.counts = np.concatenate([*counts, np.zeros(1, dtype=np.int16)])  # one more, lest there be none

    def rows(self, ids: Tensor, sizes: Any) -> Tensor:
        chosen = ids.cpu().numpy()
        place = np.arange(int(sizes[chosen].max(initial=1)))
        at = np.minimum(self.ends[chosen][:, None] + place, len(self.counts) - 1)
        last = sizes[chosen][:, None] - 1
        found = np.where(place < last, self.counts[at], place == last)
        return torch.from_numpy(found.astype(np.int64)).to(ids.device)


def read(path: str) -> List[str]:
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UsageError(f"--word-counts: {path}: {error.strerror}; nar align --word-counts writes it") from None
    except UnicodeDecodeError:
        return [""]


def header(path: str, line: str) -> Dict[str, Any]:
    """What the first line says."""
    try:
        found = json.loads(line)
        return {name: found[name] for name in ("text", "lines")}
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"--word-counts: {path} is no file of nar align --word-counts") from None


def check(path: str, told: Dict[str, Any], lines: int, sentences: int) -> None:
    """Raises UsageError for a file that was cut, or has not as many lines as there are sentences."""
    if lines != told["lines"]:
        raise UsageError(f"{path} has {lines} lines of {told['lines']}: make it anew (nar align --word-counts)")
    if lines != sentences:
        raise UsageError(f"{path} has {lines} lines, of a text of {sentences} sentences (nar align --word-counts)")


def check_sums(path: str, counts: List[Any], sizes: List[Any]) -> None:
    """Raises UsageError for the first line that has not a number for each word, or not the target's words."""
    found = np.array([(len(some), some.sum()) for some in counts], dtype=np.int64).reshape(-1, 2)
    wanted = np.stack(sizes, 1) - 1
    wrong = np.flatnonzero((found != wanted).any(1)).tolist()
    if wrong:
        (count, total), (words, targets) = found[wrong[0]].tolist(), wanted[wrong[0]].tolist()
        raise UsageError(
            f"{path}, line {wrong[0] + 2}: {count} numbers, {total} together, of a sentence of {words} words whose "
            f"target has {targets}; make it anew (nar align --word-counts)"
        )


def numbers(path: str, number: int, line: str) -> Any:
    """The counts of a line."""
    try:
        found = np.array(line.split(), dtype=np.int16)
    except (ValueError, OverflowError):
        found = np.array([-1])
    if (found < 0).any():
        raise UsageError(f"{path}, line {number}: it takes whole numbers from 0 on, parted by spaces")
    return found
