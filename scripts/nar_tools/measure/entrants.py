"""What a benchmark measures: systems as the user names them, an id and the flags of each."""

import argparse
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import List, NoReturn, Optional, Sequence

from ..errors import ToolError
from . import curves
from .results import BASELINES, ENGINES, ID

COMPUTE_TYPES = {"ctranslate2": "float32", "ctranslate2-int8": "int8"}
"""Of the engines that are no flag of fairseq's: what CTranslate2 is asked to compute in."""


@dataclass(frozen=True)
class Entrant:
    id: str
    flags: str
    train: Optional[str]
    baseline: Optional[str]
    converged: Optional[bool]
    engine: str
    simulated: Optional[int] = None
    """Tokens that a call gives, where acceptance is simulated."""

    @property
    def search(self) -> Optional[str]:
        """Which of the teacher's searches this is, if any: the name of a baseline."""
        found = re.fullmatch(r"ar-(greedy|beam\d+)", self.id)
        return found.group(1) if found else None


class OwnFlags(argparse.ArgumentParser):
    """Of a system's flags those that are not fairseq's, and --engine, which may be."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--train")
        self.add_argument("--baseline", choices=BASELINES)
        self.add_argument("--curve", type=Path)
        self.add_argument("--engine", choices=ENGINES)
        self.add_argument("--simulate-acceptance", type=int)

    def error(self, message: str) -> NoReturn:
        raise ToolError(message)


def entrant_of(name: str, words: str) -> Entrant:
    """Takes what is ours from a system's flags."""
    try:
        told, flags = OwnFlags().parse_known_args(shlex.split(words))
        converged = curves.is_converged(curves.load(told.curve)) if told.curve else None
    except (ValueError, OSError, ToolError) as error:
        raise ToolError(f"{name}: {error}") from None
    if told.engine and told.engine not in COMPUTE_TYPES:
        flags += ["--engine", told.engine]
    simulated = told.simulate_acceptance
    if simulated is not None and simulated < 1:
        raise ToolError(f"{name}: --simulate-acceptance {simulated}: it needs 1 or more")
    if simulated is not None and told.engine in COMPUTE_TYPES:
        raise ToolError(f"{name}: --simulate-acceptance: not with --engine {told.engine}, which drafts nothing")
    return Entrant(name, shlex.join(flags), told.train, told.baseline, converged, told.engine or "eager", simulated)


def entrants_of(given: Sequence[Sequence[str]], teacher: Optional[str]) -> List[Entrant]:
    """The teacher's searches, if there is a teacher, and the systems that are given."""
    entrants = [entrant_of(name, words) for name, words in given]
    if teacher:
        entrants = [e if e.search or e.baseline else replace(e, baseline="beam5") for e in entrants]
        wanted = {"greedy", "beam3", "beam5", *(e.baseline for e in entrants)}
        beams = {name: 1 if name == "greedy" else int(name[4:]) for name in BASELINES if name in wanted}
        entrants = [entrant_of(f"ar-{name}", f"{teacher} --beam {beam}") for name, beam in beams.items()] + entrants
    if not entrants:
        raise ToolError("nothing to measure: give --teacher, --system or both")
    check(entrants)
    return entrants


def check(entrants: Sequence[Entrant]) -> None:
    """Raises ToolError for ids that are no names or stand twice, and baselines that are not there or not fairseq's."""
    searches = {e.search for e in entrants}
    for e in entrants:
        if not ID.fullmatch(e.id) or sum(other.id == e.id for other in entrants) > 1:
            raise ToolError(f"{e.id!r} is no name, or that of two systems")
        if e.baseline and e.baseline not in searches:
            raise ToolError(f"{e.id}: its baseline {e.baseline} is not measured in this run (--teacher)")
        if e.search and e.engine in COMPUTE_TYPES:
            raise ToolError(f"{e.id} is fairseq's own search: give --engine {e.engine} to a --system of another id")
