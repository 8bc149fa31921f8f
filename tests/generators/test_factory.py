"""Which flag means something to which model, and what the others are told."""

import logging
from argparse import Namespace
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig

from nar_plugin import compat
from nar_plugin.generators import factory
from nar_plugin.generators.candidates import Teacher
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from nar_plugin.methods import options
from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks.translation_nar import TranslationNarConfig
from tests.generators import stubs
from tests.generators.stubs import SettlingStub, StubOptions
from tests.tiny import SYMBOLS, random_rows, sample_of, texts, tiny_model

SOURCES = random_rows(9, 6, seed=71)
HOST_FLAGS = compat.decode_flags()
OUR_FLAGS = {name: about.unset for name, about in factory.OPTIONS.items() if not about.host_flag}
FLAGS = {**HOST_FLAGS, **OUR_FLAGS}
OTHER_VALUES = {
    "constraints": "ordered",
    "print_alignment": "hard",
    "decoding_format": "ensemble",
    "lm_path": "lm.pt",
    "rescore_norm": "sum",
    "stop_rule": "fixed-point",
    "unmask": "cosine",
    "unmask_threshold": 0.5,
    "max_candidate_tokens": 100,
    "duplicate_penalty": 1.5,
    "decode_sample_noise": 0.25,
    "latent_inference": "mean",
    "engine": "bf16",
    "shortlist": "words.txt",
    "accept": "top-k",
}


def other(name: str) -> Any:
    """A value of the flag that differs from silence."""
    unset = FLAGS[name]
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(unset, bool):
        return not unset
    return unset + 3 if isinstance(unset, (int, float)) else "given"


def task_options(**changes: Any) -> Namespace:
    return Namespace(**{**OUR_FLAGS, "seed": 1, **changes})


def spoken(name: str) -> tuple[Namespace, Namespace]:
    """fairseq's options and the task's, with one flag given."""
    if name in OUR_FLAGS:
        return Namespace(), task_options(**{name: other(name)})
    return Namespace(**{name: other(name)}), task_options()


def build(model: Any, *more: Any, cfg: Any = None, **args: Any) -> Any:
    return built([model, *more], Namespace(**args), cfg or task_options())


def built(models: list[Any], args: Any, cfg: Any, is_program: bool = False) -> Any:
    return factory.build(models, args, cfg, SYMBOLS, host_flags=HOST_FLAGS, is_program=is_program)


def heeded(model: Any) -> set[str]:
    """The flags that a model heeds, as fairseq or the task names them."""
    return {about.host_flag or name for name, about in options.about_of(model.decode_options).items()}


IDLE_FOR_MASK_PREDICT = sorted(set(FLAGS) - heeded(tiny_model()))


@pytest.mark.parametrize("name", IDLE_FOR_MASK_PREDICT)
def test_a_flag_that_means_nothing_is_refused_by_name_in_one_line(name: str) -> None:
    args, cfg = spoken(name)
    with pytest.raises(UsageError) as raised:
        built([tiny_model()], args, cfg)
    line = str(raised.value)
    assert options.flag_of(name) in line and "--arch mask_predict_tiny" in line and "\n" not in line


def test_flags_that_mean_nothing_are_named_together() -> None:
    with pytest.raises(UsageError, match="--min-len, --sampling, --stop-rule: no effect"):
        build(tiny_model(), cfg=task_options(stop_rule="fixed-point"), sampling=True, min_len=4)


@pytest.mark.parametrize(
    "name",
    sorted(
        heeded(tiny_model())
        - {"nbest", "lenpen", "unmask_threshold", "ngram", "ngram_weight", "deduplicate", "duplicate_penalty"}
    ),
)
def test_a_flag_that_the_model_heeds_is_taken(name: str) -> None:
    args, cfg = spoken(name)
    more = [object()] if name == "iter_decode_with_external_reranker" else []
    assert built([tiny_model(), *more], args, cfg) is not None


def test_mask_predict_heeds_these_flags_and_no_others() -> None:
    of_candidates = {"iter_decode_with_beam", "iter_decode_with_external_reranker", "nbest", "lenpen", "rescore_norm"}
    of_passes = {"iter_decode_max_iter", "iter_decode_force_max_iter", "retain_iter_history", "print_step"}
    of_masks = {"unmask", "unmask_threshold"}
    others = {"max_candidate_tokens", "gold_target_len", "collapse_repeats", "score_reference"}
    files, of_words = {"engine", "shortlist", "ngram", "ngram_weight"}, {"deduplicate", "duplicate_penalty"}
    assert heeded(tiny_model()) == of_candidates | of_passes | of_masks | others | files | of_words


