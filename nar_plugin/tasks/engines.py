"""How a decode computes its networks: what ``--engine`` makes of loaded models."""

import os
import shutil
from typing import Any, Dict, List

import torch
from torch import nn

from .. import compat
from ..generators import factory
from ..methods import int8
from ..methods.contract import Pass, UsageError


def prepare(models: List[Any], engine: str) -> None:
    """Turn the models of a decode, in place and for good, into what ``--engine`` names; safe to call again.

    Raises UsageError where the device, the processor or the models' precision do not have it.
    """
    if engine == "eager":
        return
    weight = next(models[0].parameters())
    if weight.dtype == torch.float16:
        raise UsageError(f"--engine {engine}: not with --fp16")
    for model in models:
        PREPARE[engine](model, weight.device)


def to_int8(model: Any, device: torch.device) -> None:
    """All linear maps in whole numbers (``methods.int8``)."""
    if device.type != "cpu":
        raise UsageError("--engine int8: on a CPU alone (--cpu)")
    int8.input_most()  # which says where there are no kernels
    done: Dict[nn.Module, nn.Module] = {}
    compat.attend_by_modules(model)  # of a model of ours, too, that stands on one of the host's
    if factory.is_decoding_model(model):
        passes = {name: Pass(int8.quantised(one.module, done), one.counts_as) for name, one in model.passes.items()}
        model.passes.update(passes)  # in place: a model that stands on another shares them with it
    else:
        int8.quantised(model, done)


def to_bfloat16(model: Any, device: torch.device) -> None:
    """All weights and states in bfloat16, probabilities in float32."""
    if not compat.has_bfloat16(device):
        raise UsageError("--engine bf16: this processor has no bfloat16, which would be slower than float32 there")
    model.to(torch.bfloat16)


def to_compiled(model: Any, device: torch.device) -> None:
    """Each pass by ``torch.compile``, for any shape, and each layer of fairseq's own; on a GPU as CUDA graphs."""
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise UsageError(f"--engine compiled: no C++ compiler {compiler}; install one, or name another in CXX")
    compat.expect_many_shapes()
    mode = "default" if device.type == "cpu" else "reduce-overhead"
    if not factory.is_decoding_model(model):
        for layer in compat.layers_of(model):
            layer.compile(mode=mode, dynamic=True)
        return
    for name, one in model.passes.items():
        network: Any = torch.compile(one.module, mode=mode, dynamic=True, fullgraph=True)
        model.passes[name] = Pass(network, one.counts_as)


PREPARE = {"int8": to_int8, "bf16": to_bfloat16, "compiled": to_compiled}
