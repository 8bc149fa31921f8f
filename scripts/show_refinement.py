"""Shows how an iterative model refines a sentence: every pass, what it changed, and how sure the model was.

    show_refinement.py DATA_BIN --user-dir nar_plugin --task translation_nar --path student.pt --iter-decode-max-iter 3
        [any flag of fairseq-interactive] [--sentence TEXT ...] [--reference TEXT ...] [--scores] [--html page.html]
        [--non-local]

Sentences come from --sentence, else from stdin (or fairseq's --input FILE), one a line; an empty line has no passes and
an empty output. A token that differs from the pass before is marked: in colour on a terminal, elsewhere [so]. A row
"kept" shows what --collapse-repeats left of the last pass. Each sentence is decoded alone: --batch-size has no effect.
With --non-local only those sentences are shown of which one step changed two or more separate spans, and in the end how
many of all they are. (A refiner moves latents and decodes once; here each step is decoded to be seen.)
"""

import argparse
import ast
import itertools
import logging
import math
import os
import re
import shutil
import signal
import sys
import unicodedata
import warnings
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch

import engine
import files
import prepare_text

FAINT = re.compile("(^▁|@@$|^</s>$)")
"""What of a token is no text: the subword marks of SentencePiece and subword-nmt, and the end symbol."""
ANSI = {(False, False): "", (False, True): "2", (True, False): "1;4;35", (True, True): "2;4;35"}
"""Codes for (is marked, is faint)."""
ANSI_CODE = re.compile("\033\\[[0-9;]*m")
EMPTY = "(empty)"
KEPT = "kept"
"""The name of what --collapse-repeats left."""
LEAST_ROOM = 24
"""Columns for tokens, however narrow the terminal."""


class Step(NamedTuple):
    """A state of the decode: T tokens and their T log-probabilities in nats."""

    name: str
    tokens: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class Pass:
    """T tokens, T probabilities 0 … 1, T times whether the pass changed it; ``before``: how many tokens there were."""

    name: str
    tokens: List[str]
    probabilities: List[float]
    marked: List[bool]
    before: Optional[int] = None

    @property
    def change(self) -> str:
        """How much is new, in words."""
        if self.before is None:
            return f"{len(self.tokens)} tokens"
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
    return prepare_text.CONTROL.sub("\ufffd", text)


def compared(steps: Sequence[Step]) -> List[Pass]:
    """The states as they followed each other, each held against the one before."""
    found: List[Pass] = []
    for name, words, scores in steps:
        tokens = list(map(printable, words))
        before = found[-1].tokens if found else tokens
        chances = [math.exp(min(score, 0.0)) for score in scores]
        found.append(Pass(name, tokens, chances, changes(before, tokens), len(before) if found else None))
    return found


def refined(source: str, steps: Sequence[Step], output: str, reference: Optional[str] = None) -> Refinement:
    """A sentence and its states, ready to be shown."""
    reference = None if reference is None else printable(reference)
    return Refinement(printable(source), compared(steps), printable(output), reference)


def pieces(token: str) -> List[Tuple[str, bool]]:
    """The parts of a token, each with whether it is faint."""
    return [(part, i % 2 == 1) for i, part in enumerate(FAINT.split(token)) if part]


def painted(token: str, is_marked: bool) -> str:
    """A token in ANSI colours."""
    styled = [(part, ANSI[is_marked, is_faint]) for part, is_faint in pieces(token)]
    return "".join(f"\033[{style}m{part}\033[0m" if style else part for part, style in styled)


def width(cell: str) -> int:
    """Columns of a terminal that a text takes: two for a wide character, none for a combining one or an ANSI code."""
    kinds = [(unicodedata.category(c), unicodedata.east_asian_width(c)) for c in ANSI_CODE.sub("", cell)]
    return sum(0 if category in ("Mn", "Me", "Cf") else 1 + (east in "WF") for category, east in kinds)


