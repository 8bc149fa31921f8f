"""A student's log-probabilities of given pairs, by fairseq-generate --score-reference in shards that are done once."""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Sequence, Tuple

from ..errors import ToolError
from ..files import write_lines
from ..provenance import sha256
from ..text import nbest
from .distilled import Answers, lines_of, split_of
from .selection import Score, write_scores
from .shards import done_in_shards, locked, program
from .teacher import plugin

KIND = re.compile(rb"--score-reference: (exact|bound|proxy)\b")
"""What the scorer logs of what it gives."""


@dataclass(frozen=True)
class Scoring:
    """Whose log-probabilities of what."""

    pair: Tuple[str, str]
    data: Path
    subset: str
    student: Path
    output: Path
    max_tokens: int
    shards: int
    further: Tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of the shards: of another student, of other data or other flags, they are other shards."""
        data = [path for pattern in ("dict.*", f"{self.subset}.*") for path in sorted(self.data.glob(pattern))]
        told = [*map(sha256, [self.student, *data]), f"{self.shards} {' '.join(self.further)}"]
        name = hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return self.output.parent / f"parts-{name}"

    def command(self, shard: int) -> List[str]:
        """Scores are sums, so that they are log-probabilities whatever the model makes of candidates."""
        source, target = self.pair
        words = [
            *(program("fairseq-generate"), self.data, "--user-dir", plugin(), "--task", "translation_nar"),
            *("--source-lang", source, "--target-lang", target, "--path", self.student, "--score-reference"),
            *("--rescore-norm", "sum", "--max-tokens", self.max_tokens, "--skip-invalid-size-inputs-valid-test"),
            *("--required-batch-size-multiple", 1, "--distributed-world-size", self.shards),
            *("--distributed-rank", shard, "--no-progress-bar", *self.further, "--gen-subset", self.subset),
        ]
        return [str(word) for word in words]


def write_candidates(answers: Path, source: Path, stem: Path, pair: Sequence[str]) -> int:
    """STEM.S and STEM.T: a line for each candidate of a list, in its order. Returns how many there are."""
    count = sum(1 for _ in lines_of(source))
    for side, lang in enumerate(pair):
        found = nbest.pairs(answers, lines_of(source), count)
        write_lines(stem.with_name(f"{stem.name}.{lang}"), (line[side] for line in found))
    return sum(1 for _ in lines_of(stem.with_name(f"{stem.name}.{pair[1]}")))


def kind_said(folder: Path) -> str:
    """What the scorer said that the scores are. Raises ToolError where it said nothing."""
    for path in sorted([*folder.glob("*.txt"), *folder.glob("*.log")]):
        with open(path, "rb") as lines:
            found = next((match for match in map(KIND.search, lines) if match), None)
        if found:
            return found[1].decode()
    raise ToolError(f"{folder}: fairseq-generate does not say what its scores are: is the student of this plugin?")


def scores(answers: Answers, count: int) -> Iterator[Score]:
    """Of each of ``count`` pairs; those that the student cannot read, as they are too long, have no tokens."""
    for i in range(count):
        found = answers[i]
        if found:
            bits, text = found[0]
            yield Score(float(bits) * math.log(2), len(text.split()) + 1)
        else:
            yield Score(-math.inf, 0)


def score(made: Scoring, jobs: int, devices: int) -> str:
    """Writes the scores of all pairs; returns their kind."""
    if not made.student.is_file():
        raise ToolError(f"student not found: {made.student}")
    count, folder = len(split_of(made.data, made.pair, made.pair[1], made.subset)), made.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, 0) as lock:
        commands = [made.command(shard) for shard in range(made.shards)]
        parts = done_in_shards("nar em score", folder, commands, count, (0, 1), jobs, devices, lock)
        kind = kind_said(folder)
        with Answers(parts) as answers:
            write_scores(made.output, kind, scores(answers, count))
    return kind
