"""The only file that knows versions of fairseq, torch, numpy and Python.

What is broken in the host today and repaired here, once, by ``apply`` (called when the plugin is imported):

* ve-fairseq 0.12.3 reads checkpoints by a bare ``torch.load``, which since torch 2.6 refuses everything but
  tensors. Checkpoints of fairseq hold a few harmless types more; these and no others are allowed. A checkpoint that
  holds anything else is refused and none of its code runs, on every torch.
* A missing, cut or foreign checkpoint ends in a traceback. Here it ends in one line.
* ``fairseq-hydra-train`` fills in a model's defaults and never asks its preset: ``_name: mask_predict_small`` in a
  configuration was a model of base size.
* ``fairseq-interactive`` dies on a byte that is not UTF-8 and takes a carriage return within a line for a line's end.
* ``fairseq-train`` now and then aborts after it has done its work (status 134, "terminate called without an active
  exception"): until Python 3.14, a daemon thread that is inside torch when the interpreter ends brings it down.
"""

import argparse
import atexit
import collections
import contextlib
import fileinput
import functools
import io
import json
import pickle
import queue
import re
import sys
import threading
import time
from dataclasses import fields
from typing import Any, Callable, Dict, List

import numpy as np
import torch
from fairseq import checkpoint_utils, models
from fairseq.data import iterators
from fairseq.dataclass import utils as dataclass_utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.distributed import utils as distributed_utils
from omegaconf import OmegaConf, open_dict

from .methods.contract import UsageError

__all__ = [
    *("UsageError", "apply", "build_model", "decode_flags", "end_loading", "load_checkpoint", "load_model"),
    *("load_weights", "model_options", "registered_model", "tolerate_bad_text"),
]


