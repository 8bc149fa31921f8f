"""Averages the weights of checkpoints of one model; what comes out decodes, but does not go on training.

average_checkpoints.py --inputs a.pt b.pt --output average.pt
average_checkpoints.py --dir checkpoints --last 5 --output average.pt
average_checkpoints.py --dir checkpoints --best 5 --metric bleu --output average.pt
"""

import argparse
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from files import fail, whole
from nar_plugin.compat import UsageError, load_checkpoint

State = Dict[str, Any]


def matching(folder: Path, pattern: str) -> List[Tuple[float, Path]]:
    """The files whose whole name fits the pattern, with the number in its group, least first."""
    fits = [(re.fullmatch(pattern, path.name), path) for path in folder.glob("*.pt")]
    return sorted((float(fit.group(1)), path) for fit, path in fits if fit)


def last(folder: Path, count: int) -> List[Path]:
    """The last `count` checkpoints: those saved every so many updates if there are any, else those of epochs."""
    found = matching(folder, r"checkpoint_\d+_(\d+)\.pt") or matching(folder, r"checkpoint(\d+)\.pt")
    return enough(found, count, f"checkpoint_E_U.pt or checkpointE.pt in {folder}")


def best(folder: Path, count: int, metric: str, or_fewer: bool = False) -> List[Path]:
    """The `count` best of those that ``--keep-best-checkpoints`` left; the lowest of a loss or a perplexity."""
    # fairseq appends a digit to the three decimals of the value, lest equal values overwrite each other
    found = matching(folder, rf"checkpoint\.best_{re.escape(metric)}_(\d+\.?\d*)\.pt")
    lower_is_better = metric.endswith(("loss", "ppl"))
    if or_fewer:
        count = min(count, max(1, len(found)))
    return enough(found[::-1] if lower_is_better else found, count, f"checkpoint.best_{metric}_*.pt in {folder}")


def enough(found: List[Tuple[float, Path]], count: int, what: str) -> List[Path]:
    if not 0 < count <= len(found):
        raise UsageError(f"{count} checkpoints asked for, {len(found)} found: {what}")
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
            raise UsageError(f"{path} is not a fairseq checkpoint: it does not say which model it is of")
        first = first or state
        unlike = difference(first, state)
        if unlike:
            raise UsageError(f"{path} cannot be averaged with {paths[0]}: {unlike}")
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
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", nargs="+", type=Path, default=[], help="the checkpoints")
    parser.add_argument("--dir", type=Path, help="a folder of checkpoints, for --last or --best")
    parser.add_argument("--last", type=int, metavar="K", help="the last K updates, or epochs if no updates were saved")
    parser.add_argument("--best", type=int, metavar="K", help="the K best")
    parser.add_argument("--or-fewer", action="store_true", help="of --best: all that there are, where they are fewer")
    parser.add_argument("--metric", default="bleu", help="of --best: bleu (default), loss, ... as the files are named")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--half", action="store_true", help="store float16")
    kept_out = "leave the folders of this machine out of the settings: for a file that others will get"
    parser.add_argument("--forget-paths", action="store_true", help=kept_out)
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> List[Path]:
    """The checkpoints that the command line asks for."""
    ways = [bool(args.inputs), args.last is not None, args.best is not None]
    if sum(ways) != 1 or bool(args.dir) == bool(args.inputs):
        raise UsageError("say either --inputs A.pt B.pt ..., or --dir D --last K, or --dir D --best K")
    if args.inputs:
        return list(args.inputs)
    if args.last is not None:
        return last(args.dir, args.last)
    return best(args.dir, args.best, args.metric, args.or_fewer)


def main() -> None:
    args = parse()
    paths = chosen(args)
    state = average(paths, args.half)
    if args.forget_paths:
        state.update({name: without_paths(state.get(name)) for name in ("cfg", "args")})
    save(state, args.output)
    print(f"{args.output}: average of {len(paths)}:", *paths, sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        fail(str(error))
