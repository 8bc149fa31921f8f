"""What an update of a training takes: parameters, time, memory and floating-point operations of one batch."""

import argparse
import resource
import time
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple
from unittest import mock

import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch.utils.flop_counter import FlopCounterMode

import nar_plugin  # registers the architectures
from nar_plugin.tasks.translation_nar import TranslationNarTask

from ..errors import ToolError

Row = Dict[str, Any]
PEAKS = {"V100": 125, "A100": 312, "H100": 989}
"""TFLOP/s of the SXM modules, dense: NVIDIA's data sheets."""


def processes(flags: Sequence[str]) -> int:
    """How many a command trains with; fairseq itself would count the GPUs of this machine where it does not say."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--distributed-world-size", type=int, default=1)
    return int(parser.parse_known_args(flags)[0].distributed_world_size)


def dictionary(types: int) -> Dictionary:
    words = Dictionary()
    for i in range(types - len(words)):
        words.add_symbol(f"w{i}")
    return words


def configuration(flags: Sequence[str]) -> Any:
    """What fairseq-train makes of its flags; where it would print its usage, a ToolError says what is wrong."""

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise ToolError(message)

    with mock.patch.object(argparse.ArgumentParser, "error", refuse):
        given = options.parse_args_and_arch(options.get_training_parser(), input_args=list(flags))
    return convert_namespace_to_omegaconf(given)


def built(flags: Sequence[str], types: int) -> Tuple[Any, Any, torch.nn.Module, torch.nn.Module]:
    """Configuration, task, model and criterion of a command, for dictionaries of so many types."""
    plugin = str(Path(nar_plugin.__file__).parent)  # commands name it as they are started, not as we are
    kept = [plugin if Path(flag).name == "nar_plugin" else flag for flag in flags if flag != "--eval-bleu"]
    cfg = configuration(kept)
    # what a training begins with costs nothing, and need not be there
    cfg.task.finetune_from_model = cfg.task.warm_start
    cfg.task.warm_start, cfg.task.warm_start_parts = None, ""
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


def row_of(flags: Sequence[str], types: int, length: int, tokens: int, utilization: float) -> Row:
    """What a training takes, from its flags. Memory is the peak of this process: call it once in one."""
    torch.manual_seed(1)
    cfg, task, model, criterion = built(flags, types)
    update = cfg.dataset.max_tokens * cfg.optimization.update_freq[0] * processes(flags)
    sentences = max(1, tokens // length)
    seconds, memory, operations = measured(task, model, criterion, batch(sentences, length, types))
    total = operations / (sentences * length) * update * cfg.optimization.max_update
    return {
        "arch": cfg.model._name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": sentences * length,
        "seconds": seconds,
        "memory": memory,
        "tflop": operations,
        "update": update,
        "updates": cfg.optimization.max_update,
        "hours": {name: total / (peak * utilization) / 3600 for name, peak in PEAKS.items()},
    }
