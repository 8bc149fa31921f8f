r"""Sequence-level distillation: is a text what was binarised, and a teacher's answers as a training set.

The answers come as parts, files of what fairseq-generate printed: ``H-id\tscore\ttext``, those of a sentence one after
the other, the best first. Texts may have millions of lines: none of them is ever held whole. A line ends with ``\n``.
"""

import json
import logging
import os
import shutil
from array import array
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import ToolError
from ..files import gzip_lines, whole, write_lines
from ..provenance import now, sha256

Answer = List[Tuple[str, str]]
"""The hypotheses of a sentence, best first: the score as fairseq prints it, in bits a token, and the text."""
SAMPLE = 1000
"""How many lines are compared with the binarised data, evenly spaced."""


@dataclass(frozen=True)
class Distillation:
    """Whose answers to what text, and how they were searched."""

    pair: Tuple[str, str]
    source_text: Path
    target_text: Path
    data: Path
    output: Path
    teacher: str  # several are an ensemble, parted as on PATH
    task: str
    beam: int
    lenpen: str  # as typed: it is part of the shards' name
    nbest: int
    max_tokens: int
    shards: int
    further: Tuple[str, ...] = ()
    teacher_bleu: Optional[str] = None

    @property
    def teachers(self) -> List[Path]:
        return [Path(path) for path in self.teacher.split(os.pathsep)]


def lines_of(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            yield line.rstrip("\n")


@contextmanager
def quiet_fairseq() -> Iterator[None]:
    """Without what fairseq logs of packages that it misses and nobody here needs."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def split_of(data: Path, pair: Sequence[str], lang: str, subset: str, dictionary: Any = None) -> Any:
    """One side of a binarised split, a sequence of tensors of ids. Raises ToolError where there is none."""
    with quiet_fairseq():
        from fairseq.data import data_utils

        prefixes = [data / f"{subset}.{a}-{b}.{lang}" for a, b in (pair, pair[::-1])]
        found = [data_utils.load_indexed_dataset(str(prefix), dictionary) for prefix in prefixes]
    dataset = next((dataset for dataset in found if dataset is not None), None)
    if dataset is None:
        raise ToolError(f"no binarised {subset} split: {prefixes[0]}")
    return dataset


def check(data: Path, pair: Sequence[str], lang: str, text: Path) -> None:
    """Raises ToolError unless `text` has as many lines as the binarised train split, and the same ones."""
    with quiet_fairseq():
        from fairseq.data import Dictionary

        dictionary = Dictionary.load(str(data / f"dict.{lang}.txt"))
    dataset = split_of(data, pair, lang, "train", dictionary)
    advice = "give the text that was binarised"
    if further := sorted(data.glob(f"train[0-9]*.*.{lang}.bin")):
        parts = ", ".join(dict.fromkeys(path.name.split(".")[0] for path in further))
        raise ToolError(f"{data} has {parts} beside train: join the texts and binarise them as one train split")
    step, count, sample = max(1, len(dataset) // SAMPLE), 0, {}
    for count, line in enumerate(lines_of(text), 1):
        if (count - 1) % step == 0:
            sample[count - 1] = line
    if count != len(dataset):
        raise ToolError(f"{text} has {count} lines, the train split in {data} {len(dataset)}: {advice}")
    for i, line in sample.items():
        if dictionary.encode_line(line, add_if_not_exist=False).tolist() != dataset[i].tolist():
            raise ToolError(f"line {i + 1} of {text} is not what the train split in {data} holds: {advice}")


def mapped(path: Path) -> mmap:
    """A file that is not empty, to jump about in."""
    with open(path, "rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


class Answers:
    """The answer to each sentence, read from the parts when it is asked for; in memory is where each begins."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = [mapped(part) for part in parts]
        self.places = array("q")  # by sentence: offset * number of parts + number of the part; -1: no answer
        for number in range(len(self.parts)):
            self._find(number)

    def _find(self, number: int) -> None:
        """Where the answers of one part begin."""
        offset = 0
        for line in iter(self.parts[number].readline, b""):
            if line.startswith(b"H-"):
                sentence = int(line[2 : line.index(b"\t")])
                self.places.extend([-1] * (sentence + 1 - len(self.places)))
                if self.places[sentence] < 0:
                    self.places[sentence] = offset * len(self.parts) + number
            offset += len(line)

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: Any) -> None:
        for part in self.parts:
            part.close()

    def __len__(self) -> int:
        """One more than the last sentence that has an answer."""
        return len(self.places)

    def __getitem__(self, sentence: int) -> Answer:
        """Empty if there is none."""
        if sentence >= len(self) or self.places[sentence] < 0:
            return []
        offset, number = divmod(self.places[sentence], len(self.parts))
        self.parts[number].seek(offset)
        name = b"H-%d\t" % sentence
        lines = takewhile(lambda line: line.startswith(name), iter(self.parts[number].readline, b""))
        fields = [line.decode("utf-8", errors="replace").split("\t", 2) for line in lines]
        return [(score, text.strip()) for _, score, text in fields]