def parts(widths: Sequence[int], room: int) -> List[slice]:
    """The columns in slices that fit into ``room``, a space between two; what is wider stands alone."""
    starts, used = [0], -1
    for i, needed in enumerate(widths):
        used += needed + 1
        if used > room and i > starts[-1]:
            starts.append(i)
            used = needed
    return [slice(*ends) for ends in itertools.pairwise([*starts, len(widths)])]


def rows(step: Pass, is_colored: bool, has_scores: bool) -> Iterator[Tuple[str, List[str]]]:
    """The lines of a pass: a name and a cell a token."""
    marked = list(zip(step.tokens, step.marked))
    plain = [f"[{token}]" if is_marked else token for token, is_marked in marked]
    yield f"{step.name}: {step.change}", [painted(*pair) for pair in marked] if is_colored else plain
    if has_scores:
        numbers = [f"{100 * chance:.0f}" for chance in step.probabilities]
        yield "  probability, %", [f"\033[2m{number}\033[0m" for number in numbers] if is_colored else numbers


def block(run: Sequence[Pass], margin: int, room: int, is_colored: bool, has_scores: bool) -> Iterator[str]:
    """Passes of one length, token below token, in as many parts as the room asks for."""
    lines = [line for step in run for line in rows(step, is_colored, has_scores)]
    widths = [max(map(width, column)) for column in zip(*(cells for _, cells in lines))]
    for number, part in enumerate(parts(widths, room)):
        yield from [""] * (number > 0)
        for name, cells in lines:
            shown = [cell + " " * (wide - width(cell)) for cell, wide in zip(cells[part], widths[part])]
            yield f"{name:{margin}}{' '.join(shown)}".rstrip()


def as_text(shown: Refinement, is_colored: bool, has_scores: bool, columns: int) -> str:
    """A sentence for a terminal of so many columns."""
    names = [name for step in shown.passes for name, _ in rows(step, is_colored, has_scores)]
    margin = 2 + max(map(len, ["reference", *names]))
    lines = [f"{'source':{margin}}{shown.source or EMPTY}"]
    for run in shown.runs:
        lines += block(run, margin, max(columns - margin, LEAST_ROOM), is_colored, has_scores)
    lines += [f"{name:{margin}}{words or EMPTY}" for name, words in shown.ending]
    return "\n".join(lines) + "\n"


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Refinement, pass by pass</title>
<style>
:root { --back: #fff; --front: #1c1e21; --faint: #5f646b; --line: #d9dce0; --new: #0842a0; --doubt: 240 150 30;
  --darkest: .5 }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181b; --front: #e6e8ea; --faint: #9aa0a8; --line: #383c42; --new: #a8c7fa; --doubt: 230 130 20;
    --darkest: .42 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem; max-width: 100rem; background: var(--back); color: var(--front);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0; font-size: 1.3rem }
header p { margin: .3rem 0; color: var(--faint) }
section { border-top: 1px solid var(--line); margin-top: 1.2rem; padding-top: 1rem }
dl { display: grid; grid-template-columns: 13rem 1fr; align-items: baseline; margin: .3rem 0 }
dt, th, .empty { color: var(--faint); font-size: .9rem; font-weight: normal; text-align: left }
dd { margin: 0 }
.output { font-weight: bold }
.passes { overflow-x: auto }
table { border-spacing: 0 }
th { position: sticky; left: 0; min-width: 13rem; max-width: 13rem; padding: 0 .5rem 0 0; background: var(--back) }
th, td { vertical-align: baseline }
td, .shade { padding: .1rem .3rem; border: 1px solid var(--back); border-radius: .3rem; color: var(--front);
  white-space: nowrap; background: rgb(var(--doubt) / calc(var(--p) * var(--darkest))) padding-box }
td i { font-style: normal; opacity: .6 }
mark { background: none; color: var(--new); font-weight: bold; text-decoration: underline 2px;
  text-underline-offset: 3px }
