"""How near images are to their references, pixel by pixel."""

import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..errors import ToolError
from ..text import images
from . import results
from .tables import aligned, number

Scores = Dict[str, Optional[float]]


def scores(found: Any, reference: Any) -> Scores:
    """Of (N, S, S, C) images, over the pixels of all of them: the peak signal-to-noise ratio, 10 log10(255² / mean
    squared error), in dB, None where nothing differs; the mean absolute difference, in intensities; and the share of
    equal pixels, in %."""
    difference = np.abs(found.astype(np.float64) - reference)
    error = float((difference**2).mean())
    return {
        "psnr": round(10 * math.log10(255**2 / error), 3) if error else None,
        "pixel_difference": round(float(difference.mean()), 3),
        "pixels_equal": round(100 * float((difference == 0).mean()), 3),
    }


def of_files(folder: Path, hypotheses: Sequence[Path]) -> Dict[str, Scores]:
    """Of each file of test images by its stem, and before them of what they are made from as it is shown, ``input``."""
    facts = images.facts_of(folder)
    reference = images.patches_of(folder / "test.high", facts.side, facts.channels)
    given = images.patches_of(folder / "test.low", facts.low_side, facts.channels)
    found = {"input": scores(images.enlarged(given, facts.side), reference)}
    for path in hypotheses:
        patches = images.patches_of(path, facts.side, facts.channels)
        if len(patches) != len(reference):
            raise ToolError(f"{path}: {len(patches)} images, where the test split has {len(reference)}")
        if (patches < 0).any():
            raise ToolError(f"{path}: {images.HOLE!r} is no intensity from 0 to 255")
        found[path.stem] = scores(patches, reference)
    return found


def put_into(path: Path, found: Dict[str, Scores]) -> None:
    """The scores, into those rows of a results.json that have the name of one."""
    rows: List[results.Row] = [{**row, **found.get(row["id"], {})} for row in results.read(path)]
    results.write(path, rows)


def table(found: Dict[str, Scores]) -> str:
    cells = [["system", "PSNR", "difference", "equal %"]]
    for name, row in found.items():
        psnr = "inf" if row["psnr"] is None else number(2)(row["psnr"])
        cells.append([name, psnr, number(2)(row["pixel_difference"]), number(2)(row["pixels_equal"])])
    return "\n".join(aligned(cells))
