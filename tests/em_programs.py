"""What stands in for the programs that take long, in tests of the EM loop: what they write follows from what they read.

python tests/em_programs.py PROGRAM ARGUMENTS...
"""

import hashlib
import sys
from pathlib import Path
from typing import List, Sequence

from nar_tools.files import gzip_lines, read_lines, write_lines
from nar_tools.jobs.selection import Score, write_scores


def option(words: Sequence[str], name: str) -> str:
    return words[len(words) - list(words)[::-1].index(name)]


def number(*told: object) -> int:
    """From 0 to 999, by a hash."""
    return int(hashlib.sha256(repr(told).encode()).hexdigest(), 16) % 1000


def distill(words: Sequence[str]) -> None:
    """Each answer is the source with a word more; which, follows from the teacher."""
    out, teacher = Path(option(words, "--output")), Path(option(words, "--teacher")).read_text()
    source, count = Path(option(words, "--source-text")), int(option(words, "--nbest")) if "--nbest" in words else 1
    lists: List[List[str]] = []
    for i, line in enumerate(read_lines(source)):
        lists.append([f"{line} w{number(teacher, i, k) % 5}" for k in range(count)])
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / f"train.{option(words, '--source-lang')}", read_lines(source))
    write_lines(out / f"train.{option(words, '--target-lang')}", (answers[0] for answers in lists))
    gzip_lines(out / "nbest.gz", (f"{i} ||| {y} ||| -{k}.5" for i, ys in enumerate(lists) for k, y in enumerate(ys)))
    write_lines(out / "manifest.json", ["{}"])


def score(words: Sequence[str]) -> None:
    """Of each pair a number that follows from it and from the student."""
    student, subset = Path(option(words, "--student")).read_text(), option(words, "--subset")
    (pairs,) = Path(option(words, "--data")).glob(f"{subset}.*.{option(words, '--target-lang')}.bin")
    scores = [Score(-number(student, line) / 100, len(line.split()) + 1) for line in read_lines(pairs)]
    write_scores(Path(option(words, "--output")), "exact", scores)


def generate(words: Sequence[str]) -> None:
    """The valid or test set as it is, but for a word that follows from the model."""
    paths, subset = option(words, "--path").split(":"), option(words, "--gen-subset")
    model = "".join(Path(path).read_text() for path in paths)
    (texts,) = Path(words[0]).glob(f"{subset}.*.{option(words, '--target-lang')}.bin")
    for i, line in enumerate(read_lines(texts)):
        print(f"D-{i}\t0\t{line if number(model, i) < 500 else 'w'}")


if __name__ == "__main__":
    {"distill": distill, "score": score, "generate": generate}[sys.argv[1]](sys.argv[2:])