@media print, (max-width: 40rem) {
  body { padding: .8rem }
  dl, table, tbody, tr, th { display: block; min-width: 0; max-width: none }
  td { display: inline-block; white-space: normal }
  tr, dd { margin-bottom: .5rem }
}
</style>
</head>
<body>
<header>
<h1>Refinement, pass by pass</h1>
<p>$title</p>
<p><mark>changed</mark> by this pass; probability of a token
<span class="shade" style="--p:0">100 %</span> <span class="shade" style="--p:.5">50 %</span>
<span class="shade" style="--p:1">0 %</span></p>
</header>
$body
</body>
</html>
""")


def html_token(token: str, chance: float, is_marked: bool) -> str:
    """A cell, the darker the less probable its token."""
    inner = "".join(f"<i>{escape(part)}</i>" if is_faint else escape(part) for part, is_faint in pieces(token))
    inner = f"<mark>{inner}</mark>" if is_marked else inner
    return f'<td style="--p:{1 - chance:.2f}" title="{100 * chance:.1f} %">{inner}</td>'


def html_table(run: Sequence[Pass]) -> Iterator[str]:
    """Passes of one length, a row a pass."""
    yield '<div class="passes"><table>'
    for step in run:
        yield f'<tr><th scope="row">{step.name}: {step.change}</th>'
        yield from map(html_token, step.tokens, step.probabilities, step.marked)
        yield "</tr>"
    yield "</table></div>"


def html_section(shown: Refinement) -> Iterator[str]:
    """A sentence of the page."""

    def entry(name: str, words: str) -> str:
        return f'<dt>{name}</dt><dd dir="auto" class="{name if words else "empty"}">{escape(words or EMPTY)}</dd>'

    yield f"<section>\n<dl>{entry('source', shown.source)}</dl>"
    for run in shown.runs:
        yield from html_table(run)
    yield f"<dl>{''.join(itertools.starmap(entry, shown.ending))}</dl>\n</section>"


def as_html(sentences: Iterable[Refinement], title: str) -> List[str]:
    """The lines of a page that needs nothing but itself."""
    body = "\n".join(line for shown in sentences for line in html_section(shown))
    return PAGE.substitute(title=escape(title), body=body).split("\n")


class Decoder:
    """An iterative model, loaded as fairseq-interactive loads it."""

    def __init__(self, flags: List[str]) -> None:
        from fairseq import checkpoint_utils, hub_utils, tasks, utils

        from nar_plugin.methods.options import Refinement

        self.cfg = cfg = engine.parsed("interactive", ["--retain-iter-history", *flags])
        self.task = tasks.setup_task(cfg.task)
        paths, overrides = utils.split_paths(cfg.common_eval.path), ast.literal_eval(cfg.common_eval.model_overrides)
        self.models, _ = checkpoint_utils.load_model_ensemble(paths, overrides, task=self.task)
        if not issubclass(getattr(self.models[0], "decode_options", object), Refinement):
            files.fail(
                f"{paths[0]} keeps no history of passes that could be shown; take a model of an iterative --arch"
            )
        self.hub = hub_utils.GeneratorHubInterface(cfg, self.task, self.models)
        self.hub = self.hub.half() if cfg.common.fp16 else self.hub
        self.hub = self.hub.cuda() if torch.cuda.is_available() and not cfg.common.cpu else self.hub
        self.generator = self.task.build_generator(self.models, cfg.generation)

    def show(self, source: str, reference: Optional[str] = None) -> Refinement:
        """Decodes a sentence."""
        from fairseq import utils
        from fairseq_cli.interactive import make_batches

        hub, dictionary = self.hub, self.task.target_dictionary

        def segmented(line: str) -> str:
            return hub.apply_bpe(hub.tokenize(line))

        (batch,) = make_batches([source], self.cfg, self.task, hub.max_positions, segmented)
        net_input = {"src_tokens": batch.src_tokens, "src_lengths": batch.src_lengths}
        sample = utils.apply_to_sample(lambda tensor: tensor.to(hub.device), {"net_input": net_input})
        best = self.task.inference_step(self.generator, self.models, sample)[0][0]
        output = hub.detokenize(hub.remove_bpe(dictionary.string(best["tokens"], self.cfg.common_eval.post_process)))
        return refined(source, self.steps(best), output, reference)

    def steps(self, best: Any) -> List[Step]:
        """The history of a hypothesis, and its tokens if they are not those of the last pass (--collapse-repeats)."""
        names = [f"pass {i + 1}" for i in range(len(best["history"]))]
        states = [*zip(names, best["history"])]
        if states and not torch.equal(best["tokens"], best["history"][-1]["tokens"]):
            states.append((KEPT, best))
        words = self.task.target_dictionary
        return [
            Step(name, [words[i] for i in state["tokens"].tolist()], state["positional_scores"].tolist())
            for name, state in states
        ]


def parse() -> Tuple[argparse.Namespace, List[str]]:
    """Our own flags, and those that are left to fairseq."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--sentence", action="append", default=[], metavar="TEXT", help="a sentence to translate; repeatable")
    add("--reference", action="append", default=[], metavar="TEXT", help="its translation, one a sentence; repeatable")
    add("--scores", action="store_true", help="probabilities below the tokens (the page always shows them)")
    when = "auto: on a terminal, unless NO_COLOR is set"
    add("--color", choices=("auto", "always", "never"), default="auto", help=when)
    add("--non-local", action="store_true", help="only where a step changed separate spans; and their share")
    add("--html", type=Path, metavar="FILE", help="a page of all sentences as well")
    args, flags = parser.parse_known_args()
    if args.html and args.html.is_dir():
        files.fail(f"cannot write {args.html}: it is a folder")
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
    sources = decoded(of_words(args.sentence) or lines_of(file))
    if not args.reference:
        return ((source, None) for source in sources)
    everything, references = list(sources), list(decoded(of_words(args.reference)))
    if len(everything) != len(references):
        files.fail(f"{len(references)} --reference for {len(everything)} sentences: give one a sentence, or none")
    return zip(everything, references)


