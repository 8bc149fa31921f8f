"""What the host knows of decode flags, of models' presets and of their names."""

import argparse
import functools
from dataclasses import fields
from typing import Any, Callable, Dict

from fairseq import models
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf, open_dict

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


def with_new_options(cfg: Any) -> Any:
    """The options of a model of ours, with the defaults of those that there were not when its checkpoint was saved: the
    host knows none for a model that goes by the name of a preset.
    """
    name = str(cfg.get("_name")) if OmegaConf.is_config(cfg) else ""
    if hasattr(registered_model(name), "decode_options"):
        kind = models.MODEL_DATACLASS_REGISTRY[models.ARCH_MODEL_NAME_REGISTRY.get(name, name)]
        with open_dict(cfg):
            for option in fields(kind):
                if option.name not in cfg.keys():  # the mapping itself would resolve what it holds
                    cfg[option.name] = option.default
    return cfg


def preset_before_defaults(merge: Callable[..., Any]) -> Callable[..., Any]:
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
