"""Sequence-level distillation: a teacher translates the train split; valid and test are never touched.

The texts are the BPE files that were binarised. What comes out are train.S and train.T (BPE, a line for each line of
the text, the original target where the teacher gives no usable answer), manifest.json, and with --nbest nbest.gz.

Call it again after an interruption: shards that are done are not done again. Those that run at once are spread over
--gpus. --machine R/N does every N-th shard from R on; all N machines share --output, and the one that ends last puts
the shards together. What follows -- goes to fairseq-generate.

Example:
  nar distill --data data-bin --teacher teacher.pt --source-lang de --target-lang en \\
    --source-text bpe/train.de --target-text bpe/train.en --output distilled --beam 5
  nar distill ... --shards 8 --jobs 8 --gpus 8 -- --fp16
"""

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import Sequence, Tuple

from .. import cli, provenance
from ..errors import ToolError
from ..jobs.distilled import Distillation, check, collect
from ..jobs.shards import locked
from ..jobs.teacher import parts_of, translated

REQUIRED = {
    "data": ("DIR", "binarised data"),
    "teacher": ("CKPT", f"its checkpoint, or those of an ensemble parted by {os.pathsep}"),
    "source-lang": ("S", "source language"),
    "target-lang": ("T", "target language"),
    "source-text": ("FILE", "with or without the ending .S"),
    "target-text": ("FILE", "with or without the ending .T"),
    "output": ("DIR", "holds the shards too, in parts-*"),
}
OPTIONS = {
    "beam": ("N", "5", "beam of the search"),
    "lenpen": ("X", "1", "length penalty of the search"),
    "nbest": ("N", "1", "hypotheses of each sentence that are kept"),
    "max-tokens": ("N", "8000", "of a batch"),
    "shards": ("N", "2", "parts in which it is done"),
    "jobs": ("N", "2", "shards at once"),
    "gpus": ("N", "0", "spread the shards over so many"),
    "machine": ("R/N", "0/1", "do every N-th shard from R on"),
    "task": ("NAME", "translation_nar", "task of the teacher"),
    "teacher-bleu": ("TEXT", "", "a note for the manifest, as '36.9, signature'"),
}


def parser() -> argparse.ArgumentParser:
    made = cli.parser("distill", __doc__)
    made.exit_on_error = False
    for name, (metavar, meaning) in REQUIRED.items():
        made.add_argument(f"--{name}", metavar=metavar, default="", help=f"{meaning}; required")
    for name, (metavar, default, meaning) in OPTIONS.items():
        shown = f" (default: {default})" if default else ""
        made.add_argument(f"--{name}", metavar=metavar, default=default, help=meaning + shown)
    return made


def words(argv: Sequence[str]) -> argparse.Namespace:
    """The options as they were typed; ``further`` is what stands behind ``--``. Every complaint is one line."""
    end = argv.index("--") if "--" in argv else len(argv)
    if any(word.startswith("--gen-subset") for word in argv):
        raise ToolError("only the train split is distilled: --gen-subset is not an option")
    try:
        args, unknown = parser().parse_known_args(argv[:end])
    except argparse.ArgumentError as error:
        raise ToolError(f"{error.argument_name} wants a value") from None
    if unknown:
        raise ToolError(f"unknown option {unknown[0]}")
    args.further = tuple(argv[end + 1 :])
    return args


def check_words(args: argparse.Namespace) -> None:
    for name in REQUIRED:
        if not getattr(args, name.replace("-", "_")):
            raise ToolError(f"--{name} is missing")
    for name in ("beam", "nbest", "max-tokens", "shards", "jobs"):
        if not re.fullmatch(r"[1-9][0-9]*", value := getattr(args, name.replace("-", "_"))):
            raise ToolError(f"--{name} wants a whole number above 0, not {value}")
    if not re.fullmatch(r"[0-9]+", args.gpus):
        raise ToolError(f"--gpus wants a whole number, not {args.gpus}")
    try:
        float(args.lenpen)
    except ValueError:
        raise ToolError(f"--lenpen wants a number, not {args.lenpen}") from None
    if int(args.nbest) > int(args.beam):
        raise ToolError(f"--nbest {args.nbest} is more than --beam {args.beam}")


def machine_of(word: str) -> Tuple[int, int]:
    place = re.fullmatch(r"([0-9]+)/([1-9][0-9]*)", word)
    if not place or int(place[1]) >= int(place[2]):
        raise ToolError(f"--machine wants R/N with R from 0 to N - 1, not {word}")
    return int(place[1]), int(place[2])


def text_file(name: str, lang: str) -> Path:
    """A text may be given with or without its language as ending."""
    for candidate in (Path(name), Path(f"{name}.{lang}")):
        if candidate.is_file():
            return candidate
    raise ToolError(f"text not found: {name}")


def distillation(args: argparse.Namespace) -> Distillation:
    """What is asked for. Raises ToolError for a file that is not there."""
    made = Distillation(
        pair=(args.source_lang, args.target_lang),
        source_text=text_file(args.source_text, args.source_lang),
        target_text=text_file(args.target_text, args.target_lang),
        data=Path(args.data),
        output=Path(args.output),
        teacher=args.teacher,
        task=args.task,
        beam=int(args.beam),
        lenpen=args.lenpen,
        nbest=int(args.nbest),
        max_tokens=int(args.max_tokens),
        shards=int(args.shards),
        further=args.further,
        teacher_bleu=args.teacher_bleu or None,
    )
    for teacher in made.teachers:
        if not teacher.is_file():
            raise ToolError(f"teacher not found: {teacher}")
    if not made.data.is_dir():
        raise ToolError(f"data not found: {made.data}")
    return made


def distill(argv: Sequence[str]) -> None:
    args = words(argv)
    check_words(args)
    machine = machine_of(args.machine)
    made = distillation(args)
    for lang, text in zip(made.pair, (made.source_text, made.target_text)):
        check(made.data, made.pair, lang, text)
    folder = parts_of(made)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, machine[0]) as lock:
        parts = translated(made, folder, machine, int(args.jobs), int(args.gpus), lock)
        if parts:
            command = shlex.join(["nar", "distill", *argv])
            collect(made, parts, command, provenance.commit() or "unknown")


def main(argv: Sequence[str]) -> None:
    try:
        distill(argv)
    except BrokenPipeError:
        raise
    except OSError as error:  # no place, no right to write
        raise ToolError(str(error)) from None
