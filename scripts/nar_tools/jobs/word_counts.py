"""How many target words each source word has: files of ``--word-counts``.

What is written is what a training reads: a line of JSON, with the hash of the text and the number of lines that follow;
then a line a sentence, a number for each of its source words.
"""

import json
from pathlib import Path
from typing import Any, List, Sequence, Tuple

from ..files import write_lines
from ..progress import progress
from ..text import alignment

Sides = Tuple[Any, Any]


def digest(pairs: Sequence[alignment.Pair], sides: Sides) -> str:
    """The hash of a text as fairseq-preprocess makes numbers of it."""
    from nar_plugin.compat import parallel_digest

    def ids(i: int) -> List[List[int]]:
        return [[side.index(word) for word in words] + [side.eos()] for side, words in zip(sides, pairs[i])]

    return parallel_digest(sides, [[len(pair[side]) + 1 for pair in pairs] for side in (0, 1)], ids)


def write(path: Path, pairs: Sequence[alignment.Pair], counts: Sequence[Sequence[int]], sides: Sides) -> None:
    """The file of a split, whose sentences are the pairs."""
    head = json.dumps({"text": digest(pairs, sides), "lines": len(counts)})
    write_lines(path, [head, *(" ".join(map(str, some)) for some in counts)])


def aligned(model: Any, pairs: Sequence[alignment.Pair]) -> List[List[int]]:
    """The counts of all pairs by the model of ``alignment.aligner``."""
    return [alignment.word_counts(model, pair) for pair in progress(pairs, "counting", "pairs")]