def wants_color(choice: str) -> bool:
    return choice == "always" or choice == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def check_writable(path: Path) -> None:
    """Ends the program where the file cannot be written; leaves what is in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        files.fail(f"cannot write {path}: {error.strerror}")


def run(args: argparse.Namespace, flags: List[str]) -> None:
    """Decodes and prints sentence by sentence, and writes the page of all of them."""
    decoder = Decoder(flags)
    title, told = decoder.cfg.common_eval.path, pairs(args, decoder.cfg.interactive.input)
    if args.html:  # a page that cannot be written should say so before the work
        check_writable(args.html)
    is_colored, shown, count = wants_color(args.color), [], 0
    with suppress(KeyboardInterrupt):  # what was typed before is shown
        for source, reference in told:
            found, count = decoder.show(source, reference), count + 1
            if args.non_local and not found.is_non_local:
                continue
            shown.append(found)
            columns = shutil.get_terminal_size((100, 24)).columns
            print("\n" * (len(shown) > 1) + as_text(shown[-1], is_colored, args.scores, columns), end="", flush=True)
    if args.non_local and count:
        print(f"non-local changes: {len(shown)} of {count} sentences, {100 * len(shown) / count:.1f} %")
    if args.html:
        files.write_lines(args.html, as_html(shown, title))


def complaint(error: BaseException) -> str:
    """One line on what went wrong; what neither we nor the plugin foresaw is named by its kind."""
    message = " ".join(str(error).split())[:300]
    if "_lang=null" in message:  # the host could not compose its options
        return "--tokenizer needs --source-lang and --target-lang"
    is_foreseen = isinstance(error, (SystemExit, engine.BenchmarkError))
    return message if is_foreseen else f"{type(error).__name__}: {message}"


def main() -> None:
    args, flags = parse()
    logging.basicConfig(level=logging.WARNING)  # on stderr; fairseq's programs log on stdout
    logging.getLogger("fairseq.dataclass.utils").disabled = True  # it lists all options that do not go together
    warnings.simplefilter("ignore")  # of the libraries; ours are logged
    try:
        run(args, flags)
    except (SystemExit, Exception) as error:
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            raise
        files.fail(complaint(error))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where the reader does
    main()
