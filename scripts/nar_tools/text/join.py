"""Parallel sentences joined to pairs of one length."""

from itertools import cycle, islice
from typing import Iterator, List, Sequence, Tuple

from ..errors import ToolError

Pair = Tuple[List[str], List[str]]


def enough(length: int) -> int:
    """How many sentences of so many tokens are timed by default: 2,000 tokens, but from 3 to 20 sentences."""
    return min(20, max(3, 2000 // length))


def joined(pairs: Sequence[Pair], length: int) -> Iterator[Pair]:
    """Endless pairs of ``length`` tokens a side. ``pairs``: some token on either side."""
    source: List[str] = []
    target: List[str] = []
    for more_source, more_target in cycle(pairs):
        source, target = source + more_source, target + more_target
        if min(len(source), len(target)) >= length:
            yield source[:length], target[:length]
            source, target = [], []


def sides(source: Sequence[str], target: Sequence[str], length: int, count: int) -> Tuple[List[str], List[str]]:
    """The lines of ``count`` pairs of ``length`` tokens, made of the lines of a text."""
    if len(source) != len(target):
        raise ToolError(f"{len(source)} lines of source, {len(target)} of target")
    pairs = [(s.split(), t.split()) for s, t in zip(source, target) if s.split() and t.split()]
    if not pairs:
        raise ToolError("there is no sentence to join")
    made = list(islice(joined(pairs, length), count))
    return [" ".join(pair[0]) for pair in made], [" ".join(pair[1]) for pair in made]
