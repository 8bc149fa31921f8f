"""Which pairs of a training text stay: neither empty, nor too long, nor too unlike in length."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Iterator, Sequence, Tuple

from ..errors import ToolError
from ..files import whole
from ..progress import progress

Pair = Tuple[str, str]


def pairs(paths: Sequence[Path], stack: ExitStack) -> Iterator[Pair]:
    """The pairs of two files, which must have equally many lines."""
    try:
        sides = [stack.enter_context(open(path, encoding="utf-8", newline="\n")) for path in paths]
        for source in sides[0]:
            target = sides[1].readline()
            if not target:
                raise ToolError(f"{paths[0]} has more lines than {paths[1]}")
            yield source.rstrip("\n"), target.rstrip("\n")
        if sides[1].readline():
            raise ToolError(f"{paths[1]} has more lines than {paths[0]}")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"cannot read {paths[0]} and {paths[1]}: {error}") from None


def fault(pair: Pair, longest: int, ratio: float) -> str:
    """Why a pair is left out; empty if it stays."""
    source, target = (len(side.split()) for side in pair)
    if not source or not target:
        return "empty"
    if max(source, target) > longest:
        return "too long"
    return "unlike in length" if max(source, target) > ratio * min(source, target) else ""


def split(
    inputs: Sequence[Path], kept: Sequence[Path], longest: int, ratio: float, held: Sequence[Path], every: int
) -> "Counter[str]":
    """Writes the pairs that stay to ``kept``, every so many-th of them to ``held`` instead; none stays: ToolError.

    Returns how many pairs were left out for each reason, and how many stay under "".
    """
    counts: Counter[str] = Counter()
    try:
        with ExitStack() as stack:
            given = pairs(inputs, stack)
            unfinished = [stack.enter_context(whole(path)) for path in [*kept, *held]]
            files = [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in unfinished]
            for pair in progress(given, inputs[0].name, "pairs"):
                reason = fault(pair, longest, ratio)
                counts[reason] += 1
                if not reason:
                    write(pair, files[2:] if held and not counts[""] % every else files[:2])
            if not counts[""]:
                raise ToolError(f"of {sum(counts.values())} pairs none is left: {described(counts)}")
    except OSError as error:
        raise ToolError(f"cannot write the pairs that stay: {error}") from None
    return counts


def write(pair: Pair, files: Sequence[IO[str]]) -> None:
    for side, file in zip(pair, files, strict=True):
        file.write(side + "\n")


def described(counts: "Counter[str]") -> str:
    """How many pairs were left out, by reason."""
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()) if reason) or "none"
