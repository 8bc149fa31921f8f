"""The only folder that knows versions of fairseq, torch, numpy and Python.

What is broken in the host today (ve-fairseq 0.12.3) is repaired here, once, by ``apply``, called when the plugin is
imported. Each repair is a function that says what it is for and when it can go.

* ``cached_decoder``: the host's decoder reads several tokens a call, and each row of a batch keeps its own number.
* ``checkpoints``: read without running what they hold, on every torch; a missing, cut or foreign one ends in one line;
  every interval is saved.
* ``data``: threads that load batches end before Python does (until Python 3.14 one that is inside torch then brings the
  process down, status 134); empty splits; buckets; the names of valid splits.
* ``engines``: what a processor has; the host's attention leaves its linear maps to their modules.
* ``flags``: a model's preset comes before its defaults in ``fairseq-hydra-train``.
* ``programs``: an error of use is one line; what would fail later, or do nothing, is refused before the work begins.
* ``texts``: which dictionaries and direction a checkpoint was trained with.
* ``streams``: UTF-8 in and out, whatever the locale and whatever bytes come; answers leave at once.
"""

import atexit
import sys

import torch
from fairseq import checkpoint_utils, scoring
from fairseq.data import data_utils, indexed_dataset
from fairseq.dataclass import utils as dataclass_utils
from fairseq.distributed import utils as distributed_utils

from ..methods.contract import UsageError
from . import checkpoints, data, flags, programs
from .cached_decoder import CachedTransformer
from .checkpoints import (
    build_model,
    build_transformer,
    is_resumed,
    last_read,
    load_checkpoint,
    load_model,
    load_transformer,
    load_weights,
    model_options,
    text_of,
    transformer_options,
    why_not_written,
)
from .data import end_loading
from .engines import (
    attend_by_modules,
    expect_many_shapes,
    has_bfloat16,
    keep_freed_memory,
    layers_of,
    seconds_of_compiling,
)
from .flags import decode_flags, registered_model, with_new_options
from .programs import end_like_cat, is_decoder, is_program
from .streams import tolerate_bad_text
from .texts import STATE as TEXT
from .texts import digest, parallel_digest

__all__ = [
    "TEXT",
    "CachedTransformer",
    "UsageError",
    "apply",
    "attend_by_modules",
    "build_model",
    "build_transformer",
    "decode_flags",
    "digest",
    "end_like_cat",
    "end_loading",
    "expect_many_shapes",
    "has_bfloat16",
    "is_decoder",
    "is_program",
    "is_resumed",
    "keep_freed_memory",
    "last_read",
    "layers_of",
    "load_checkpoint",
    "load_model",
    "load_transformer",
    "load_weights",
    "model_options",
    "parallel_digest",
    "registered_model",
    "seconds_of_compiling",
    "text_of",
    "tolerate_bad_text",
    "transformer_options",
    "why_not_written",
    "with_new_options",
]


def apply() -> None:
    """Repair the host. Safe to call more than once."""
    if hasattr(checkpoint_utils.load_checkpoint_to_cpu, "__wrapped__"):
        return
    ensemble = checkpoint_utils.load_model_ensemble_and_task
    checkpoint_utils.load_checkpoint_to_cpu = checkpoints.guarded_read(checkpoint_utils.load_checkpoint_to_cpu)
    checkpoint_utils.load_checkpoint = checkpoints.guarded_resume(checkpoint_utils.load_checkpoint)
    checkpoint_utils.load_model_ensemble_and_task = checkpoints.guarded_ensemble(ensemble)
    checkpoint_utils.save_checkpoint = checkpoints.saved_at_every_interval(checkpoint_utils.save_checkpoint)
    checkpoint_utils._torch_persistent_save = torch.save
    checkpoint_utils.torch_persistent_save = checkpoints.written_whole(checkpoint_utils.torch_persistent_save)
    dataclass_utils.merge_with_parent = flags.preset_before_defaults(dataclass_utils.merge_with_parent)
    distributed_utils._broadcast_object_slow = checkpoints.trusting_broadcast(distributed_utils._broadcast_object_slow)
    distributed_utils.call_main = programs.checked_main(distributed_utils.call_main)
    data.know_the_numpy_of_then()
    data_utils._find_extra_valid_paths = data.valid_subsets(data_utils._find_extra_valid_paths)
    ignored = data_utils.raise_if_valid_subsets_unintentionally_ignored
    data_utils.raise_if_valid_subsets_unintentionally_ignored = data.refused_in_one_line(ignored)
    mapped = indexed_dataset.MMapIndexedDataset
    mapped._do_init = data.mappable_when_empty(mapped._do_init)
    scoring.build_scorer = programs.scorer_of_nothing(scoring.build_scorer)
    programs.allow_empty_output()
    programs.check_generate_too()
    programs.check_hydra_train_too()
    programs.let_hydra_pass_on_our_line()
    programs.say_what_is_wrong_with_overrides()
    sys.excepthook = programs.one_line_hook(sys.excepthook)
    atexit.register(end_loading)
