"""The validation curve of a training: one point an epoch, its best, and whether it has converged."""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

Point = Dict[str, Any]
Curve = List[Point]

PATIENCE = 5
"""Epochs without a better BLEU after which a training counts as converged."""
VALIDATION = re.compile(r"\| valid \| epoch 0*(\d+) \| (.*)")


def points(log: str) -> Curve:
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


def best(curve: Curve) -> Optional[Point]:
    """The first point of the highest BLEU; None where there is no BLEU."""
    return max((point for point in curve if point["bleu"] is not None), key=lambda point: point["bleu"], default=None)


def is_converged(curve: Curve) -> Optional[bool]:
    """Whether the best valid BLEU is at least five epochs old; None where there is no BLEU."""
    top = best(curve)
    return None if top is None else curve[-1]["epoch"] - top["epoch"] >= PATIENCE


def summary(curve: Curve) -> str:
    """One line; empty where there is no BLEU."""
    top = best(curve)
    if top is None:
        return ""
    state = "converged" if is_converged(curve) else "not yet converged"
    return f"best valid BLEU {top['bleu']} after epoch {top['epoch']} of {curve[-1]['epoch']}: {state}"


def load(path: Path) -> Curve:
    """A curve from its JSON file. Raises ValueError, OSError."""
    curve: Curve = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(curve, list) or not all(isinstance(p, dict) and {"epoch", "bleu"} <= p.keys() for p in curve):
        raise ValueError(f"{path} holds no training curve")
    return curve
