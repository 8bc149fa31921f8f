"""Rounds of EM training: what each reached, whether another one is worth it, a table and figures of all.

A round is a dictionary: ``round`` (0 is plain distillation), BLEU of the valid set of its ``teacher``, its ``student``
and, from round 1 on, of the ``control`` (as many updates on the data of round 0); ``ncmm``: multi-modality in nats a
token of the teacher's first answers (``first``), of what was selected of all its answers (``selected``) and of the
valid set (``valid``), under the round's student; ``rule``: what the rounds of a loop share; what it was made of.
"""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..errors import ToolError
from ..files import read
from . import tables
from .figures import Chart, Series
from .scores import scores

Round = Dict[str, Any]
LEAST_BLEU, LEAST_SHARE = 0.1, 0.005
"""What counts as better: so much more BLEU of the student, or so much less NCMM, as a share of what it was."""
NCMM = {"first": "the teacher's first answers", "selected": "what was selected", "valid": "the valid set"}
SYSTEMS = ("teacher", "student", "control")


def bleu(texts: Sequence[str], references: Sequence[str], lowercase: bool) -> Dict[str, Any]:
    """BLEU and its signature."""
    found = scores(texts, references, lowercase)
    return {"bleu": found["bleu"], "signature": found["signature"].split(" ")[0]}


def load(paths: Sequence[Path]) -> List[Round]:
    """The rounds of one loop, from 0 on. Raises ToolError where files are none, or of several loops."""
    found = []
    for number, path in enumerate(paths):
        try:
            one = json.loads(read(path))
            if one["round"] != number:
                raise ToolError(f"{path} is round {one['round']}, where round {number} should stand")
            found.append(one)
        except (ValueError, KeyError, TypeError):
            raise ToolError(f"{path} holds no round that nar em measure wrote") from None
        if one["rule"] != found[0]["rule"]:
            raise ToolError(f"{path}: one loop has one student and one rule, {found[0]['rule']}, not {one['rule']}")
    return found


def better(new: Round, olds: Sequence[Round]) -> List[str]:
    """In what a round is better than all before it."""
    gained = [f"BLEU of the student {new['student']}"] if round(new["student"] - best(olds), 2) > LEAST_BLEU else []
    for name in ("selected", "valid"):
        least = min(old["ncmm"][name] for old in olds)
        if new["ncmm"][name] < least * (1 - LEAST_SHARE):
            gained.append(f"NCMM of {NCMM[name]} {new['ncmm'][name]:.4f}")
    return gained


def best(rounds: Sequence[Round]) -> float:
    """The highest BLEU of a student."""
    return max(float(one["student"]) for one in rounds)


def verdict(rounds: Sequence[Round]) -> Optional[str]:
    """Why the loop ends here, or None where another round may be worth it."""
    if len(rounds) < 2 or better(rounds[-1], rounds[:-1]):
        return None
    return f"round {rounds[-1]['round']} is no better: {LEAST_BLEU} BLEU or {100 * LEAST_SHARE} % of NCMM would be"


def table(rounds: Sequence[Round]) -> List[str]:
    """BLEU and multi-modality by round, and what the figures are."""
    one, four = tables.number(2), tables.number(4)
    headings = ["round", *SYSTEMS, *(f"NCMM {name}" for name in NCMM), "changed %"]
    cells = [
        [str(row["round"]), *(one(row.get(name)) for name in SYSTEMS), *(four(row["ncmm"][name]) for name in NCMM)]
        + [one(100 * row["changed"])]
        for row in rounds
    ]
    rule = rounds[0]["rule"]
    return [
        *tables.aligned([headings, *cells]),
        "",
        f"BLEU of the valid set ({rounds[0]['signature']}); control: as many updates on the data of round 0",
        f"NCMM: nats a token under the round's student ({rule['kind']}); changed: targets that are no first answer",
        f"selected by {rule['alpha']:g} log p(teacher) + log p(student){', a token' if rule['norm'] == 'len' else ''}",
    ]


def charts(rounds: Sequence[Round], name: str) -> Dict[str, Chart]:
    """By the ending of their files: BLEU, and NCMM, over the rounds."""
    found = {}
    lines: Dict[str, Any] = {
        "bleu": ("BLEU of the valid set", {system: [row.get(system) for row in rounds] for system in SYSTEMS}),
        "ncmm": ("NCMM, nats a token", {NCMM[part]: [row["ncmm"][part] for row in rounds] for part in NCMM}),
    }
    for ending, (label, values) in lines.items():
        series = []
        for told, ys in values.items():
            points = tuple((float(row["round"]), y) for row, y in zip(rounds, ys) if y is not None)
            if points:
                series.append(Series(told, points))
        ticks = [float(row["round"]) for row in rounds]
        caption = [f"scores of the student: {rounds[0]['rule']['kind']}"]
        found[ending] = Chart(f"EM rounds of {name}", "round", label, series, caption, log_x=False, x_ticks=ticks)
    return found
