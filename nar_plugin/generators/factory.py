"""From options to a generator: what the user asked for, what of it the model heeds, and which generator drives it."""

import logging
import weakref
from typing import Any, Mapping

from ..methods.contract import AnyModel, UsageError
from ..methods.options import (
    ABOUT,
    About,
    DraftedSentences,
    Engine,
    Options,
    Verified,
    about_of,
    every_option,
    filled,
    flag_of,
)
from ..methods.shortlist import Lexicon
from ..methods.symbols import Symbols
from . import speculative
from .candidates import Judge, Teacher
from .loop import RefinementGenerator
from .reference import ReferenceScorer

logger = logging.getLogger(__name__)
NGRAM = speculative.NGRAM

OPTIONS: dict[str, About] = {name: field.metadata[ABOUT] for name, field in every_option().items()}
OF_HOST = {about.host_flag: name for name, about in OPTIONS.items() if about.host_flag}
"""Options that are fairseq's own flags, by the name that fairseq gives them."""


def is_decoding_model(model: Any) -> bool:
    """Whether a model is one of the contract, not one of fairseq's own."""
    return hasattr(model, "decode_options")


def given(args: Any, cfg: Any, host_flags: Mapping[str, Any]) -> dict[str, str]:
    """The decode flags whose value is not their default, by the name of the option: as the user typed them.

    ``args``: fairseq's generation options; ``cfg``: the task's; ``host_flags``: fairseq's decode flags, with the values
    that they have by default. A flag of fairseq's that no option stands for is named by itself.
    """
    found = {}
    for flag, unset in host_flags.items():
        name = OF_HOST.get(flag, flag)
        nothing = OPTIONS[name].nothing if name in OPTIONS else None
        value = getattr(args, flag, unset)
        if value not in (unset, nothing) and str(value) not in (str(unset), str(nothing)):  # JSON has numbers as text
            found[name] = flag_of(flag)
    for name, about in OPTIONS.items():
        if not about.host_flag and getattr(cfg, name, about.unset) != about.unset:
            found[name] = flag_of(name)
    return found


def values(kind: type[Options], args: Any, cfg: Any) -> dict[str, Any]:
    """The user's values for a model's options; None where none is given, so that the model's default holds."""
    abouts = about_of(kind).items()
    return {
        name: getattr(args, about.host_flag, None) if about.host_flag else getattr(cfg, name, None)
        for name, about in abouts
    }


def options_of(model: AnyModel, args: Any, cfg: Any, host_flags: Mapping[str, Any]) -> Options:
    """The model's options as the user gave them.

    Raises UsageError, one line, for a flag that this model would ignore, always or beside the others, and for a value
    that it does not take. ``--beam`` is so common in recipes that it only warns.
    """
    kind, flags = model.decode_options, given(args, cfg, host_flags)
    for name, why in kind.lacking.items():
        refuse(flags, {name}, f"on --arch {model.name}, {why}")
    refuse(flags, set(flags) - set(about_of(kind)), f"on --arch {model.name}")
    if getattr(args, "beam", 5) not in (1, 5):
        if issubclass(kind, Verified):
            raise UsageError(f"--beam {args.beam}: drafts are verified by greedy decoding or sampling; --beam 1")
        logger.warning(f"--beam has no effect on --arch {model.name}; --iter-decode-with-beam sets the candidates")
    options: Options = filled(kind, values(kind, args, cfg))
    idle = options.ineffective()
    for reason in dict.fromkeys(idle.values()):
        refuse(flags, {name for name in idle if idle[name] == reason}, reason)
    return options


def refuse(flags: Mapping[str, str], idle: set[str], reason: str) -> None:
    """Raises UsageError where one of the idle options was given."""
    named = sorted(flags[name] for name in idle & set(flags))
    if named:
        raise UsageError(f"{', '.join(named)}: no effect {reason}; leave it out")


def warn_of_idle_task_flags(args: Any, cfg: Any, host_flags: Mapping[str, Any]) -> None:
    """An autoregressive model is decoded by fairseq's own generator, which knows none of the task's flags."""
    if getattr(args, "print_step", False):
        raise UsageError("--print-step: an autoregressive --arch makes no refinement steps; leave it out")
    if getattr(cfg, "shortlist", None):
        raise UsageError("--shortlist: an autoregressive --arch may give every word; leave it out")
    flags = given(args, cfg, host_flags)
    ours = {"keep_history", *(name for name, about in OPTIONS.items() if not about.host_flag)} - set(about_of(Engine))
    ours |= {name for flag, name in OF_HOST.items() if flag.startswith("iter_decode")}
    ours |= {flag for flag in host_flags if flag.startswith("iter_decode")}
    idle = sorted(flags[name] for name in ours & set(flags))
    if idle:
        logger.warning(f"{', '.join(idle)}: no effect on an autoregressive --arch")


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
    if is_decoding_model(models[1]):
        raise UsageError("the last checkpoint of --path must be an autoregressive teacher")
    return models[0], models[1]


def drafted(
    verifier: Any,
    drafter: Any,
    args: Any,
    cfg: Any,
    symbols: Symbols,
    *,
    name: str,
    is_joint: bool,
) -> AnyModel:
    """The decoding model that ``--drafter`` makes of a verifier (``compat.CachedTransformer``).

    ``drafter``: a decoding model, which writes sentences; a small autoregressive model, as the verifier is one; or
    None: n-grams. ``name``: what messages call the verifier. ``is_joint``: source and target have one dictionary.
    """
    if drafter is None:
        return speculative.by_ngrams(name, verifier, symbols, is_joint=is_joint)
    if not is_decoding_model(drafter):
        return speculative.by_steps(name, verifier, drafter, symbols)
    is_shared = hasattr(drafter, "shares_encoder") and drafter.shares_encoder(verifier.model)
    if is_shared:
        logger.info("--drafter: its encoder is the verifier's, whose states serve both")
    options = filled(DraftedSentences, values(DraftedSentences, args, cfg))
    return speculative.by_sentences(name, verifier, drafter, symbols, options, is_shared=is_shared)


def build(
    models: list[Any],
    args: Any,
    cfg: Any,
    symbols: Symbols,
    *,
    host_flags: Mapping[str, Any],
    is_program: bool,
    lexicon: Lexicon | None = None,
    judge: Judge | None = None,
) -> Any:
    """The generator of ``models[0]``. ``args``: fairseq's generation options; ``cfg``: the task's; ``host_flags``: as
    in ``given``; ``lexicon``: that of ``--shortlist``; ``judge``: that of ``--ngram``.

    ``is_program``: a program decodes, not a validation; its counts are printed when it ends.
    """
    model, teacher = split_models(models, args)
    options = options_of(model, args, cfg, host_flags)
    if getattr(args, "score_reference", False):
        generator: Any = ReferenceScorer(model, symbols, options)
    else:
        rescorer = Teacher(teacher, symbols) if teacher else None
        generator = RefinementGenerator(model, symbols, options, int(cfg.seed), rescorer, lexicon, judge)
    if is_program:  # when it ends, or when nobody holds the generator any more
        weakref.finalize(generator, generator.counters.report)
    return generator
