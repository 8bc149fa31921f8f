"""What the verbs of ``nar`` share: the table of verbs, their parsers, their end."""

import argparse
import difflib
import importlib
import logging
import os
import sys
from contextlib import contextmanager
from typing import Iterator, NoReturn, Optional, Sequence

from .errors import ToolError

VERBS = {
    "prepare": "raw text to Moses tokens and BPE subwords, and back",
    "fetch": "download an archive, checked, from the first address that serves it",
    "extract": "parallel text out of the archives of WMT, IWSLT and OPUS",
    "filter": "leave out sentence pairs that are empty, too long, or unlike in length",
    "join": "join sentences to a given length, to time decoders at it",
    "distill": "what a teacher says to a training set, in shards, resumable",
    "em": "EM training: a student and its teacher, in turns",
    "align": "a lexical shortlist: which target words go with each source word",
    "average": "average checkpoints of one model",
    "train": "fairseq-train that can be killed and called again, with its progress",
    "curve": "the validation curve of a training log, as data or as a figure",
    "cost": "time, memory and operations of trainings, from their commands",
    "accuracy": "how well a mask-predict model fills masks of references",
    "score": "sacreBLEU of hypotheses, beside the figures of papers",
    "benchmark": "quality and speed of several systems in one run",
    "profile": "where the time of a decode goes, operator by operator",
    "assemble": "one results.json out of several",
    "report": "tables and figures of results.json",
    "show": "how a translation comes about, pass by pass",
    "latents": "figures of how latents are refined",
    "codes": "what a latent transformer loses in its codes, and what in predicting them",
    "images": "images to lines of tokens and back, and how near they are",
    "release": "pack a teacher and its distilled data, or check such a folder",
    "doctor": "is this installation sound, and what to do if it is not",
}


def parser(verb: str, documentation: Optional[str]) -> argparse.ArgumentParser:
    """A parser whose help is the documentation of the verb's module, an example included."""
    return argparse.ArgumentParser(
        prog=f"nar {verb}",
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {line}" for verb, line in VERBS.items())
    return f"usage: nar VERB ...\n\n{verbs}\n\nnar VERB --help says more, with an example."


def fail(program: str, message: str) -> NoReturn:
    print(f"{program}: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(2)


def run(verb: str, argv: Sequence[str]) -> None:
    """One verb. What it cannot do ends the program with one line on stderr and status 2."""
    logging.basicConfig(level=logging.WARNING)  # before fairseq, which logs what it lacks while it is imported
    try:
        importlib.import_module(f"{__package__}.commands.{verb}").main(argv)
    except ToolError as error:
        fail(f"nar {verb}", str(error))
    except Exception as error:
        if type(error).__name__ != "UsageError":  # the plugin's, which is not imported for this
            raise
        fail(f"nar {verb}", str(error))


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and a reader of our output that has seen enough end the program without a word."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be caught
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes as it ends
        sys.exit(141)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """``nar VERB ...``; verbs and their libraries are imported when they are asked for."""
    given = sys.argv[1:] if argv is None else argv
    verb, *rest = given or ["--help"]
    with interruptible():
        if verb in ("-h", "--help"):
            print(usage())
        elif verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            fail("nar", f"there is no verb {verb}{meant}; there are: {', '.join(VERBS)}")
        else:
            run(verb, rest)
