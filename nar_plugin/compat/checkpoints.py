"""Checkpoints: read safely whatever torch's default is, fit or refused in one line, saved when they were asked for."""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import os
import pickle
import re
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Set

import numpy as np
import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.transformer import TransformerConfig, TransformerModel, TransformerModelBase
from omegaconf import OmegaConf

from ..methods.contract import UsageError
from . import texts


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


_read: Deque[str] = collections.deque(["a checkpoint"], maxlen=1)


def last_read() -> str:
    """The path of the checkpoint that was read last: the host tells a task what is in it, and not where it is."""
    return _read[0]


def load_checkpoint(path: str) -> Dict[str, Any]:
    """The checkpoint at ``path`` as a dict on the CPU, tensors and allowed types only, whatever torch's default is.

    A released file that does not say itself which text it belongs to is spoken for by the manifest beside it. Raises
    UsageError, one line, where the file is missing, damaged, no checkpoint, or holds any other object.
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
    _read.append(path)
    return with_text(state, path)


def with_text(state: Dict[str, Any], path: str) -> Dict[str, Any]:
    """The loaded checkpoint, with what its folder says of its text where it says nothing itself."""
    told = state.get("task_state") or {}
    found = None if texts.STATE in told else texts.released_text(path)
    state["task_state"] = {**told, texts.STATE: found} if found else told
    return state


def text_of(state: Dict[str, Any]) -> Any:
    """Which text a loaded checkpoint belongs to; None where nothing says so."""
    return (state.get("task_state") or {}).get(texts.STATE)


def load_model(path: str, task: Any) -> torch.nn.Module:
    """The model of a second checkpoint (a teacher, a base), built by ``task``, in eval mode and without gradients.

    Raises UsageError where it cannot be read or does not fit the task's dictionaries.
    """
    ensemble, _ = checkpoint_utils.load_model_ensemble([path], task=task)
    return ensemble[0].eval().requires_grad_(False)


def load_transformer(path: str, task: Any) -> TransformerModelBase:
    """As ``load_model``, of a transformer of fairseq's own. Raises UsageError where it is none."""
    try:
        model = load_model(path, task)
    except UsageError:
        raise
    except Exception as error:  # the host builds whatever the file names, with a task that it may not be made for
        raise UsageError(f"{path} holds no transformer of fairseq's: {_one_line(error)}") from None
    if not isinstance(model, TransformerModelBase):
        raise UsageError(f"{path} holds no transformer of fairseq's: its model is a {type(model).__name__}")
    return model


def is_resumed(save_dir: str, restore_file: str) -> bool:
    """Whether a training with these options of the host's finds a checkpoint to go on from."""
    is_last = restore_file == "checkpoint_last.pt"
    return os.path.exists(os.path.join(save_dir, restore_file) if is_last else restore_file)


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


def transformer_options(state: Dict[str, Any], path: str) -> str:
    """The options of the stock transformer in the checkpoint loaded from ``path``, as JSON, for ``build_transformer``:
    those alone that say what it is made of, not where its files were.

    Raises UsageError for any other model.
    """
    options: Any = (state.get("cfg") or {}).get("model") or state.get("args")
    is_flat = isinstance(options, argparse.Namespace)
    given: Any = vars(options) if is_flat else OmegaConf.to_container(OmegaConf.create(options), resolve=True)
    arch = given.get("arch") or given.get("_name")
    if not issubclass(ARCH_MODEL_REGISTRY.get(arch, object), TransformerModel):
        raise UsageError(f"{path} holds --arch {arch}, which is no transformer of fairseq's")
    own = {field.name for field in dataclasses.fields(TransformerConfig)}
    sides = ("encoder_", "decoder_", "quant_noise_")
    kept = {
        name: x for name, x in given.items() if name in own or name.startswith(sides) and not name.endswith("_path")
    }
    return json.dumps(kept, sort_keys=True)


def build_transformer(options: str, task: Any) -> TransformerModelBase:
    """The untrained transformer that ``transformer_options`` describes. Raises UsageError where the task's
    dictionaries do not allow it."""
    try:
        return TransformerModel.build_model(argparse.Namespace(**json.loads(options)), task)
    except ValueError as error:
        raise UsageError(f"the transformer that this model stands on: {_one_line(error)}") from None


