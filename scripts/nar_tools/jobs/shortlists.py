"""Lexical shortlists: which target words go with each source word, and which with every sentence.

What is written is what ``--shortlist`` reads: a line of JSON, with the hashes of both dictionaries and the number of
lines that follow; then a source word, a tab and its target words a line, where the empty source word has those of every
sentence. Without the first line it is a vmap.txt of CTranslate2.
"""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from ..errors import ToolError
from ..files import read_lines, write_lines
from ..text import alignment
from .distilled import quiet_fairseq


class Shortlist(NamedTuple):
    """``always``: the words of every sentence; ``words``: by source word, those that it adds."""

    always: List[str]
    words: Dict[str, List[str]]

    def lines(self) -> Iterator[str]:
        yield "\t" + " ".join(self.always)
        for word, targets in self.words.items():
            yield f"{word}\t{' '.join(targets)}"


def dictionary(path: Path) -> Any:
    """A dict.txt of fairseq-preprocess."""
    with quiet_fairseq():
        from fairseq.data import Dictionary

        try:
            return Dictionary.load(str(path))
        except Exception as error:  # the host raises every kind, even Exception itself
            raise ToolError(f"{path} is no dictionary of fairseq-preprocess: {error}") from None


def of_dictionary(words: Any) -> List[str]:
    """Its words without the special symbols, in its order."""
    return list(words.symbols[words.nspecial :])


def read(paths: Sequence[Path], sides: Sequence[Any], most: int) -> List[alignment.Pair]:
    """At most so many pairs of a text, evenly spaced, as words of the dictionaries; others are ``<unk>``."""
    return with_words(read_pairs(paths, sides, most))


def read_pairs(paths: Sequence[Path], sides: Sequence[Any], most: int = 0) -> List[alignment.Pair]:
    """Pairs of a text, all or at most so many, evenly spaced, as words of the dictionaries; others are ``<unk>``."""
    source, target = (read_lines(path) for path in paths)
    if len(source) != len(target):
        raise ToolError(f"{len(source)} lines of source, {len(target)} of target")
    step = spacing(len(source), most or len(source))
    known = [set(side.symbols) for side in sides]
    unknown = [side.symbols[side.unk()] for side in sides]

    def words(side: int, line: str) -> List[str]:
        return [word if word in known[side] else unknown[side] for word in line.split()]

    return [(words(0, one), words(1, other)) for one, other in zip(source[::step], target[::step])]


def spacing(count: int, most: int) -> int:
    """Every so manyth of ``count`` are ``most`` at most."""
    return max(1, -(-count // max(1, most)))


def with_words(pairs: Sequence[alignment.Pair]) -> List[alignment.Pair]:
    """Those that have words on either side. Raises ToolError where there are none."""
    found = [pair for pair in pairs if all(pair)]
    if not found:
        raise ToolError("there is no sentence to align")
    return found


def completed(always: List[str], words: Dict[str, List[str]], sides: Tuple[Any, Any]) -> Shortlist:
    """With ``</s>`` and ``<unk>`` for every sentence, without other special symbols, and each word said once."""
    source, target = sides
    first = [target.symbols[target.eos()], target.symbols[target.unk()]]
    known = set(of_dictionary(target))
    everywhere = first + [word for word in always if word in known]
    new = known - set(everywhere)
    readable = {source.symbols[source.unk()], *of_dictionary(source)}
    return Shortlist(everywhere, {s: [t for t in some if t in new] for s, some in words.items() if s in readable})


def aligned(
    paths: Sequence[Path], sides: Tuple[Any, Any], per_word: int, frequent: int, floor: float, most: int
) -> Shortlist:
    """Of a text: by source word its most probable translations, and for every sentence the most frequent words."""
    pairs = read(paths, sides, most)
    counts = Counter(word for _, target in pairs for word in target)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    always = [word for word in ranked if word not in sides[1].symbols[: sides[1].nspecial]][:frequent]
    return completed(always, alignment.translations(pairs, per_word, floor), sides)


def drawn(seed: int, sides: Tuple[Any, Any], per_word: int, frequent: int) -> Shortlist:
    """Words drawn by chance, to time a decoder that has learnt nothing; for every sentence the dictionary's first."""
    source, target = map(of_dictionary, sides)
    draw, count = random.Random(seed), min(per_word, len(target))
    return completed(target[:frequent], {word: draw.sample(target, count) for word in source}, sides)


def write(path: Path, shortlist: Shortlist, sides: Tuple[Any, Any]) -> None:
    """The file that ``--shortlist`` reads."""
    from nar_plugin.compat import digest

    lines = list(shortlist.lines())
    source, target = map(digest, sides)
    write_lines(path, [json.dumps({"source": source, "target": target, "lines": len(lines)}), *lines])


def write_vmap(path: Path, shortlist: Shortlist) -> None:
    """The same for CTranslate2."""
    write_lines(path, shortlist.lines())
