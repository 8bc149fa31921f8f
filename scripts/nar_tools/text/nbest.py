"""A teacher's n best answers, lines ``id ||| text ||| score``: those of a sentence together, best first."""

import math
from itertools import groupby
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Tuple

from ..errors import ToolError
from ..files import read_gzip_lines

BAR = " ||| "


class Candidate(NamedTuple):
    """``score``: as fairseq's search prints it, bits, divided by the number of tokens to the power of its penalty."""

    text: str
    score: float

    @property
    def tokens(self) -> int:
        """Of the target that this text is, ``</s>`` counted."""
        return len(self.text.split()) + 1

    def log_prob(self, lenpen: float) -> float:
        """log p(y | x) in nats; ``lenpen``: of the search that made the list."""
        return self.score * math.log(2) * self.tokens**lenpen

    @property
    def is_usable(self) -> bool:
        """Whether it can be a target: it has words, all of them known."""
        words = self.text.split()
        return bool(words) and "<unk>" not in words


def parsed(line: str) -> Tuple[int, Candidate]:
    """Raises ValueError for what is no such line; a text may have bars of its own."""
    number, _, rest = line.partition(BAR)
    text, _, score = rest.rpartition(BAR)
    return int(number), Candidate(text, float(score))


def groups(path: Path) -> Iterator[Tuple[int, List[Candidate]]]:
    """Sentences that have answers, from the first one on, with their answers. Raises ToolError for another file."""
    last = -1
    try:
        for sentence, found in groupby(map(parsed, read_gzip_lines(path)), key=lambda pair: pair[0]):
            if sentence <= last:
                raise ValueError(f"sentence {sentence} stands behind sentence {last}")
            last = sentence
            yield sentence, [candidate for _, candidate in found]
    except ValueError as error:
        raise ToolError(f"{path} is no list of n best answers: {error}") from None


def lists(path: Path, count: int) -> Iterator[List[Candidate]]:
    """For each of ``count`` sentences its answers, none where the teacher gave none. Raises ToolError."""
    at = 0
    for sentence, found in groups(path):
        if sentence >= count:
            raise ToolError(f"{path} has sentence {sentence}, the text {count} lines")
        yield from ([] for _ in range(sentence - at))
        yield found
        at = sentence + 1
    yield from ([] for _ in range(count - at))


def pairs(path: Path, sources: Iterable[str], count: int) -> Iterator[Tuple[str, str]]:
    """Source and text of every candidate, in the order of the list; ``count``: of the sources. Raises ToolError."""
    for source, found in zip(sources, lists(path, count)):
        for candidate in found:
            yield source, candidate.text