def test_every_flag_that_a_model_heeds_is_known() -> None:
    assert heeded(tiny_model()) <= set(FLAGS)


def test_unset_values_are_fairseqs_own() -> None:
    """Else a flag would count as given when it is not, or the other way round."""
    defaults = {field.name: field.default for field in fields(GenerationConfig)}
    of_host = {about.host_flag: about.unset for about in factory.OPTIONS.values() if about.host_flag}
    assert {name: defaults[name] for name in of_host} == of_host


def test_unset_values_of_the_task_are_its_own() -> None:
    defaults = {field.name: field.default for field in fields(TranslationNarConfig)}
    assert {name: defaults[name] for name in OUR_FLAGS} == OUR_FLAGS


def test_every_decode_option_of_fairseq_is_heeded_refused_or_of_no_concern() -> None:
    """One that is in no list would be ignored without a word."""
    assert {field.name for field in fields(GenerationConfig)} == set(HOST_FLAGS) | compat.flags.NO_DECODE_FLAGS
    assert not set(HOST_FLAGS) & compat.flags.NO_DECODE_FLAGS


def test_everything_unset_is_taken() -> None:
    args = Namespace(**{field.name: field.default for field in fields(GenerationConfig)})
    generator = built([tiny_model()], args, task_options())
    assert isinstance(generator, RefinementGenerator) and generator.options.steps == 10


def test_a_validation_that_says_nothing_gets_the_models_own_iterations() -> None:
    model = tiny_model()
    assert build(model).options == model.decode_options() and model.decode_options().iterations == 9


def test_options_reach_the_generator() -> None:
    cfg = task_options(
        rescore_norm="lenpen", max_candidate_tokens=99, gold_target_len=True, collapse_repeats=True, seed=7
    )
    args = {
        "iter_decode_max_iter": 4,
        "iter_decode_with_beam": 6,
        "nbest": 3,
        "lenpen": 0.5,
        "retain_iter_history": True,
    }
    generator = build(tiny_model(), cfg=cfg, **args)
    assert generator.seed == 7 and generator.options == tiny_model().decode_options(
        iterations=4,
        lengths=6,
        nbest=3,
        rescore_norm="lenpen",
        lenpen=0.5,
        max_candidate_tokens=99,
        keep_history=True,
        gold_target_len=True,
        collapse_repeats=True,
    )


