"""The E-step of EM training: of a teacher's n best answers the one that the student finds likely too.

Sun & Yang 2020 (arXiv 2006.16378, section 4). The next teacher's targets are of q(y | x) ∝ p_AR(y | x)
p_NAR(y | x)^(1/α), of which the most probable candidate is taken: the highest α log p_AR + log p_NAR. α = 0, which asks
the student alone, is the rule of the authors' release.
"""

import itertools
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence

from ..errors import ToolError
from ..files import gzip_lines, read_gzip_lines, whole, write_lines
from ..provenance import sha256
from ..text import nbest
from ..text.nbest import Candidate
from .distilled import lines_of

NORMS = ("none", "len")
KINDS = ("exact", "bound", "proxy")
HEAD = "kind "
"""Before the kind of all scores, in the first line of their file."""


class Score(NamedTuple):
    """log p(y | x) of a pair by a student, in nats, its length included, and its tokens with ``</s>``."""

    log_prob: float
    tokens: int


def write_scores(path: Path, kind: str, scores: Iterable[Score]) -> None:
    """A line a pair; what was not scored has 0 tokens."""
    lines = (f"{score.log_prob!r} {score.tokens}" for score in scores)
    gzip_lines(path, itertools.chain([HEAD + kind], lines))


def kind_of(path: Path) -> str:
    """What the scores of a file are. Raises ToolError for another file."""
    head = next(read_gzip_lines(path), "")
    kind = head.removeprefix(HEAD)
    if kind not in KINDS or kind == head:
        raise ToolError(f"{path} holds no scores that nar em score wrote")
    return kind


def read_scores(path: Path) -> Iterator[Score]:
    """The scores in the order of the pairs. Raises ToolError for another file."""
    kind_of(path)
    try:
        for line in itertools.islice(read_gzip_lines(path), 1, None):
            log_prob, tokens = line.split()
            yield Score(float(log_prob), int(tokens))
    except ValueError:
        raise ToolError(f"{path} holds no scores that nar em score wrote") from None


@dataclass(frozen=True)
class Rule:
    """``alpha``: of the formula above; ``norm``: ``len`` divides its value by the candidate's tokens; ``lenpen``: the
    length penalty under which the list's scores stand."""

    alpha: float
    norm: str
    lenpen: float

    def value(self, candidate: Candidate, score: Score) -> float:
        """By which candidates of a sentence are compared, in nats, or nats a token; −∞ for what cannot be a target."""
        if not candidate.is_usable or score.tokens == 0:
            return -math.inf
        value = score.log_prob
        if self.alpha:
            value += self.alpha * candidate.log_prob(self.lenpen)
        return value / candidate.tokens if self.norm == "len" else value

    def choice(self, candidates: Sequence[Candidate], scores: Sequence[Score]) -> int:
        """Which candidate is taken: of equal ones the first."""
        values = [self.value(*pair) for pair in zip(candidates, scores)]
        return values.index(max(values))


@dataclass
class Multimodality:
    """NCMM of a corpus under a student (section 3.2): −Σ log p(y | x) / Σ |y|, in nats a token; ``impossible``: pairs
    that the student can never say (a target that is longer than a CTC canvas), and which are left out."""

    nats: float = 0.0
    tokens: int = 0
    impossible: int = 0

    def add(self, score: Score) -> None:
        if score.log_prob == -math.inf:
            self.impossible += 1
        else:
            self.nats -= score.log_prob
            self.tokens += score.tokens

    @property
    def value(self) -> float:
        return self.nats / max(1, self.tokens)


def multimodality(scores: Iterable[Score]) -> Multimodality:
    """Of the pairs that were scored."""
    found = Multimodality()
    for score in scores:
        if score.tokens:
            found.add(score)
    return found


@dataclass
class Tally:
    """What a selection did: lines, those whose target is not the teacher's first answer, those that kept the target
    they had; the multi-modality of the teacher's first answers and of what was selected, on the same sentences."""

    lines: int = 0
    changed: int = 0
    kept: int = 0
    first: Multimodality = field(default_factory=Multimodality)
    selected: Multimodality = field(default_factory=Multimodality)


def selected(
    rule: Rule, lists: Iterable[List[Candidate]], scores: Iterator[Score], targets: Iterable[str], tally: Tally
) -> Iterator[str]:
    """A target for every line; ``scores``: of all candidates of all lines; ``targets``: those that the lines had, which
    stay where no candidate can be a target. Raises ToolError where scores are missing or left over."""
    for candidates, target in zip(lists, targets):
        theirs = list(itertools.islice(scores, len(candidates)))
        if len(theirs) < len(candidates):
            raise ToolError("the list has more candidates than there are scores: score it anew")
        tally.lines += 1
        if not any(candidate.is_usable for candidate in candidates):
            tally.kept += 1
            yield target
            continue
        chosen = rule.choice(candidates, theirs)
        tally.changed += chosen > 0
        if theirs[0].tokens and theirs[chosen].tokens:
            tally.first.add(theirs[0])
            tally.selected.add(theirs[chosen])
        yield candidates[chosen].text
    if next(scores, None) is not None:
        raise ToolError("there are more scores than the list has candidates: score it anew")


def select(
    rule: Rule, answers: Path, scores: Path, source: Path, target: Path, pair: Sequence[str], output: Path
) -> Dict[str, Any]:
    """Writes train.S, which is the source text, and train.T; returns what is to be known of them."""
    outputs = [output / f"train.{lang}" for lang in pair]
    kind, tally = kind_of(scores), Tally()
    count, count_of_targets = (sum(1 for _ in lines_of(text)) for text in (source, target))
    if count != count_of_targets:
        raise ToolError(f"{source} has {count} lines, {target} {count_of_targets}: they are no pair of texts")
    with whole(outputs[0]) as unfinished:
        shutil.copyfile(source, unfinished)
    lists = nbest.lists(answers, count)
    write_lines(outputs[1], selected(rule, lists, read_scores(scores), lines_of(target), tally))
    return {
        "kind": kind,
        "alpha": rule.alpha,
        "norm": rule.norm,
        "lenpen": rule.lenpen,
        "lines": tally.lines,
        "changed": tally.changed,
        "kept": tally.kept,
        "ncmm_first": tally.first.value,
        "ncmm_selected": tally.selected.value,
        "impossible": tally.first.impossible,
        "inputs_sha256": {"nbest": sha256(answers), "scores": sha256(scores), "source": sha256(source)},
        "outputs_sha256": {path.name: sha256(path) for path in outputs},
    }
