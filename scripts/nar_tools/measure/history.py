"""How a sentence came about: the states of its decode, and what each changed against the one before."""

import itertools
import math
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import List, NamedTuple, Optional, Sequence, Tuple

from ..files import CONTROL

KEPT = "kept"
"""The name of what --collapse-repeats left."""


class Step(NamedTuple):
    """A state of the decode: T tokens and their T log-probabilities in nats; whether it is held against the one before.

    An empty token is a place at which nothing stands. ``marked``: T times whether it is to be marked, and ``told``, in
    words, what this means, where it is no comparison with the state before.
    """

    name: str
    tokens: Sequence[str]
    scores: Sequence[float]
    is_compared: bool = True
    marked: Optional[Sequence[bool]] = None
    told: str = ""


@dataclass(frozen=True)
class Pass:
    """T tokens, T probabilities 0 … 1, T times whether the pass changed it; ``before``: how many tokens there were;
    ``told``: what the marks mean where it is something else."""

    name: str
    tokens: List[str]
    probabilities: List[float]
    marked: List[bool]
    before: Optional[int] = None
    told: str = ""

    @property
    def change(self) -> str:
        """How much is new, in words."""
        if self.told:
            return self.told
        if self.before is None:
            return f"{sum(map(bool, self.tokens))} tokens"
        resized = f", {self.before} → {len(self.tokens)}" if self.before != len(self.tokens) else ""
        return f"{sum(self.marked)} changed{resized}"

    @property
    def spans(self) -> int:
        """How many separate runs of tokens are new."""
        return sum(is_new for is_new, _ in itertools.groupby(self.marked)) if self.before is not None else 0


@dataclass(frozen=True)
class Refinement:
    """A sentence on its way; without a pass where there was nothing to translate."""

    source: str
    passes: List[Pass]
    output: str
    reference: Optional[str] = None

    @property
    def runs(self) -> List[List[Pass]]:
        """The passes, parted where the length changes: within a run, position says what belongs together."""
        return [list(run) for _, run in itertools.groupby(self.passes, lambda step: len(step.tokens))]

    @property
    def is_non_local(self) -> bool:
        """Whether a step of the decode changed two or more separate spans at once."""
        return any(step.spans > 1 for step in self.passes if step.name != KEPT)

    @property
    def ending(self) -> List[Tuple[str, str]]:
        """What stands below the passes, each with its name."""
        return [("output", self.output)] + ([] if self.reference is None else [("reference", self.reference)])


def changes(before: Sequence[str], after: Sequence[str]) -> List[bool]:
    """For each token of ``after`` whether it is new: by position, or by alignment where the lengths differ."""
    if len(before) == len(after):
        return [old != new for old, new in zip(before, after)]
    marks = [True] * len(after)
    for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        marks[block.b : block.b + block.size] = [False] * block.size
    return marks


def printable(text: str) -> str:
    """Text without control characters: neither a sentence nor a strange dictionary may steer the terminal."""
    return CONTROL.sub("\ufffd", text)


def compared(steps: Sequence[Step]) -> List[Pass]:
    """The states as they followed each other, each held against the one before."""
    found: List[Pass] = []
    for name, words, scores, is_compared, given, told in steps:
        tokens = list(map(printable, words))
        before = found[-1].tokens if found and is_compared and given is None else None
        chances = [math.exp(min(score, 0.0)) for score in scores]
        marked = list(given or [False] * len(tokens)) if before is None else changes(before, tokens)
        found.append(Pass(name, tokens, chances, marked, None if before is None else len(before), told))
    return found


def refined(source: str, steps: Sequence[Step], output: str, reference: Optional[str] = None) -> Refinement:
    """A sentence and its states, ready to be shown."""
    reference = None if reference is None else printable(reference)
    return Refinement(printable(source), compared(steps), printable(output), reference)
