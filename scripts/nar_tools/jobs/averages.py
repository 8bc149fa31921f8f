"""The mean of the weights of checkpoints of one model."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from nar_plugin.compat import load_checkpoint, text_of, why_not_written

from ..errors import ToolError
from ..files import whole

State = Dict[str, Any]
SPREAD = 0.2
"""Share of the highest value by which checkpoints that are averaged may differ without a warning."""


def matching(folder: Path, pattern: str) -> List[Tuple[float, Path]]:
    """The files whose whole name fits the pattern, with the number in its group, least first."""
    fits = [(re.fullmatch(pattern, path.name), path) for path in folder.glob("*.pt")]
    return sorted((float(fit.group(1)), path) for fit, path in fits if fit)


def last(folder: Path, count: int) -> List[Path]:
    """The last `count` checkpoints: those saved every so many updates if there are any, else those of epochs."""
    found = matching(folder, r"checkpoint_\d+_(\d+)\.pt") or matching(folder, r"checkpoint(\d+)\.pt")
    chosen = enough(found, count, f"checkpoint_E_U.pt or checkpointE.pt in {folder}")
    warn_of_gap(chosen[-1], folder / "checkpoint_last.pt")
    return chosen


def updates(path: Path) -> int:
    """How many updates a checkpoint has seen; -1 where it does not say."""
    history = load_checkpoint(str(path)).get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", -1))


def warn_of_gap(newest: Path, end: Path) -> None:
    """A line on stderr where the training went on after the newest of those that are averaged."""
    if not end.exists():
        return
    averaged, reached = updates(newest), updates(end)
    if -1 < averaged < reached:
        print(
            f"{newest} is of update {averaged}, the training went on to {reached}: {end} is left out", file=sys.stderr
        )


def best(folder: Path, count: int, metric: str, or_fewer: bool = False) -> List[Path]:
    """The `count` best of those that ``--keep-best-checkpoints`` left; the lowest of a loss or a perplexity."""
    # fairseq appends a digit to the three decimals of the value, lest equal values overwrite each other
    found = matching(folder, rf"checkpoint\.best_{re.escape(metric)}_(\d+\.?\d*)\.pt")
    lower_is_better = metric.endswith(("loss", "ppl"))
    if not folder.is_dir():
        raise ToolError(f"there is no folder {folder}")
    if or_fewer:
        count = min(count, max(1, len(found)))
    chosen = enough(found[::-1] if lower_is_better else found, count, f"checkpoint.best_{metric}_*.pt in {folder}")
    warn_of_spread(metric, sorted(value for value, path in found if path in chosen))
    return chosen


def warn_of_spread(metric: str, values: List[float]) -> None:
    """The average of checkpoints that are far apart, as those of a short training, is worse than the best of them."""
    low, high = values[0], values[-1]
    if high - low > SPREAD * abs(high):
        print(
            f"nar average: {metric} of these checkpoints is from {low:g} to {high:g}: "
            "their average may be worse than the best alone (checkpoint_best.pt)",
            file=sys.stderr,
        )


def enough(found: List[Tuple[float, Path]], count: int, what: str) -> List[Path]:
    if not 0 < count <= len(found):
        raise ToolError(f"{count} checkpoints asked for, {len(found)} found: {what} (--or-fewer takes what there is)")
    return [path for _, path in found[-count:]]


def arch(state: State) -> str:
    """The name of the architecture, from a new checkpoint (`cfg`) or an old one (`args`)."""
    model = state["cfg"]["model"] if state.get("cfg") else state["args"]
    settings = model if isinstance(model, dict) else vars(model)
    return str(settings.get("_name") or settings.get("arch"))


def difference(first: State, other: State) -> str:
    """What forbids to average the two, in words; empty if nothing does."""
    if arch(first) != arch(other):
        return f"architecture {arch(other)}, not {arch(first)}"
    told = [text for text in (text_of(first), text_of(other)) if text]
    if told[1:] and told[0] != told[1]:
        return "trained with other dictionaries, or in another direction"
    ours, theirs = first["model"], other["model"]
    for name in sorted(ours.keys() ^ theirs.keys()):
        return f"parameter {name} stands in one only"
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            return f"parameter {name} is {list(theirs[name].shape)}, not {list(tensor.shape)}"
    return ""


def average(paths: List[Path], half: bool = False) -> State:
    """The last checkpoint with the mean of all weights (summed and kept in float32, or stored in half precision).

    Integer buffers are those of the last. Optimizer state and moving averages are left out.
    """
    sums: Dict[str, Tensor] = {}
    first: State = {}
    for path in paths:
        state = load_checkpoint(str(path))
        if not (state.get("cfg") or state.get("args")):
            raise ToolError(f"{path} is not a fairseq checkpoint: it does not say which model it is of")
        first = first or state
        unlike = difference(first, state)
        if unlike:
            raise ToolError(f"{path} cannot be averaged with {paths[0]}: {unlike}")
        for name, tensor in state["model"].items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.float() if name in sums else tensor.float()
    dtype = torch.float16 if half else torch.float32
    weights = {name: (total / len(paths)).to(dtype) for name, total in sums.items()}
    state["model"] = {**state["model"], **share(weights, first["model"])}
    state["last_optimizer_state"] = None
    state["extra_state"] = {k: v for k, v in state.get("extra_state", {}).items() if not k.startswith("ema")}
    return state


def without_paths(setting: Any) -> Any:
    """A setting, or a tree of them, in which of every absolute path the last part alone is left."""
    if isinstance(setting, argparse.Namespace):
        return argparse.Namespace(**without_paths(vars(setting)))
    if isinstance(setting, dict):
        return {name: without_paths(value) for name, value in setting.items()}
    if isinstance(setting, list):
        return [without_paths(value) for value in setting]
    return Path(setting).name if isinstance(setting, str) and Path(setting).is_absolute() else setting


def share(weights: Dict[str, Tensor], like: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Lets tied weights share memory as they do in `like`, so that the file holds them once."""
    shared: Dict[Tuple[int, torch.Size], Tensor] = {}
    return {name: shared.setdefault((like[name].data_ptr(), like[name].shape), w) for name, w in weights.items()}


def save(state: State, path: Path) -> None:
    """Writes the file whole or not at all."""
    try:
        with whole(path) as unfinished, open(unfinished, "wb") as out:  # errors of torch's own opening are no OSError
            torch.save(state, out)
    except (OSError, RuntimeError) as error:  # torch's writer has its own error for a full disk
        raise ToolError(f"cannot write {path}: {why_not_written(error)}") from None
