"""The history of a decode for a reader: text for a terminal, or a page of HTML that needs nothing but itself."""

import itertools
import re
import unicodedata
from html import escape
from string import Template
from typing import Iterable, Iterator, List, Sequence, Tuple

from .history import Pass, Refinement

FAINT = re.compile("(^▁|@@$|^</s>$)")
"""What of a token is no text: the subword marks of SentencePiece and subword-nmt, and the end symbol."""
ANSI = {(False, False): "", (False, True): "2", (True, False): "1;4;35", (True, True): "2;4;35"}
"""Codes for (is marked, is faint)."""
ANSI_CODE = re.compile("\033\\[[0-9;]*m")
EMPTY = "(empty)"
LEAST_ROOM = 24
"""Columns for tokens, however narrow the terminal."""


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
<p><mark>changed</mark> by this pass, of drafts: refused; probability of a token
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
