"""Shows how an iterative model refines a sentence: every pass, what it changed, and how sure the model was.

Takes any flag of fairseq-interactive besides its own. Sentences come from --sentence, else from stdin (or fairseq's
--input FILE), one a line; an empty line has no passes and an empty output. A token that differs from the pass before is
marked: in colour on a terminal, elsewhere [so]. A row "kept" shows what --collapse-repeats left of the last pass. Each
sentence is decoded alone: --batch-size has no effect. With --non-local only those sentences are shown of which one step
changed two or more separate spans, and in the end how many of all they are. (A refiner moves latents and decodes once;
here each step is decoded to be seen.) Of a CTC model, which makes one pass, the canvas is shown: what every position of
the most probable alignment says, "·" where it says nothing, and below it the words that are read. Where drafts are
verified (--drafter, or a model with heads), each call is shown: the drafts that were accepted, the word behind them
and, marked, the drafts that were refused.

Example:
    nar show bin --user-dir nar_plugin --task translation_nar --path student.pt --iter-decode-max-iter 3 \\
        --sentence "Ein Hund läuft." --scores
    nar show bin --user-dir nar_plugin --task translation_nar --path student.pt --iter-decode-max-iter 9 \\
        --html page.html < test.bpe.de
"""

import argparse
import os
import shutil
import sys
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from .. import cli, files
from ..errors import ToolError
from ..measure import interactive
from ..measure.pages import as_html, as_text
from ..measure.system import quietly


def parse(argv: Sequence[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Our own flags, and those that are left to fairseq."""
    parser = cli.parser("show", __doc__)
    add = parser.add_argument
    add("--sentence", action="append", default=[], metavar="TEXT", help="a sentence to translate; repeatable")
    add("--reference", action="append", default=[], metavar="TEXT", help="its translation, one a sentence; repeatable")
    add("--references", type=Path, metavar="FILE", help="the translations, a line each, in place of --reference")
    add("--first", type=int, metavar="N", help="only the first N sentences")
    add("--scores", action="store_true", help="probabilities below the tokens (the page always shows them)")
    when = "auto: on a terminal, unless NO_COLOR is set"
    add("--color", choices=("auto", "always", "never"), default="auto", help=when)
    add("--non-local", action="store_true", help="only where a step changed separate spans; and their share")
    add("--html", type=Path, metavar="FILE", help="a page of all sentences as well")
    args, flags = parser.parse_known_args(argv)
    if args.reference and args.references:
        raise ToolError("--reference and --references are two ways to say the same")
    if args.first is not None and args.first < 1:
        raise ToolError("--first needs 1 or more")
    if args.html and args.html.is_dir():
        raise ToolError(f"cannot write {args.html}: it is a folder")
    return args, flags


def of_words(given: Sequence[str]) -> List[bytes]:
    """Lines from the command line, whatever bytes they hold."""
    return [os.fsencode(words).replace(b"\n", b" ") for words in given]


def lines_of(file: str) -> Iterable[bytes]:
    """The lines of a file, or of stdin as they come."""
    if file != "-":
        return BytesIO(files.read(Path(file)))
    if sys.stdin.isatty():
        print("Type sentences; Ctrl-D ends.", file=sys.stderr)
    return sys.stdin.buffer


def decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """As fairseq-interactive reads lines under --task translation_nar: what is not UTF-8 becomes U+FFFD."""
    return (line.decode("utf-8", errors="replace").strip() for line in lines)


def pairs(args: argparse.Namespace, file: str) -> Iterator[Tuple[str, Optional[str]]]:
    """The sentences, each with its reference or None."""
    sources = islice(decoded(of_words(args.sentence) or lines_of(file)), args.first)
    if not (args.reference or args.references):
        return ((source, None) for source in sources)
    told = of_words(args.reference) or lines_of(str(args.references))
    everything, references = list(sources), list(islice(decoded(told), args.first))
    if len(everything) != len(references):
        raise ToolError(f"{len(references)} references for {len(everything)} sentences: give one a sentence, or none")
    return zip(everything, references)


def wants_color(choice: str) -> bool:
    return choice == "always" or choice == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def check_writable(path: Path) -> None:
    """Says before the work that a file cannot be written; leaves what is in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        raise ToolError(f"cannot write {path}: {error.strerror}") from None


def run(args: argparse.Namespace, flags: List[str]) -> None:
    """Decodes and prints sentence by sentence, and writes the page of all of them."""
    system = interactive.Interactive(flags)
    title, told = system.cfg.common_eval.path, pairs(args, system.cfg.interactive.input)
    if args.html:
        check_writable(args.html)
    is_colored, shown, count = wants_color(args.color), [], 0
    with suppress(KeyboardInterrupt):  # what was typed before is shown
        for source, reference in told:
            found, count = system.show(source, reference), count + 1
            if args.non_local and not found.is_non_local:
                continue
            shown.append(found)
            columns = shutil.get_terminal_size((100, 24)).columns
            print("\n" * (len(shown) > 1) + as_text(shown[-1], is_colored, args.scores, columns), end="", flush=True)
    if args.non_local and count:
        print(f"non-local changes: {len(shown)} of {count} sentences, {100 * len(shown) / count:.1f} %")
    if args.html:
        files.write_lines(args.html, as_html(shown, title))


def main(argv: Sequence[str]) -> None:
    args, flags = parse(argv)
    with quietly():
        run(args, flags)