def load_weights(model: torch.nn.Module, state: Dict[str, Any], path: str) -> None:
    """Put the weights of a loaded checkpoint into ``model``. Raises UsageError where they do not fit it."""
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit these dictionaries or options: {_one_line(error)}") from None


asked_overrides: Set[str] = set()
"""The names that were given to ``--model-overrides``, of which the host ignores those that a checkpoint has not."""


def _names(options: Any) -> Set[str]:
    """Those of all options of a configuration, whatever group they stand in."""
    inside = vars(options) if isinstance(options, argparse.Namespace) else options
    if not isinstance(inside, Mapping):
        return set()
    return {str(name) for name in inside}.union(*map(_names, inside.values()))


def _refuse_unknown(states: Iterable[Dict[str, Any]]) -> None:
    unknown = asked_overrides.difference(*(_names(state.get("cfg")) | _names(state.get("args")) for state in states))
    if unknown:
        raise UsageError(f"--model-overrides: no checkpoint of --path has an option {', '.join(sorted(unknown))}")


def guarded_read(read: Callable[..., Dict[str, Any]]) -> Callable[..., Dict[str, Any]]:
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


def guarded_ensemble(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_model_ensemble_and_task(filenames: List[str], *args: Any, **kwargs: Any) -> Any:
        if asked_overrides:
            _refuse_unknown(map(load_checkpoint, filenames))
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


@contextlib.contextmanager
def _compared(check: Optional[Callable[[Dict[str, Any]], None]]) -> Iterator[None]:
    """Within it what is read is shown to ``check``: the host tells a task of a checkpoint in decoding alone."""
    read = checkpoint_utils.load_checkpoint_to_cpu

    def load_checkpoint_to_cpu(*args: Any, **kwargs: Any) -> Dict[str, Any]:
        state = read(*args, **kwargs)
        if check is not None:
            check(state)
        return state

    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = read


def guarded_resume(load: Callable[..., Any]) -> Callable[..., Any]:
    """Going on with a training: what does not fit is one line, and our task sees which text the checkpoint is of."""

    @functools.wraps(load)
    def load_checkpoint(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        try:
            with _compared(getattr(trainer.task, "check_text", None)):
                return load(cfg, trainer, **kwargs)
        except Exception as error:
            if isinstance(error.__context__, UsageError):  # ours, from the model, which the host has covered up
                raise error.__context__ from None
            # the host raises a bare Exception where the weights do not fit
            if not isinstance(error, ValueError) and "Cannot load model parameters" not in str(error):
                raise
            raise UsageError(_one_line(error)) from None

    return load_checkpoint


def trusting_broadcast(broadcast: Callable[..., Any]) -> Callable[..., Any]:
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


def why_not_written(error: BaseException) -> str:
    """The system's reason why a file could not be written, which torch's writer covers with an error of its own."""
    cause: Optional[BaseException] = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__context__
    return str(cause.strerror) if isinstance(cause, OSError) else str(error).split("\n")[0]


def written_whole(save: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint that cannot be written (the disk is full) is one line, and no half file is left.

    The host tries three times on the same half-written file, and logs a traceback. Can go when it ends so itself.
    """

    @functools.wraps(save)
    def torch_persistent_save(obj: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return save(obj, filename, *args, **kwargs)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{filename}.tmp")
            raise UsageError(f"cannot write {filename}: {why_not_written(error)}") from None

    return torch_persistent_save


class _WithinAnEpoch:
    """A training's iterator that does not say that the epoch has ended."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def end_of_epoch(self) -> bool:
        return False


def saved_at_every_interval(save: Callable[..., Any]) -> Callable[..., Any]:
    """``--save-interval-updates N`` keeps update N, 2 N, ... also where an epoch ends with it.

    The host leaves such a checkpoint to the epoch, which under ``--no-epoch-checkpoints`` writes none. Can go when the
    host writes ``checkpoint_E_U.pt`` there itself.
    """

    @functools.wraps(save)
    def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        every = cfg.save_interval_updates
        if cfg.no_epoch_checkpoints and every > 0 and trainer.get_num_updates() % every == 0:
            epoch_itr = _WithinAnEpoch(epoch_itr)
        return save(cfg, trainer, epoch_itr, val_loss)

    return save_checkpoint