@pytest.mark.parametrize(
    ("args", "cfg", "message"),
    [
        ({"nbest": 3, "iter_decode_with_beam": 2}, {}, "--nbest 3 needs 3 or more candidates: --iter-decode-with-beam"),
        ({"iter_decode_max_iter": -1}, {}, "--iter-decode-max-iter .*needs 0 or more"),
        ({"iter_decode_with_beam": 0}, {}, "--iter-decode-with-beam .*needs 1 or more"),
        ({"iter_decode_with_beam": "many"}, {}, "--iter-decode-with-beam many: it takes a number"),
        ({}, {"max_candidate_tokens": 0}, "--max-candidate-tokens .*needs 1 or more"),
        ({"lenpen": 0.6}, {}, "--lenpen: no effect without --rescore-norm lenpen"),
        ({"lenpen": 0.6}, {"rescore_norm": "sum"}, "--lenpen: no effect without --rescore-norm lenpen"),
        ({}, {"unmask_threshold": 0.5}, "^--unmask-threshold: no effect on --unmask linear; leave it out$"),
        ({}, {"unmask": "cosine", "unmask_threshold": 0.5}, "--unmask-threshold: no effect on --unmask cosine"),
        ({}, {"unmask": "threshold", "unmask_threshold": 2.0}, "--unmask-threshold 2.0: .* from 0 to 1$"),
        ({}, {"unmask": "sine"}, "--unmask sine: this model knows linear, cosine, threshold, entropy, gap"),
        (
            {"iter_decode_force_max_iter": True},
            {"unmask": "gap"},
            "--iter-decode-force-max-iter: no effect on --unmask gap",
        ),
        ({"score_reference": True}, {"unmask": "gap"}, "--unmask: no effect beside --score-reference"),
        ({}, {"deduplicate": True}, "^--deduplicate: one pass alone .*--iter-decode-max-iter 0"),
        ({"iter_decode_max_iter": 0}, {"duplicate_penalty": 1.0}, "--duplicate-penalty: .* without --deduplicate"),
        (
            {"iter_decode_max_iter": 0, "score_reference": True},
            {"deduplicate": True},
            "--deduplicate: no effect beside --score-reference",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    args: dict[str, Any], cfg: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        build(tiny_model(), cfg=task_options(**cfg), **args)
    assert "\n" not in str(raised.value)


def test_alignments_may_say_a_word_twice_which_is_why_they_are_not_deduplicated() -> None:
    """ODD-7: the line says why."""
    with pytest.raises(UsageError) as raised:
        build(tiny_model(arch="ctc_tiny"), cfg=task_options(deduplicate=True))
    line = "--deduplicate: no effect on --arch ctc_tiny, on whose canvas equal neighbours are one word; leave it out"
    assert str(raised.value) == line
    with pytest.raises(UsageError, match="--deduplicate: no effect on --arch blockwise_transformer_tiny; leave it out"):
        build(tiny_model(arch="blockwise_transformer_tiny"), cfg=task_options(deduplicate=True))


LATENT = {name: tiny_model(arch=f"{name}_tiny") for name in ("latent_transformer", "lanmt_continuous", "lanmt_refiner")}


@pytest.mark.parametrize(
    ("name", "args", "cfg", "message"),
    [
        ("latent_transformer", {}, {"latent_inference": "score"}, "--latent-inference score: .* delta, mean"),
        ("lanmt_refiner", {}, {"latent_inference": "energy"}, "--latent-inference energy: .* score, delta, mean"),
        ("lanmt_refiner", {}, {"stop_window": 3}, "--stop-window: no effect on --latent-inference score"),
        ("lanmt_refiner", {}, {"stop_rule": "jaccard"}, "--stop-rule: no effect on --latent-inference score"),
        (
            "lanmt_refiner",
            {},
            {"stop_distance": 0.5, "latent_inference": "mean"},
            "--stop-distance: no effect on .* mean",
        ),
        (
            "lanmt_continuous",
            {"iter_decode_max_iter": 7},
            {"latent_inference": "mean"},
            "--iter-decode-max-iter: no effect",
        ),
        ("lanmt_refiner", {"iter_decode_max_iter": 0}, {"latent_step_size": 0.5}, "--latent-step-size: no effect"),
        ("lanmt_continuous", {}, {"decode_sample_noise": 0.5}, "--decode-sample-noise: no effect"),
        ("lanmt_refiner", {}, {"latent_step_size": float("nan")}, "--latent-step-size nan: it takes a finite"),
        ("lanmt_refiner", {}, {"latent_step_size": -1.0}, "--latent-step-size .*needs 0 or more"),
        (
            "lanmt_continuous",
            {},
            {"decode_samples": 3, "decode_sample_noise": float("inf")},
            "--decode-sample-noise inf: it takes a finite number",
        ),
        (
            *("lanmt_refiner", {}, {"latent_inference": "delta", "latent_step_size": 0.5}),
            "--latent-step-size: no effect on --latent-inference delta",
        ),
        ("lanmt_continuous", {}, {"latent_step_size": 0.5}, "--latent-step-size: no effect"),
        ("latent_transformer", {"iter_decode_with_beam": 3}, {}, "--iter-decode-with-beam: no effect"),
        ("latent_transformer", {}, {"decode_samples": -1}, "--decode-samples .*needs 0"),
        ("latent_transformer", {"nbest": 3}, {"decode_samples": 2}, "3 or more candidates: --decode-samples"),
        ("lanmt_continuous", {"nbest": 7, "iter_decode_with_beam": 2}, {"decode_samples": 3}, "7 or more candidates"),
    ],
)
def test_flags_of_latents_that_cannot_work_are_refused(
    name: str, args: dict[str, Any], cfg: dict[str, Any], message: str
) -> None:
    """LANMT-33: in one line."""
    with pytest.raises(UsageError, match=message) as raised:
        build(LATENT[name], cfg=task_options(**cfg), **args)
    assert "\n" not in str(raised.value)


def test_unset_flags_of_latents_are_the_models_own() -> None:
    """The spread of a search, how latents are refined, and how often a validation does it."""
    for name, noise, inference in (
        ("latent_transformer", 0.5, "delta"),
        ("lanmt_continuous", 1.0, "delta"),
        ("lanmt_refiner", 1.0, "score"),
    ):
        found = build(LATENT[name]).options
        assert (found.decode_sample_noise, found.latent_inference) == (noise, inference)
        assert (found.steps, found.rule, found.candidates) == (1, "fixed-point", 1)


def test_candidates_of_latents_are_lengths_times_samples() -> None:
    cfg = task_options(decode_samples=3)
    assert build(LATENT["lanmt_continuous"], cfg=cfg, iter_decode_with_beam=2).options.candidates == 6
    assert build(LATENT["latent_transformer"], cfg=cfg).options.candidates == 3


def test_the_prior_s_mean_is_not_refined() -> None:
    cfg = task_options(latent_inference="mean")
    assert build(LATENT["lanmt_refiner"], cfg=cfg, iter_decode_max_iter=10).options.steps == 0


def test_several_models_are_no_ensemble() -> None:
    with pytest.raises(UsageError, match="--path names several models"):
        build(tiny_model(), tiny_model())


def test_a_teacher_is_the_last_of_two_checkpoints_and_no_parallel_model() -> None:
    reranked = {"iter_decode_with_external_reranker": True}
    for more in ([], [object(), object()]):
        with pytest.raises(UsageError, match="needs --path student.pt:teacher.pt"):
            build(tiny_model(), *more, **reranked)
    with pytest.raises(UsageError, match="must be an autoregressive teacher"):
        build(tiny_model(), tiny_model(), **reranked)
    teacher = object()
    generator = build(tiny_model(), teacher, **reranked)
    assert isinstance(generator.teacher, Teacher) and generator.teacher.model is teacher
    assert build(tiny_model()).teacher is None


def test_score_reference_decodes_nothing() -> None:
    assert isinstance(build(tiny_model(), score_reference=True), ReferenceScorer)


@torch.no_grad()
def test_force_max_iter_switches_the_stop_rule_off() -> None:
    """Both decode the same text; forced, every row makes all the passes."""
    cfg, sample = task_options(stop_rule="fixed-point"), sample_of(SOURCES)
    free = build(SettlingStub(), cfg=cfg, iter_decode_max_iter=25).generate([], sample)
    forced = build(SettlingStub(), cfg=cfg, iter_decode_max_iter=25, iter_decode_force_max_iter=True).generate(
        [], sample
    )
    assert texts(free) == texts(forced)
    assert {group[0]["steps"] for group in forced} == {25}
    assert [group[0]["steps"] for group in free] == [stubs.settles_after(source) + 1 for source in SOURCES]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stop_rule": "jaccard", "stop_window": 0}, "--stop-window .*needs 1"),
        ({"stop_rule": "jaccard", "stop_distance": 1.5}, "--stop-distance .*needs a number from 0 to 1"),
        ({"stop_rule": "oracle", "stop_distance": 0.5}, "--stop-distance: no effect on --stop-rule oracle"),
        ({"decode_samples": -1}, "--decode-samples .*needs 0 or more"),
        ({"stop_window": 5}, "no effect on --stop-rule none"),
        ({"stop_distance": 0.1}, "no effect on --stop-rule none"),
    ],
)
def test_a_window_or_distance_that_cannot_work_is_refused(given: dict[str, Any], words: str) -> None:
    stub = SettlingStub()
    stub.decode_options = DrawingOptions
    with pytest.raises(UsageError, match=words):
        build(stub, cfg=task_options(**given))


def test_window_and_distance_reach_the_loop() -> None:
    stub, sources = SettlingStub(), sample_of(SOURCES)
    cfg = task_options(stop_rule="jaccard", stop_window=4)
    hypotheses = build(stub, cfg=cfg, iter_decode_max_iter=30).generate([], sources)
    steps = [stubs.settles_after(source) + 3 for source in SOURCES]
    assert [group[0]["steps"] for group in hypotheses] == steps
    loose = task_options(stop_rule="fixed-point", stop_distance=1.0)
    hypotheses = build(stub, cfg=loose, iter_decode_max_iter=30).generate([], sources)
    assert {group[0]["steps"] for group in hypotheses} == {1}


def test_an_architecture_may_have_a_stop_rule_of_its_own() -> None:
    stub = SettlingStub()
    assert build(stub).options.rule == "none"
    stub.decode_options = SettlingOptions
    assert build(stub).options.rule == "fixed-point"
    assert build(stub, cfg=task_options(stop_rule="none")).options.rule == "none"
    assert build(stub, iter_decode_force_max_iter=True).options.rule == "none"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_beam_only_warns_and_says_what_to_use(caplog: pytest.LogCaptureFixture) -> None:
    for beam in (1, 5):
        build(tiny_model(), beam=beam)
    assert not warnings_of(caplog)
    build(tiny_model(), beam=4)
    (line,) = warnings_of(caplog)
    assert "--beam" in line and "--iter-decode-with-beam" in line


def test_an_autoregressive_model_is_warned_of_flags_that_it_ignores(caplog: pytest.LogCaptureFixture) -> None:
    factory.warn_of_idle_task_flags(Namespace(nbest=4), task_options(), HOST_FLAGS)
    assert not warnings_of(caplog)
    factory.warn_of_idle_task_flags(Namespace(iter_decode_with_beam=4), task_options(collapse_repeats=True), HOST_FLAGS)
    (line,) = warnings_of(caplog)
    assert "--collapse-repeats, --iter-decode-with-beam" in line


def test_a_program_prints_its_counts_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(factory.weakref, "finalize", lambda generator, report: registered.append(report))
    build(tiny_model())
    assert not registered
    generator = built([tiny_model()], Namespace(), task_options(), is_program=True)
    assert registered == [generator.counters.report]


@pytest.mark.parametrize("value", [1, 1.0, "1"])
def test_a_default_in_another_form_is_not_given(value: Any) -> None:
    """The command line has --lenpen as a float, --eval-bleu-args may have it as a text, fairseq's default is an int."""
    assert not factory.given(Namespace(lenpen=value), Namespace(), HOST_FLAGS)


def test_no_refinement_is_no_idle_flag_of_a_one_pass_model() -> None:
    assert not factory.given(Namespace(iter_decode_max_iter=0), Namespace(), HOST_FLAGS)
    spoken = factory.given(Namespace(iter_decode_max_iter=1), Namespace(), HOST_FLAGS)
    assert spoken == {"iterations": "--iter-decode-max-iter"}
    stub = SettlingStub()
    stub.decode_options = options.Candidates
    assert build(stub, iter_decode_max_iter=0).options.steps == build(stub, iter_decode_max_iter=10).options.steps == 0
    with pytest.raises(UsageError, match="--iter-decode-max-iter: no effect on --arch stub"):
        build(stub, iter_decode_max_iter=1)


@dataclass(frozen=True, kw_only=True)
class DrawingOptions(StubOptions, options.Samples):
    """Those of a model that draws samples."""


@dataclass(frozen=True, kw_only=True)
class SettlingOptions(StubOptions):
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")


def test_an_option_of_a_model_reaches_it() -> None:
    stub, cfg = stubs.LatentStub(), task_options(decode_samples=3)
    with pytest.raises(UsageError, match="--decode-samples: no effect on --arch stub"):
        build(stub, cfg=cfg)
    stub.decode_options = DrawingOptions
    asked = []
    propose = stub.propose
    stub.propose = lambda encoded, request: asked.append(request) or propose(encoded, request)
    build(stub, cfg=cfg).generate([stub], sample_of([[5, 6]]))
    assert asked[0].options == DrawingOptions(decode_samples=3)


def test_a_list_of_words_is_refused_where_it_narrows_nothing() -> None:
    """Models that do not predict by it, and fairseq's own, would ignore it without a word."""
    cfg = task_options(shortlist="words.txt")
    with pytest.raises(UsageError, match="--shortlist: no effect on --arch stub; leave it out"):
        build(SettlingStub(), cfg=cfg)
    with pytest.raises(UsageError, match="--shortlist: an autoregressive --arch may give every word"):
        factory.warn_of_idle_task_flags(Namespace(), cfg, HOST_FLAGS)
