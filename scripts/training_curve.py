"""The validation curve of a training, read from the log that fairseq-train writes with --log-format simple.

training_curve.py LOG [--output curve.json] [--figure STEM]
training_curve.py curve.json --figure STEM

The curve: one point an epoch (the last validation of it), as {"epoch", "updates", "loss", "bleu"}; ``loss`` as the
criterion logs it (bits a token), ``bleu`` null where BLEU was not asked for. A figure is STEM.png and STEM.svg.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

import figures
from files import fail, read, write_lines

Point = Dict[str, Any]

PATIENCE = 5
"""Epochs without a better BLEU after which a training counts as converged."""
VALIDATION = re.compile(r"\| valid \| epoch 0*(\d+) \| (.*)")


def points(log: str) -> List[Point]:
    """The curve of a log; an epoch that was done again after an interruption counts as it was the last time."""
    found: Dict[int, Point] = {}
    for epoch, told in VALIDATION.findall(log):
        values = dict(re.findall(r"(?<!\S)(loss|bleu|num_updates) ([-\d.]+)", told))
        if "num_updates" in values:
            found[int(epoch)] = {
                "epoch": int(epoch),
                "updates": int(values["num_updates"]),
                "loss": float(values["loss"]) if "loss" in values else None,
                "bleu": float(values["bleu"]) if "bleu" in values else None,
            }
    return [found[epoch] for epoch in sorted(found)]


def best(curve: List[Point]) -> Optional[Point]:
    """The first point of the highest BLEU; None where there is no BLEU."""
    return max((point for point in curve if point["bleu"] is not None), key=lambda point: point["bleu"], default=None)


def is_converged(curve: List[Point]) -> Optional[bool]:
    """Whether the best valid BLEU is at least five epochs old; None where there is no BLEU."""
    top = best(curve)
    return None if top is None else curve[-1]["epoch"] - top["epoch"] >= PATIENCE


def summary(curve: List[Point]) -> str:
    """One line; empty where there is no BLEU."""
    top = best(curve)
    if top is None:
        return ""
    state = "converged" if is_converged(curve) else "not yet converged"
    return f"best valid BLEU {top['bleu']} after epoch {top['epoch']} of {curve[-1]['epoch']}: {state}"


def load(path: Path) -> List[Point]:
    """A curve from its JSON file. Raises ValueError, OSError."""
    curve: List[Point] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(curve, list) or not all(isinstance(p, dict) and {"epoch", "bleu"} <= p.keys() for p in curve):
        raise ValueError(f"{path} holds no training curve")
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="the log, or a curve (.json)")
    parser.add_argument("--output", type=Path, help="the curve as JSON")
    parser.add_argument("--figure", type=Path, metavar="STEM", help="STEM.png and STEM.svg are drawn")
    args = parser.parse_args()
    text = read(args.log).decode("utf-8", errors="replace")
    try:
        curve = load(args.log) if args.log.suffix == ".json" else points(text)
        note = summary(curve)
        if args.output:
            rows = ",\n".join(" " + json.dumps(point) for point in curve)
            write_lines(args.output, f"[\n{rows}\n]".split("\n") if curve else ["[]"])
        if args.figure:
            figures.save(figures.curve(curve, args.log.name.partition(".")[0], note), args.figure)
    except (ValueError, OSError) as error:
        fail(str(error))
    if note:
        print(note)


if __name__ == "__main__":
    main()