def _allowed_types() -> List[Any]:
    """What checkpoints of fairseq hold besides tensors and plain containers.

    Architectures without a dataclass keep their options in a Namespace; validation BLEU leaves numpy arrays in the
    meters; numpy renamed its core package in 2.0 and pickles name whichever wrote them.
    """
    core = getattr(np, "_core", None) or np.core
    reconstruct, scalar = core.multiarray._reconstruct, core.multiarray.scalar
    allowed: List[Any] = [argparse.Namespace, collections.OrderedDict, np.ndarray, np.dtype, reconstruct, scalar]
    allowed += [(reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar")]
    allowed += [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return allowed


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def load_checkpoint(path: str) -> Dict[str, Any]:
    """The checkpoint at ``path`` as a dict on the CPU, tensors and allowed types only, whatever torch's default is.

    Raises UsageError, one line, where the file is missing, damaged, no checkpoint, or holds any other object.
    """
    try:
        with open(path, "rb") as file, torch.serialization.safe_globals(_allowed_types()):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"checkpoint not found: {path}") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"[Uu]nsupported (?:global:|class:|operand:?)?\s*(?:GLOBAL )?([\w.]+)", str(error))
        found = found or re.search(r"([\w.]+) was not an allowed global", str(error))
        what = f"it holds {found.group(1)}" if found else _one_line(error)
        raise UsageError(f"{path} is not a checkpoint that is safe to load: {what}; nothing of it was run") from None
    except Exception as error:  # a damaged or foreign file can fail in any way
        raise UsageError(f"{path} cannot be read as a checkpoint (cut short or damaged?): {_one_line(error)}") from None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UsageError(f"{path} is not a fairseq checkpoint: it holds no model")
    if not (state.get("args") or (state.get("cfg") or {}).get("model")):
        raise UsageError(f"{path} is not a fairseq checkpoint: it does not say what its model is")
    if not {"optimizer_history", "best_loss"} & set(state):
        raise UsageError(f"{path} is not a fairseq checkpoint: it does not say how it was trained")
    return state


def load_model(path: str, task: Any) -> torch.nn.Module:
    """The model of a second checkpoint (a teacher, a base), built by ``task``, in eval mode and without gradients.

    Raises UsageError where it cannot be read or does not fit the task's dictionaries.
    """
    ensemble, _ = checkpoint_utils.load_model_ensemble([path], task=task)
    return ensemble[0].eval().requires_grad_(False)


def model_options(state: Dict[str, Any], path: str) -> str:
    """The options of the model in the checkpoint loaded from ``path``, as JSON, for ``build_model``.

    Raises UsageError for a model of fairseq's own, whose options are of another kind.
    """
    options = (state.get("cfg") or {}).get("model")
    if options is None or isinstance(options, argparse.Namespace):
        arch = getattr(options or state["args"], "arch", "?")
        raise UsageError(f"{path} holds --arch {arch}, which is none of nar_plugin's")
    return json.dumps(OmegaConf.to_container(OmegaConf.create(options), resolve=True), sort_keys=True)


def build_model(options: str, task: Any) -> torch.nn.Module:
    """The untrained model that ``model_options`` describes."""
    return task.build_model(OmegaConf.create(json.loads(options)), from_checkpoint=True)


def load_weights(model: torch.nn.Module, state: Dict[str, Any], path: str) -> None:
    """Put the weights of a loaded checkpoint into ``model``. Raises UsageError where they do not fit it."""
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit these dictionaries or options: {_one_line(error)}") from None


NO_DECODE_FLAGS = frozenset(
    {
        "_name",
        "beam",  # so common in recipes that it only warns
        *("beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt"),  # speech only
        "no_beamable_mm",  # how a beam search computes, not what
        "sacrebleu",  # how fairseq-generate scores
        "no_seed_provided",  # set by the host itself
    }
)
"""Options of fairseq's generation group that change nothing in what a parallel decode gives."""


def decode_flags() -> Dict[str, Any]:
    """fairseq's decode flags, with their default values."""
    options = {field.name: field.default for field in fields(GenerationConfig)}
    return {name: value for name, value in options.items() if name not in NO_DECODE_FLAGS}


def registered_model(arch: str) -> Any:
    """The model class behind ``--arch``, None where there is none."""
    return models.ARCH_MODEL_REGISTRY.get(arch)


def _guarded_read(read: Callable[..., Dict[str, Any]]) -> Callable[..., Dict[str, Any]]:
    """fairseq's reader after ours has seen the file: its own torch.load then finds only allowed types."""

    @functools.wraps(read)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        state = load_checkpoint(path)
        real_load = torch.load
        torch.load = lambda *_, **__: state  # the file is read once, by us
        try:
            return read(path, *args, **kwargs)
        finally:
            torch.load = real_load

    return load_checkpoint_to_cpu


def _guarded_ensemble(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_model_ensemble_and_task(filenames: List[str], *args: Any, **kwargs: Any) -> Any:
        try:
            return load(filenames, *args, **kwargs)
        except OSError as error:
            raise UsageError(_one_line(error)) from None
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            line = _one_line(error)
            raise UsageError(
                f"the weights in {':'.join(filenames)} do not fit the model that the task builds "
                f"(another dictionary or --task than it was trained with?): {line}"
            ) from None

    return load_model_ensemble_and_task


def _guarded_resume(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except Exception as error:
            # the host raises a bare Exception where the weights do not fit
            if not isinstance(error, ValueError) and "Cannot load model parameters" not in str(error):
                raise
            raise UsageError(_one_line(error)) from None

    return load_checkpoint


def _trusting_broadcast(broadcast: Callable[..., Any]) -> Callable[..., Any]:
    """What the first process has read safely reaches the others through a bare torch.load of its own bytes."""

    @functools.wraps(broadcast)
    def _broadcast_object_slow(*args: Any, **kwargs: Any) -> Any:
        real_load = torch.load
        torch.load = functools.partial(real_load, weights_only=False)
        try:
            return broadcast(*args, **kwargs)
        finally:
            torch.load = real_load

    return _broadcast_object_slow


def _preset_before_defaults(merge: Callable[..., Any]) -> Callable[..., Any]:
    """What a configuration leaves out of a model of ours is the preset's first, then the dataclass's."""

    @functools.wraps(merge)
    def merge_with_parent(dc: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        name = cfg.get("_name")
        if hasattr(registered_model(name), "decode_options") and name in models.ARCH_CONFIG_REGISTRY:
            given: Any = OmegaConf.to_container(cfg)
            filled = argparse.Namespace(**given)
            models.ARCH_CONFIG_REGISTRY[name](filled)
            with open_dict(cfg):
                for key in vars(filled).keys() - cfg.keys():
                    cfg[key] = getattr(filled, key)
        return merge(dc, cfg, *args, **kwargs)

    return merge_with_parent


def tolerate_bad_text() -> None:
    """Let fairseq-interactive answer every line: bad bytes become U+FFFD, and only a line feed ends a line."""
    if hasattr(sys.stdin, "reconfigure"):
        with contextlib.suppress(io.UnsupportedOperation):  # somebody has read of it already
            sys.stdin.reconfigure(encoding="utf-8", errors="replace", newline="\n")

    def hook_encoded(encoding: str, errors: str = "replace") -> Callable[..., Any]:
        return lambda name, mode: open(name, mode, encoding=encoding, errors=errors, newline="\n")

    fileinput.hook_encoded = hook_encoded  # type: ignore[assignment]


def end_loading(seconds: float = 10.0) -> None:
    """Let the host's threads that still load batches end, of which nobody asks for more; waits at most so long."""
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if isinstance(thread, iterators.BackgroundConsumer):
            thread._max_len = 0  # its next batch is its last
            while thread.is_alive() and time.monotonic() < deadline:
                with contextlib.suppress(queue.Empty):  # it may wait for room in its queue
                    thread._queue.get(timeout=0.05)


def apply() -> None:
    """Repair the host. Safe to call more than once."""
    if hasattr(checkpoint_utils.load_checkpoint_to_cpu, "__wrapped__"):
        return
    checkpoint_utils.load_checkpoint_to_cpu = _guarded_read(checkpoint_utils.load_checkpoint_to_cpu)
    checkpoint_utils.load_checkpoint = _guarded_resume(checkpoint_utils.load_checkpoint)
    dataclass_utils.merge_with_parent = _preset_before_defaults(dataclass_utils.merge_with_parent)
    distributed_utils._broadcast_object_slow = _trusting_broadcast(distributed_utils._broadcast_object_slow)
    checkpoint_utils.load_model_ensemble_and_task = _guarded_ensemble(checkpoint_utils.load_model_ensemble_and_task)
    atexit.register(end_loading)
