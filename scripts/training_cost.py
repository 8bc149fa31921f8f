"""What a training of a recipe takes: parameters, memory and time of one update here, and on paper the whole on a GPU.

    training_cost.py examples/wmt14_en_de/3_teacher.sh examples/wmt14_en_de/5_*.sh --types 32000

Each script says by a dry run which model it trains, on how many tokens, for how many updates. One batch of random
sentences of --length tokens a side is trained twice with the same flags, in float32; the second time is measured. Its
floating-point operations are torch's count (FlopCounterMode: products alone). A GPU's hours are those operations by its
peak in bfloat16 or float16 (dense, as its maker states it), of which a training reaches the share --utilization: an
assumption, not a measurement. Several GPUs divide the hours, if the batch is large enough for all.
"""

import argparse
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch.utils.flop_counter import FlopCounterMode

import nar_plugin  # noqa: F401  (registers the architectures)
from files import fail
from nar_plugin.tasks.translation_nar import TranslationNarTask
from report import aligned

ROOT = Path(__file__).resolve().parents[1]
PEAKS = {"V100": 125, "A100": 312, "H100": 989}
"""TFLOP/s of the SXM modules, dense: NVIDIA's data sheets."""


def command_of(script: Path) -> List[str]:
    """The flags of fairseq-train that a script of a recipe would give. Ends the program where it prints none."""
    environment = {**os.environ, "DRY_RUN": "1", "GPUS": "0", "OUT": "/nonexistent"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, cwd=ROOT)
    for line in done.stdout.splitlines():
        if line.startswith("fairseq-train "):
            return shlex.split(line)[1:]
    fail(f"{script} trains nothing: {done.stderr.strip() or 'no command of fairseq-train'}")


def dictionary(types: int) -> Dictionary:
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return words


def built(flags: List[str], types: int) -> Tuple[Any, Any, torch.nn.Module, torch.nn.Module]:
    """Configuration, task, model and criterion of a command, for dictionaries of so many types."""
    flags = [str(ROOT / "nar_plugin") if flag == "nar_plugin" else flag for flag in flags if flag != "--eval-bleu"]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), input_args=flags))
    words = dictionary(types)
    task = TranslationNarTask(cfg.task, words, words)
    return cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def batch(sentences: int, length: int, types: int) -> Dict[str, Any]:
    """Random sentences, each ending in ``</s>``, as fairseq's translation batches them."""
    words = torch.randint(4, types, (2, sentences, length))
    words[..., -1] = 2
    source, target = words
    shifted = torch.cat([target[:, -1:], target[:, :-1]], 1)
    net_input = {"src_tokens": source, "src_lengths": torch.full((sentences,), length), "prev_output_tokens": shifted}
    ids = torch.arange(sentences)
    return {"id": ids, "nsentences": sentences, "ntokens": target.numel(), "net_input": net_input, "target": target}


def measured(task: Any, model: torch.nn.Module, criterion: Any, sample: Dict[str, Any]) -> Tuple[float, float, float]:
    """Of an update with Adam, the second: seconds, the process's peak of memory in GB, TFLOP."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    seconds = operations = 0.0
    for is_counted in (True, False):
        counter = FlopCounterMode(display=False)
        begin = time.perf_counter()
        if is_counted:
            with counter:
                loss, _, _ = criterion(model, task.with_columns(sample, task.cfg.train_subset, 1))
                loss.backward()
            operations = counter.get_total_flops() / 1e12
        else:
            loss, _, _ = criterion(model, task.with_columns(sample, task.cfg.train_subset, 1))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - begin
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, operations


def row_of(script: Path, args: argparse.Namespace) -> Dict[str, Any]:
    """What a script's training takes. Memory is the peak of this process: call it for one script at a time."""
    torch.manual_seed(1)
    cfg, task, model, criterion = built(command_of(script), args.types)
    tokens = cfg.dataset.max_tokens * cfg.optimization.update_freq[0]
    sentences = max(1, args.tokens // args.length)
    seconds, memory, operations = measured(task, model, criterion, batch(sentences, args.length, args.types))
    total = operations / (sentences * args.length) * tokens * cfg.optimization.max_update
    return {
        "script": str(script),
        "arch": cfg.model._name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": sentences * args.length,
        "seconds": seconds,
        "memory": memory,
        "tflop": operations,
        "update": tokens,
        "updates": cfg.optimization.max_update,
        "hours": {name: total / (peak * args.utilization) / 3600 for name, peak in PEAKS.items()},
    }


def cells(row: Dict[str, Any]) -> List[str]:
    whole = [f"{row['update']:,}", f"{row['updates']:,}"]
    measured_here = [f"{row['seconds']:.1f}", f"{row['memory']:.1f}", f"{1000 * row['tflop'] / row['tokens']:.2f}"]
    hours = [f"{hours:,.0f}" for hours in row["hours"].values()]
    return [row["arch"], f"{row['parameters'] / 1e6:.1f}", *measured_here, *whole, *hours]


def one_line(script: Path, flags: List[str]) -> List[str]:
    """The table of one script. Ends the program where its own process fails."""
    done = subprocess.run([sys.executable, __file__, str(script), *flags], capture_output=True, text=True)
    if done.returncode:
        fail(done.stderr.strip().splitlines()[-1])
    return done.stdout.splitlines()[-3:]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="+", type=Path, help="3_teacher.sh, 5_<method>.sh")
    parser.add_argument("--types", type=int, default=32000, help="of the dictionaries")
    parser.add_argument("--length", type=int, default=30, help="tokens a sentence")
    parser.add_argument("--tokens", type=int, default=1500, help="of the batch that is measured")
    parser.add_argument("--utilization", type=float, default=0.3, help="share of a GPU's peak that a training reaches")
    args = parser.parse_args()
    if not 0 < args.utilization <= 1 or min(args.length, args.tokens) < 2 or args.types < 10:
        parser.error("--utilization wants a share, --length and --tokens 2 or more, --types 10 or more")
    return args


def main() -> None:
    args = parse()
    if len(args.scripts) > 1:  # each in a process of its own: a peak of memory is a process's
        given = {name: getattr(args, name) for name in ("types", "length", "tokens", "utilization")}
        flags = [f"--{name}={value}" for name, value in given.items()]
        lines = [one_line(script, flags) for script in args.scripts]
        print("\n".join([*lines[0][:2], *(found[2] for found in lines)]))
        return
    heading = ["system", "M parameters", "s", "GB", "TFLOP / 1,000 tokens", "tokens an update", "updates"]
    print("\n".join(aligned([heading + [f"{name} h" for name in PEAKS], cells(row_of(args.scripts[0], args))], True)))


if __name__ == "__main__":
    main()
