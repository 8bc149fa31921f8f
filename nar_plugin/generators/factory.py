"""From options to a generator: which decode flag means something to which model, and which generator drives it."""

import atexit
import logging
import math
from typing import Any

from ..methods.contract import UsageError
from ..methods.symbols import Symbols
from .candidates import NORMS, Teacher
from .loop import DecodeOptions, RefinementGenerator
from .reference import ReferenceScorer
from .stopping import RULES

logger = logging.getLogger(__name__)

__all__ = ["INFERENCES", "NORMS", "RULES", "build", "warn_of_idle_task_flags"]

HOST_FLAGS: dict[str, Any] = {
    "iter_decode_max_iter": 10,
    "iter_decode_with_beam": 1,
    "iter_decode_force_max_iter": False,
    "iter_decode_with_external_reranker": False,
    "iter_decode_eos_penalty": 0.0,
    "retain_iter_history": False,
    "print_step": False,
    "nbest": 1,
    "lenpen": 1,
    "score_reference": False,
    "sampling": False,
    "sampling_topk": -1,
    "sampling_topp": -1.0,
    "temperature": 1.0,
    "diverse_beam_groups": -1,
    "diversity_rate": -1.0,
    "no_repeat_ngram_size": 0,
    "match_source_len": False,
    "min_len": 1,
    "max_len_a": 0,
    "max_len_b": 200,
    "unkpen": 0,
    "unnormalized": False,
    "prefix_size": 0,
    "constraints": None,
    "print_alignment": None,
    "decoding_format": None,
    "lm_path": None,
    "lm_weight": 0.0,
    "replace_unk": None,
    "retain_dropout": False,
    "retain_dropout_modules": None,
    "diverse_beam_strength": 0.5,
    "no_early_stop": False,
    "eos_token": None,
}
"""fairseq's decode flags and their values when silent (``GenerationConfig``)."""

TASK_FLAGS: dict[str, Any] = {
    "rescore_norm": "mean",
    "stop_rule": None,
    "stop_window": 1,
    "stop_distance": 0.0,
    "max_candidate_tokens": None,
    "gold_target_len": False,
    "collapse_repeats": False,
}
"""Decode flags of the task that the loop understands, and their values when silent."""

MODEL_FLAGS: dict[str, Any] = {
    "decode_samples": 0,
    "decode_sample_noise": None,
    "latent_inference": None,
    "latent_step_size": 1.0,
}
"""Those that only a model understands; they reach it in ``Ask.options``."""

INFERENCES = ("mean", "delta", "score", "energy")
"""How a model refines latents: it names its own in ``inferences``, its default first."""


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def given(args: Any, cfg: Any) -> set[str]:
    """Names of the decode flags that differ from their silent value, in fairseq's options or the task's."""
    spoken = {name for name, silent in HOST_FLAGS.items() if getattr(args, name, silent) != silent}
    if getattr(args, "iter_decode_max_iter", None) == 0:
        spoken.discard("iter_decode_max_iter")  # no refinement is what a one-pass model does anyway
    ours = {**TASK_FLAGS, **MODEL_FLAGS}
    return spoken | {name for name, silent in ours.items() if getattr(cfg, name, silent) != silent}


def refuse_idle_flags(model: Any, name: str, args: Any, cfg: Any) -> None:
    """One line for a flag that this model would ignore. ``--beam`` is so common in recipes that it only warns."""
    idle = sorted(given(args, cfg) - model.decode_flags)
    if idle:
        raise UsageError(f"{', '.join(map(flag, idle))}: no effect on --arch {name}; leave it out")
    if getattr(args, "beam", 5) not in (1, 5):
        logger.warning(f"--beam has no effect on --arch {name}; --iter-decode-with-beam sets the candidates")


def warn_of_idle_task_flags(args: Any, cfg: Any) -> None:
    """An autoregressive model is decoded by fairseq's own generator, which knows none of the task's flags."""
    ours = {
        "retain_iter_history",
        *TASK_FLAGS,
        *MODEL_FLAGS,
        *(name for name in HOST_FLAGS if name.startswith("iter_decode")),
    }
    idle = sorted(given(args, cfg) & ours)
    if getattr(args, "print_step", False):
        raise UsageError("--print-step: an autoregressive --arch makes no refinement steps; leave it out")
    if idle:
        logger.warning(f"{', '.join(map(flag, idle))}: no effect on an autoregressive --arch")


def options_of_model(model: Any, args: Any, cfg: Any) -> dict[str, Any]:
    """The flags that only the model understands, with its own defaults filled in."""
    for name, least in (("decode_samples", 0), ("decode_sample_noise", 0), ("latent_step_size", 0)):
        if not least <= (getattr(cfg, name) or 0) < math.inf:
            raise UsageError(f"{flag(name)} needs {least} or more")
    found = {name: getattr(cfg, name) for name in MODEL_FLAGS if name in model.decode_flags}
    if "decode_sample_noise" in found and found["decode_sample_noise"] is None:
        found["decode_sample_noise"] = model.sample_noise
    if "latent_inference" in found:
        inference = found["latent_inference"] = str(found["latent_inference"] or model.inferences[0])
        if inference not in model.inferences:
            raise UsageError(f"--latent-inference {inference}: this model knows {', '.join(model.inferences)}")
        idle = idle_latent_flags(inference, args, cfg)
        if idle:
            raise UsageError(
                f"{', '.join(map(flag, sorted(idle)))}: no effect on --latent-inference {inference} with so many "
                "steps and samples; leave it out"
            )
    return found