def fault(answer: Answer) -> str:
    """Why the best hypothesis is no use as a target; empty if it is one."""
    if not answer:
        return "skipped"  # longer than the teacher's positions
    tokens = answer[0][1].split()
    return "empty" if not tokens else "unknown words" if "<unk>" in tokens else ""


def targets(answers: Answers, originals: Iterable[str], faults: Counter) -> Iterator[str]:
    """One target for each original, the original itself where the answer is no use; all are counted by fault."""
    for i, original in enumerate(originals):
        answer = answers[i]
        reason = fault(answer)
        faults[reason] += 1
        yield original if reason else answer[0][1]


def write_nbest(path: Path, answers: Answers) -> None:
    """All hypotheses, ``id ||| text ||| score``, in the order of the text; written whole or not at all."""
    sentences = range(len(answers))
    gzip_lines(path, (f"{i} ||| {text} ||| {score}" for i in sentences for score, text in answers[i]))


def collect(made: Distillation, parts: Sequence[Path], command: str, commit: str) -> None:
    """Writes train.S, train.T, with several hypotheses nbest.gz, and last manifest.json."""
    outputs = [made.output / f"train.{lang}" for lang in made.pair]
    faults: Counter = Counter()
    with whole(outputs[0]) as unfinished:
        shutil.copyfile(made.source_text, unfinished)
    with Answers(parts) as answers:
        write_lines(outputs[1], targets(answers, lines_of(made.target_text), faults))
        if made.nbest > 1:
            outputs.append(made.output / "nbest.gz")
            write_nbest(outputs[-1], answers)
    distilled = faults.pop("", 0)
    counts = {"lines": distilled + sum(faults.values()), "distilled": distilled, "restored": dict(faults)}
    about = {**manifest(made, outputs, counts), "command": command, "commit": commit, "date": now()}
    write_lines(made.output / "manifest.json", json.dumps(about, indent=2).split("\n"))
    print(f"{made.output}: {counts['lines']} lines, {distilled} distilled, originals kept: {dict(faults)}")


def manifest(made: Distillation, outputs: Sequence[Path], counts: Dict[str, Any]) -> Dict[str, Any]:
    """What one has to know to judge the set or to make it again."""
    return {
        "split": "train",
        "languages": list(made.pair),
        "teacher": {str(path): sha256(path) for path in made.teachers},
        "teacher_bleu": made.teacher_bleu,
        "beam": made.beam,
        "lenpen": float(made.lenpen),
        "nbest": made.nbest,
        "inputs_sha256": {str(path): sha256(path) for path in (made.source_text, made.target_text)},
        "outputs_sha256": {path.name: sha256(path) for path in outputs},
        "counts": counts,
    }