def idle_latent_flags(inference: str, args: Any, cfg: Any) -> set[str]:
    """Flags that a model of latents understands, and that change nothing in this decode."""
    idle = set() if cfg.decode_samples > 1 else {"decode_sample_noise"}
    if inference != "delta":  # nothing is said between the steps, or there are none
        idle |= {"stop_rule", "stop_window", "stop_distance"}
    if inference == "mean":
        idle |= {"iter_decode_max_iter"}
    if inference in ("mean", "delta") or getattr(args, "iter_decode_max_iter", None) == 0:
        idle |= {"latent_step_size"}
    if str(cfg.stop_rule) == "none":
        idle -= {"stop_rule"}
    return idle & given(args, cfg)


def options_of(model: Any, args: Any, cfg: Any) -> DecodeOptions:
    """Raises UsageError where the options contradict each other."""
    limit = cfg.max_candidate_tokens
    if limit is not None and limit < 1:
        raise UsageError(f"--max-candidate-tokens {limit}: it takes 1 or more")
    counts = {"iter_decode_with_beam": int(getattr(args, "iter_decode_with_beam", 1))}
    counts["decode_samples"] = max(1, int(cfg.decode_samples))
    candidates, nbest = math.prod(counts[name] for name in model.candidate_flags), int(getattr(args, "nbest", 1))
    iterations = int(getattr(args, "iter_decode_max_iter", model.silent_iterations))
    if iterations < 0 or candidates < 1:
        raise UsageError("--iter-decode-max-iter needs 0 or more, --iter-decode-with-beam 1 or more")
    if nbest > candidates:
        raise UsageError(
            f"--nbest {nbest} needs {nbest} or more candidates: {' or '.join(map(flag, model.candidate_flags))}"
        )
    if float(getattr(args, "lenpen", 1)) != 1 and cfg.rescore_norm != "lenpen":
        raise UsageError("--lenpen needs --rescore-norm lenpen")
    of_model = options_of_model(model, args, cfg)
    if of_model.get("latent_inference") == "mean":
        iterations = 0
    stop_rule = str(cfg.stop_rule or getattr(model, "default_stop_rule", "none"))
    window, distance = int(cfg.stop_window), float(cfg.stop_distance)
    if window < 1 or not 0 <= distance <= 1:
        raise UsageError("--stop-window needs 1 or more, --stop-distance a number from 0 to 1")
    if stop_rule == "none" and (window, distance) != (1, 0.0):
        raise UsageError("--stop-window and --stop-distance have no effect on --stop-rule none")
    if stop_rule == "oracle" and distance:
        raise UsageError("--stop-distance has no effect on --stop-rule oracle")
    return DecodeOptions(
        iterations=iterations,
        candidates=candidates,
        nbest=nbest,
        norm=str(cfg.rescore_norm),
        lenpen=float(getattr(args, "lenpen", 1)),
        stop_rule="none" if getattr(args, "iter_decode_force_max_iter", False) else stop_rule,
        stop_window=window,
        stop_distance=distance,
        max_candidate_tokens=limit,
        keep_history=bool(getattr(args, "retain_iter_history", False)),
        gold_length=bool(cfg.gold_target_len),
        collapse_repeats=bool(cfg.collapse_repeats),
        seed=int(cfg.seed),
        of_model=of_model,
    )


def split_models(models: list[Any], args: Any) -> tuple[Any, Any]:
    """The decoding model, and the teacher that ``--iter-decode-with-external-reranker`` names last on ``--path``."""
    if not getattr(args, "iter_decode_with_external_reranker", False):
        if len(models) > 1:
            raise UsageError(
                "--path names several models: there are no ensembles here, and a last one that rescores needs "
                "--iter-decode-with-external-reranker"
            )
        return models[0], None
    if len(models) != 2:
        raise UsageError("--iter-decode-with-external-reranker needs --path student.pt:teacher.pt")
    if hasattr(models[1], "generator"):
        raise UsageError("the last checkpoint of --path must be an autoregressive teacher")
    return models[0], models[1]


def build(models: list[Any], args: Any, cfg: Any, symbols: Symbols, is_program: bool) -> Any:
    """The generator of ``models[0]``. ``args``: fairseq's generation options; ``cfg``: the task's.

    ``is_program``: a program decodes, not a validation; its counts are printed when it ends.
    """
    model, teacher = split_models(models, args)
    refuse_idle_flags(model, getattr(model.cfg, "_name", type(model).__name__), args, cfg)
    options = options_of(model, args, cfg)
    if getattr(args, "score_reference", False):
        idle = sorted(given(args, cfg) - {"score_reference", "rescore_norm", "lenpen"})
        if idle:
            raise UsageError(f"{', '.join(map(flag, idle))}: no effect beside --score-reference; leave it out")
        generator: Any = ReferenceScorer(model, symbols, options)
    else:
        generator = GENERATORS[model.generator](model, symbols, options, Teacher(teacher, symbols) if teacher else None)
    if is_program:
        atexit.register(generator.counters.report)
    return generator


GENERATORS = {"refinement": RefinementGenerator}
