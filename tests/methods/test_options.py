"""What may be asked of a decode: that it is said once, held to its bounds, and heeded by whom it is offered to."""

from dataclasses import Field, dataclass, fields, replace
from typing import Any

import pytest
from fairseq.dataclass import ChoiceEnum
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationConfig

from nar_plugin.architectures.blockwise_transformer import BlockwiseTransformerModel
from nar_plugin.architectures.ctc import CtcModel
from nar_plugin.architectures.fertility_nat import FertilityNatModel
from nar_plugin.architectures.iterative_refinement import IterativeRefinementModel
from nar_plugin.architectures.lanmt import LanmtModel
from nar_plugin.architectures.lanmt_continuous import LanmtContinuousModel
from nar_plugin.architectures.lanmt_refiner import EnergyOptions, ScoreOptions
from nar_plugin.architectures.latent_transformer import LatentTransformerModel
from nar_plugin.architectures.mask_predict import MaskPredictModel
from nar_plugin.generators.loop import RefinementGenerator
from nar_plugin.generators.reference import ReferenceScorer
from nar_plugin.methods import options
from nar_plugin.methods.contract import UsageError
from nar_plugin.tasks.translation_nar import TranslationNarConfig
from tests.conftest import CRITERIONS
from tests.tiny import random_rows, sample_of, tiny_model

OF_MODELS: dict[str, type[Any]] = {
    "mask_predict_tiny": MaskPredictModel.decode_options,
    "iterative_refinement_tiny": IterativeRefinementModel.decode_options,
    "latent_transformer_tiny": LanmtModel.decode_options,
    "latent_transformer_tiny (fsq)": LatentTransformerModel.decode_options,
    "lanmt_continuous_tiny": LanmtContinuousModel.decode_options,
    "lanmt_refiner_tiny": ScoreOptions,
    "lanmt_refiner_tiny (energy)": EnergyOptions,
    "ctc_tiny": CtcModel.decode_options,
    "fertility_nat_tiny": FertilityNatModel.decode_options,
    "blockwise_transformer_tiny": BlockwiseTransformerModel.decode_options,
}
"""By preset, the options of every architecture."""

EVERY = options.every_option()
ABOUTS = {name: field.metadata[options.ABOUT] for name, field in EVERY.items()}
MODELS = pytest.mark.parametrize("name", OF_MODELS)


def test_every_architecture_is_here() -> None:
    assert {name.split()[0].removesuffix("_tiny") for name in OF_MODELS} == set(CRITERIONS)


def model_of(name: str) -> Any:
    more: dict[str, Any] = {"refiner": "energy"} if name.endswith("(energy)") else {}
    if name.endswith("(fsq)"):
        more = {"latent": "fsq", "max_update": 100}
    return tiny_model(arch=name.split()[0], **more)


def all_groups() -> list[type[options.Options]]:
    """The groups and the groups that they are made of."""
    kinds = {base for group in options.GROUPS for base in group.__mro__}
    return [kind for kind in kinds if issubclass(kind, options.Options)]


def names_of(kind: type[Any]) -> set[str]:
    return {f.name for f in fields(kind)}


def said(error: pytest.ExceptionInfo[UsageError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- the groups


@pytest.mark.parametrize("name", EVERY)
def test_every_option_is_explained_and_its_default_is_a_value_that_it_takes(name: str) -> None:
    option = EVERY[name]
    about: options.About = option.metadata[options.ABOUT]
    assert about.help and about.help == about.help.strip() and "\n" not in about.help
    for value in (option.default, about.unset):
        if value is not None and about.choices:
            assert value in about.choices
        if value is not None and about.least is not None:
            assert about.least <= value <= about.most
    assert option.default is not None or about.unset is None


def test_groups_that_share_an_option_mean_the_same_by_it() -> None:
    """A flag has one meaning, one default on the command line and one set of bounds, whoever heeds it."""
    found: dict[str, list[Field[Any]]] = {}
    for group in all_groups():
        for f in fields(group):
            found.setdefault(f.name, []).append(f)
    assert set(found) == set(EVERY)
    for name, defined in found.items():
        first = EVERY[name]
        assert all((f.metadata, f.default, f.type) == (first.metadata, first.default, first.type) for f in defined)
    owners = {name: [g for g in all_groups() if name in vars(g).get("__annotations__", {})] for name in EVERY}
    assert {name: len(some) for name, some in owners.items()} == dict.fromkeys(EVERY, 1)


def test_options_that_are_flags_of_fairseqs_own_are_silent_as_fairseq_is() -> None:
    host = {f.name: f.default for f in fields(GenerationConfig)}
    abouts = {name: f.metadata[options.ABOUT] for name, f in EVERY.items()}
    hosted = [about for about in abouts.values() if about.host_flag]
    assert [about.unset for about in hosted] == [host[about.host_flag] for about in hosted]
    assert len({about.host_flag for about in hosted}) == len(hosted) == 17
    assert not {name for name, about in abouts.items() if not about.host_flag} & set(host)


OF_TRAINING_AND_TEXT = {
    *("cpu_autocast", "eval_bleu_tokenize", "allow_other_dictionary"),
    *("warm_start", "warm_start_parts", "word_counts"),
}
OF_THE_HOST = {
    *("seed", "best_checkpoint_metric", "disable_validation", "valid_subsets"),
    *("save_dir", "restore_file", "finetune_from_model"),
}
"""Values of fairseq's other groups that the task reads."""


def test_the_task_has_one_flag_for_each_option_that_fairseq_has_not() -> None:
    ours = {f.name: f for f in fields(TranslationNarConfig)}
    assert len(ours) == len(fields(TranslationNarConfig))
    wanted = {n: f.metadata[options.ABOUT] for n, f in EVERY.items() if not f.metadata[options.ABOUT].host_flag}
    assert set(ours) - names_of(TranslationConfig) == {*wanted, *OF_TRAINING_AND_TEXT, *OF_THE_HOST}
    assert not set(wanted) & names_of(TranslationConfig)
    for name, about in wanted.items():
        assert ours[name].default == about.unset and ours[name].metadata["help"] == about.help
    silent = TranslationNarConfig()
    assert {name: getattr(silent, name) for name in wanted} == {name: about.unset for name, about in wanted.items()}


def test_a_flag_is_named_as_it_is_typed() -> None:
    abouts = options.about_of(options.Refinement)
    assert options.flag_of("iterations", abouts["iterations"]) == "--iter-decode-max-iter"
    assert options.flag_of("stop_rule", options.about_of(options.Stopping)["stop_rule"]) == "--stop-rule"
    assert options.flag_of("max_len_b") == "--max-len-b"


# --- what a model has of its own


def test_a_models_own_default_and_choices_change_nothing_else() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(options.LatentSearch):
        iterations: int = options.own(options.Refinement, "iterations", 7)
        latent_inference: str = options.own(options.LatentSearch, "latent_inference", "mean", ("mean", "score"))

    of_group, of_model = options.about_of(options.LatentSearch), options.about_of(Own)
    changed = replace(of_group["latent_inference"], choices=("mean", "score"))
    assert of_model == {**of_group, "latent_inference": changed}
    assert (Own().iterations, Own().latent_inference) == (7, "mean")
    assert (options.LatentSearch().iterations, options.LatentSearch().latent_inference) == (0, "delta")
    with pytest.raises(UsageError, match="--latent-inference delta: this model knows mean, score"):
        Own(latent_inference="delta")


@MODELS
def test_a_model_has_options_of_the_groups_alone(name: str) -> None:
    kind = OF_MODELS[name]
    for f in fields(kind):
        about, of_group = f.metadata[options.ABOUT], EVERY[f.name].metadata[options.ABOUT]
        assert about == replace(of_group, choices=about.choices) and f.type == EVERY[f.name].type
        assert set(about.choices) <= set(of_group.choices) and bool(about.choices) == bool(of_group.choices)
        # a flag that says something in silence would overrule a default of the model's own; fairseq's cannot help it
        assert f.default == EVERY[f.name].default or about.unset is None or f.name == "iterations"
    assert isinstance(kind(), kind), "the defaults are within the bounds"


UNMASKING = {"unmask", "unmask_threshold"}
LATENT = {"decode_sample_noise", "latent_inference", "latent_step_size"}
STOPPING = {"stop_rule", "stop_window", "stop_distance"}
REFINING = {"iterations", "is_forced", "print_step"}
CODES = {"latent_lengths", "latent_temperature"}
TOGETHER = {"deduplicate", "duplicate_penalty"}
FERTILITIES = {"fertility", "fertility_temperature"}
LIMITS = {"min_len", "max_len_a", "max_len_b", "unkpen", "temperature", "sampling", "sampling_topk", "sampling_topp"}
VERIFYING = {"accept", "accept_top_k", "accept_distance", "min_block", "block_verification"}
OF_DRAFTERS = {"drafter", "draft_length", "redraft"}


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("mask_predict_tiny", STOPPING | LATENT | CODES | {"decode_samples"}),
        ("iterative_refinement_tiny", UNMASKING | LATENT | CODES),
        ("latent_transformer_tiny", UNMASKING | CODES | {"lengths", "latent_step_size"}),
        ("lanmt_continuous_tiny", UNMASKING | CODES | {"latent_step_size"}),
        ("lanmt_refiner_tiny", UNMASKING | CODES),
        ("lanmt_refiner_tiny (energy)", UNMASKING | CODES),
        ("latent_transformer_tiny (fsq)", UNMASKING | LATENT),
        ("fertility_nat_tiny", REFINING | STOPPING | UNMASKING | LATENT | CODES | {"lengths"}),
        (
            "ctc_tiny",
            REFINING | STOPPING | UNMASKING | LATENT | CODES | TOGETHER | {"decode_samples", "gold_target_len"},
        ),
        (
            "blockwise_transformer_tiny",
            (REFINING - {"print_step"})
            | STOPPING
            | UNMASKING
            | LATENT
            | CODES
            | TOGETHER
            | {"decode_samples", "gold_target_len", "lengths", "shortlist"},
        ),
    ],
)
def test_a_model_has_all_options_but_those_that_it_would_ignore(name: str, lacks: set[str]) -> None:
    of_heads = LIMITS | VERIFYING | {"block_size"}
    others = OF_DRAFTERS if name.startswith("blockwise") else OF_DRAFTERS | of_heads
    if not name.startswith("fertility_nat"):
        others = others | FERTILITIES
    assert set(EVERY) - names_of(OF_MODELS[name]) == lacks | others


@MODELS
def test_a_model_names_its_options(name: str) -> None:
    assert model_of(name).decode_options is OF_MODELS[name]


def test_the_ways_of_refining_latents_are_each_models_own() -> None:
    of = {name: options.about_of(kind).get("latent_inference") for name, kind in OF_MODELS.items()}
    ways = {name: set(about.choices) for name, about in of.items() if about is not None}
    assert ways == {
        "latent_transformer_tiny": {"delta", "mean"},
        "lanmt_continuous_tiny": {"delta", "mean"},
        "lanmt_refiner_tiny": {"score", "delta", "mean"},
        "lanmt_refiner_tiny (energy)": {"energy", "delta", "mean"},
    }


# --- who heeds them

NOT_OF_THE_LOOP = {
    "is_rescored": "the factory splits --path by it and hands the loop a teacher",
    "score_reference": "the factory takes another generator by it",
    "print_step": "fairseq prints the steps of each hypothesis",
    "engine": "the task prepares the models by it",
    "shortlist": "the task reads the file and hands the loop a lexicon",
    "ngram": "the task reads the file and hands the loop a judge",
    "ngram_weight": "the loop reads it where there is a judge",
}
UNREAD: dict[str, dict[str, str]] = {
    "blockwise_transformer_tiny": {"nbest": "there is one hypothesis: more are refused"},
    "mask_predict_tiny": {"is_forced": "it has no rule to overrule: all steps are made anyway"},
}
"""Options that no decode reads, with the reason why they are heeded all the same."""


def recording(kind: type[Any], read: set[str]) -> type[Any]:
    """Options of the same fields, of which every one that is read is noted."""

    def note(self: Any, name: str) -> Any:
        read.add(name)
        return object.__getattribute__(self, name)

    return type(f"Recording{kind.__name__}", (kind,), {"__getattribute__": note})


@MODELS
def test_every_option_that_a_model_offers_is_read_in_a_decode(name: str) -> None:
    """A flag that is taken and then not looked at would be ignored in silence."""
    model, kind, read = model_of(name), OF_MODELS[name], set()
    wanted: dict[str, Any] = {"iterations": 2, "lengths": 2, "decode_samples": 2, "nbest": 2, "gold_target_len": True}
    if name.startswith("fertility_nat"):  # what is drawn has no length that is asked for
        wanted |= {"fertility": "sample", "gold_target_len": False}
    if name.startswith("blockwise"):  # one hypothesis
        wanted["nbest"] = 1
    if name.endswith("(fsq)"):  # codes come from a beam or are drawn
        wanted["lengths"] = 1
    given = recording(kind, read)(**{key: value for key, value in wanted.items() if key in names_of(kind)})
    rows = random_rows(3, 5, seed=4)
    read.clear()  # of what the check of bounds has read
    RefinementGenerator(model, model.symbols, given).generate([model], sample_of(rows, rows))
    assert read & names_of(kind) == names_of(kind) - {*NOT_OF_THE_LOOP, *UNREAD.get(name, {})}


@MODELS
def test_scoring_references_reads_what_it_is_said_to_heed(name: str) -> None:
    model, kind, read = model_of(name), OF_MODELS[name], set()
    given, rows = recording(kind, read)(score_reference=True), random_rows(3, 5, seed=4)
    read.clear()
    ReferenceScorer(model, model.symbols, given).generate([model], sample_of(rows, rows))
    assert read & names_of(kind) == {"rescore_norm", "lenpen"}


# --- bounds


def one(name: str, value: Any) -> Any:
    """Options of some model that has this one."""
    every = [*OF_MODELS.values(), options.DraftedSteps]
    kinds = [kind for kind in every if name in names_of(kind)]
    return kinds[-1](**{name: value})


BOUNDS: list[tuple[str, list[Any], list[Any], str]] = [
    ("nbest", [1], [0, -1], "it needs 1 or more"),
    ("max_candidate_tokens", [None, 1, 99], [0, -5], "it needs 1 or more"),
    ("lengths", [1, 9], [0, -1], "it needs 1 or more"),
    ("iterations", [0, 40], [-1], "it needs 0 or more"),
    ("unmask_threshold", [None, 0.0, 0.9], [-0.1], "it needs 0 or more"),
    ("stop_window", [1, 5], [0], "it needs 1 or more"),
    ("stop_distance", [0.0, 0.5, 1.0], [-0.1, 1.01], "it needs a number from 0 to 1"),
    ("decode_samples", [0, 7], [-1], "it needs 0 or more"),
    ("decode_sample_noise", [0.0, 3.5], [-0.5], "it needs 0 or more"),
    ("duplicate_penalty", [None, 0.0, 2.5], [-0.1], "it needs 0 or more"),
    ("latent_lengths", [1, 4], [0], "it needs 1 or more"),
    ("latent_temperature", [0.001, 2.0], [0.0, -1.0], "it needs 0.001 or more"),
    ("ngram_weight", [0.0, 0.3], [-0.1], "it needs 0 or more"),
    ("latent_step_size", [0.0, 0.8], [-1.0], "it needs 0 or more"),
    ("fertility_temperature", [0.001, 2.0], [0.0, -1.0], "it needs 0.001 or more"),
    ("min_len", [0, 3], [-1], "it needs 0 or more"),
    ("max_len_a", [0.0, 1.5], [-0.5], "it needs 0 or more"),
    ("max_len_b", [0, 200], [-1], "it needs 0 or more"),
    ("temperature", [0.001, 2.0], [0.0, -1.0], "it needs 0.001 or more"),
    ("sampling_topk", [-1, 10], [-2], "it needs -1 or more"),
    ("sampling_topp", [-1.0, 0.9], [-2.0, 1.5], "it needs a number from -1 to 1"),
    ("accept_top_k", [1, 3], [0], "it needs 1 or more"),
    ("accept_distance", [0, 2], [-1], "it needs 0 or more"),
    ("min_block", [1, 4], [0], "it needs 1 or more"),
    ("block_size", [0, 8], [-1], "it needs 0 or more"),
    ("draft_length", [1, 8], [0], "it needs 1 or more"),
]
CHOICES = {
    "rescore_norm": options.NORMS,
    "unmask": options.UNMASKINGS,
    "stop_rule": options.STOP_RULES,
    "accept": options.ACCEPTS,
    "fertility": options.FERTILITIES,
}


@pytest.mark.parametrize(("name", "good", "bad", "line"), BOUNDS)
def test_an_option_takes_what_is_within_its_bounds(name: str, good: list[Any], bad: list[Any], line: str) -> None:
    for value in good:
        assert getattr(one(name, value), name) == value
    for value in bad:
        with pytest.raises(UsageError) as error:
            one(name, value)
        flag = options.flag_of(name, ABOUTS[name])
        assert said(error) == f"{flag} {value}: {line}"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_is_finite(value: float) -> None:
    for name, default in vars(ScoreOptions()).items():
        if isinstance(default, float):
            with pytest.raises(UsageError) as error:
                one(name, value)
            assert said(error).endswith(f"{value}: it takes a finite number")


def test_every_option_with_bounds_or_choices_is_tried_here() -> None:
    abouts = ABOUTS
    assert {name for name, _, _, _ in BOUNDS} == {n for n, about in abouts.items() if about.least is not None}
    assert {*CHOICES, "latent_inference", "engine"} == {n for n, about in abouts.items() if about.choices}


@pytest.mark.parametrize("name", CHOICES)
def test_an_option_takes_its_choices_alone(name: str) -> None:
    for value in CHOICES[name]:
        assert getattr(one(name, value), name) == value
    with pytest.raises(UsageError) as error:
        one(name, "never")
    assert said(error) == f"{options.flag_of(name)} never: this model knows {', '.join(CHOICES[name])}"


def test_a_probability_is_at_most_one_and_nats_and_factors_may_be_more() -> None:
    kind = MaskPredictModel.decode_options
    with pytest.raises(UsageError) as error:
        kind(unmask="threshold", unmask_threshold=1.5)
    assert said(error) == "--unmask-threshold 1.5: --unmask threshold needs a number from 0 to 1"
    for rule, value in (("threshold", 1.0), ("entropy", 18.0), ("gap", 1.5)):
        assert kind(unmask=rule, unmask_threshold=value).threshold == value
    assert [kind(unmask=rule).threshold for rule in options.UNMASKINGS] == [0.0, 0.0, 0.9, 2.0, 1.0]


def test_more_hypotheses_than_candidates_are_refused_by_the_flags_that_would_make_more() -> None:
    assert MaskPredictModel.decode_options(nbest=3, lengths=3).nbest == 3
    for kind, flags in (
        (options.Candidates, "there are none"),
        (MaskPredictModel.decode_options, "--iter-decode-with-beam"),
        (LanmtModel.decode_options, "--decode-samples"),
        (CtcModel.decode_options, "--iter-decode-with-beam"),
        (FertilityNatModel.decode_options, "--decode-samples"),
    ):
        with pytest.raises(UsageError) as error:
            kind(nbest=3)
        assert said(error) == f"--nbest 3 needs 3 or more candidates: {flags}"
    with pytest.raises(UsageError) as error:
        ScoreOptions(nbest=7, lengths=2, decode_samples=3)
    assert "--iter-decode-with-beam" in said(error) and "--decode-samples" in said(error)
    assert ScoreOptions(nbest=6, lengths=2, decode_samples=3).nbest == 6


# --- from what was given


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"iterations": 2.7}, "--iter-decode-max-iter 2.7: it takes a number"),
        ({"iterations": float("inf")}, "--iter-decode-max-iter inf: it takes a number"),
        ({"lengths": [2]}, "--iter-decode-with-beam [2]: it takes a number"),
        ({"keep_history": "False"}, "--retain-iter-history False: it takes true or false"),
        ({"max_candidate_tokens": "many"}, "--max-candidate-tokens many: it takes a number"),
    ],
)
def test_a_value_that_would_have_to_be_changed_is_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        options.filled(MaskPredictModel.decode_options, given)
    assert said(error) == line


def test_an_option_without_a_default_has_a_type_too() -> None:
    assert options.filled(MaskPredictModel.decode_options, {"max_candidate_tokens": "9"}).max_candidate_tokens == 9


def test_the_oracle_may_look_at_the_steps_of_a_refiner() -> None:
    """It alone has each of them decoded; where there are no steps it has nothing to look at."""
    for inference, idle in (("score", False), ("mean", True)):
        found = ScoreOptions(latent_inference=inference, stop_rule="oracle", stop_window=3).ineffective()
        assert ("stop_rule" in found, "stop_window" in found) == (idle, idle)
    assert {"stop_rule", "stop_window"} <= ScoreOptions(stop_rule="jaccard", stop_window=3).ineffective().keys()


def test_what_was_said_becomes_of_the_type_of_the_default() -> None:
    given = {"iterations": "3", "stop_distance": 1, "stop_rule": "jaccard", "keep_history": 1, "lengths": 2.0}
    found = options.filled(IterativeRefinementModel.decode_options, given)
    assert found == IterativeRefinementModel.decode_options(
        iterations=3, stop_distance=1.0, stop_rule="jaccard", keep_history=True, lengths=2
    )
    for name in given:
        assert type(getattr(found, name)) is type(EVERY[name].default)
    assert options.filled(options.Candidates, {"max_candidate_tokens": 40}).max_candidate_tokens == 40


def test_a_choice_of_fairseqs_kind_becomes_text() -> None:
    kind = ChoiceEnum(list(options.STOP_RULES))
    found = options.filled(options.Stopping, {"stop_rule": kind("oracle")}).stop_rule
    assert found == "oracle" and type(found) is str


def test_where_nothing_was_said_the_default_of_the_model_holds() -> None:
    for kind in OF_MODELS.values():
        assert options.filled(kind, {}) == options.filled(kind, dict.fromkeys(EVERY)) == kind()
    assert [getattr(kind(), "iterations", 0) for kind in OF_MODELS.values()] == [9, 4, 1, 0, 1, 1, 1, 0, 0, 0]
    assert [getattr(kind(), "stop_rule", "") for kind in OF_MODELS.values()] == ["", *["fixed-point"] * 6, *[""] * 3]
    noises = [getattr(kind(), "decode_sample_noise", 0) for kind in OF_MODELS.values()]
    assert noises == [0, 0, 0.5, 0, 1, 1, 1, 0, 0, 0]


def test_sums_over_alignments_are_compared_as_they_are_and_what_a_teacher_says_by_means() -> None:
    of_alignments, of_words = CtcModel.decode_options(), MaskPredictModel.decode_options()
    assert (of_alignments.norm(), of_alignments.norm(is_teachers=True)) == ("sum", "mean")
    assert (of_words.norm(), of_words.norm(is_teachers=True)) == ("mean", "mean")
    for norm in options.NORMS:
        asked = CtcModel.decode_options(rescore_norm=norm)
        assert asked.norm() == asked.norm(is_teachers=True) == norm


def test_what_other_models_heed_is_left_aside() -> None:
    kind = MaskPredictModel.decode_options
    assert options.filled(kind, {"latent_step_size": 3.0, "stop_rule": "nonsense", "lengths": 2}) == kind(lengths=2)


@pytest.mark.parametrize(
    ("said_of", "line"),
    [
        ({"iterations": "many"}, "--iter-decode-max-iter many: it takes a number"),
        ({"lenpen": "x"}, "--lenpen x: it takes a number"),
        ({"lengths": [1]}, r"--iter-decode-with-beam [1]: it takes a number"),
        ({"iterations": "-2"}, "--iter-decode-max-iter -2: it needs 0 or more"),
        ({"stop_rule": "later"}, "--stop-rule later: this model knows none, fixed-point, jaccard, oracle"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(said_of: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        options.filled(IterativeRefinementModel.decode_options, said_of)
    assert said(error) == line


def test_a_part_is_the_options_themselves_or_the_defaults_of_a_group_that_they_lack() -> None:
    given = MaskPredictModel.decode_options(iterations=3, lengths=2)
    for group in (options.Candidates, options.Lengths, options.GoldLength, options.Refinement, options.Options):
        assert given.part(group) is given
    assert given.part(options.Stopping) == options.Stopping() and given.part(options.Stopping).iterations == 0
    assert given.part(options.Samples).decode_samples == 0
    assert LanmtModel.decode_options(gold_target_len=True).part(options.Lengths) == options.Lengths()


# --- proposals, steps, hypotheses


def test_what_multiplies_makes_the_candidates() -> None:
    given = MaskPredictModel.decode_options(lengths=3, iterations=2)
    assert (given.counts(), given.candidates, given.hypotheses, given.steps) == ({"lengths": 3}, 3, 3, 2)
    latent = LanmtModel.decode_options(decode_samples=4)
    assert (latent.counts(), latent.candidates) == ({"decode_samples": 4}, 4)
    both = ScoreOptions(lengths=2, decode_samples=3)
    assert both.counts() == {"lengths": 2, "decode_samples": 3} and both.candidates == both.hypotheses == 6

    @dataclass(frozen=True, kw_only=True)
    class OtherOrder(options.LatentSearch, options.Lengths):
        pass

    assert OtherOrder(lengths=2, decode_samples=3).counts() == both.counts()
    searched = CtcModel.decode_options(lengths=3, nbest=3)
    assert (searched.counts(), searched.candidates, searched.hypotheses) == ({}, 1, 3)
    nothing = options.Candidates()
    assert (nothing.counts(), nothing.candidates, nothing.hypotheses, nothing.steps) == ({}, 1, 1, 0)


def test_samples_that_are_averaged_are_no_candidates() -> None:
    given = IterativeRefinementModel.decode_options(lengths=2, decode_samples=5)
    assert given.counts() == {"lengths": 2} and given.candidates == 2


def test_no_sample_and_one_sample_are_the_mean_alone() -> None:
    for asked, samples in ((0, 1), (1, 1), (2, 2)):
        given = LanmtModel.decode_options(decode_samples=asked)
        assert given.samples == given.candidates == samples


def test_the_mean_is_not_refined() -> None:
    steps = {way: ScoreOptions(iterations=5, latent_inference=way).steps for way in ("mean", "delta", "score")}
    assert steps == {"mean": 0, "delta": 5, "score": 5}


def test_a_model_of_several_hypotheses_a_pass_may_give_more_than_it_proposes() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Beam(options.Candidates, options.Lengths):
        @property
        def hypotheses(self) -> int:
            return 4 * self.candidates

    assert Beam(nbest=8, lengths=2).nbest == 8
    with pytest.raises(UsageError, match="--nbest 9 needs 9 or more candidates"):
        Beam(nbest=9, lengths=2)


def test_a_rule_is_in_force_unless_all_steps_are_asked_for() -> None:
    assert options.Stopping(stop_rule="jaccard").rule == "jaccard"
    assert options.Stopping(stop_rule="jaccard", is_forced=True).rule == "none"
    assert (options.Stopping().stop_window, options.Stopping().stop_distance) == (1, 0.0), "two passes, nothing new"


# --- what changes nothing beside the others

ITERATIVE = IterativeRefinementModel.decode_options


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        (ITERATIVE(stop_rule="fixed-point"), set()),
        (ITERATIVE(stop_rule="jaccard"), set()),
        (ITERATIVE(stop_rule="none"), {"stop_window", "stop_distance"}),
        (ITERATIVE(stop_rule="oracle"), {"stop_distance"}),
        (MaskPredictModel.decode_options(), {"unmask_threshold"}),
        (MaskPredictModel.decode_options(unmask="cosine"), {"unmask_threshold"}),
        (MaskPredictModel.decode_options(unmask="threshold"), {"is_forced"}),
        (MaskPredictModel.decode_options(unmask="entropy"), {"is_forced"}),
        (MaskPredictModel.decode_options(unmask="gap"), {"is_forced"}),
        (LanmtModel.decode_options(decode_samples=0), {"decode_sample_noise"}),
        (LanmtModel.decode_options(decode_samples=1), {"decode_sample_noise"}),
        (LanmtModel.decode_options(decode_samples=2), set()),
        (LanmtModel.decode_options(decode_samples=2, stop_rule="none"), {"stop_window", "stop_distance"}),
        (LanmtModel.decode_options(decode_samples=2, latent_inference="mean"), {"iterations", *STOPPING}),
        (
            LanmtModel.decode_options(decode_samples=2, latent_inference="mean", stop_rule="none"),
            {"iterations", "stop_window", "stop_distance"},
        ),
        (ScoreOptions(decode_samples=2, latent_inference="score"), STOPPING),
        (ScoreOptions(decode_samples=2, latent_inference="score", stop_rule="none"), STOPPING - {"stop_rule"}),
        (ScoreOptions(decode_samples=2, latent_inference="score", iterations=0), STOPPING | {"latent_step_size"}),
        (ScoreOptions(latent_inference="score"), STOPPING | {"decode_sample_noise"}),
        (ScoreOptions(decode_samples=2, latent_inference="delta"), {"latent_step_size"}),
        (ScoreOptions(decode_samples=2, latent_inference="mean"), STOPPING | {"latent_step_size", "iterations"}),
        (EnergyOptions(decode_samples=2), STOPPING),
        (FertilityNatModel.decode_options(), {"decode_samples", "fertility_temperature"}),
        (FertilityNatModel.decode_options(fertility="sample", decode_samples=2), {"gold_target_len"}),
    ],
)
def test_what_a_decode_does_not_come_to_is_named(given: options.Options, idle: set[str]) -> None:
    assert set(given.ineffective()) == idle | {"lenpen", "ngram_weight", "duplicate_penalty"}
    assert set(given.ineffective()) <= names_of(type(given)) and all(given.ineffective().values())


def test_the_exponent_goes_with_its_norm() -> None:
    for norm in options.NORMS:
        idle = options.Candidates(rescore_norm=norm).ineffective()
        assert idle.pop("ngram_weight") == "without --ngram"
        assert idle == ({} if norm == "lenpen" else {"lenpen": "without --rescore-norm lenpen"})


def test_a_language_model_needs_a_choice() -> None:
    """Among several hypotheses, and by nobody else."""
    kind = MaskPredictModel.decode_options
    assert (
        "ngram" in kind(ngram="lm").ineffective()
        and "ngram" in kind(ngram="lm", lengths=2, is_rescored=True).ineffective()
    )
    assert not {"ngram", "ngram_weight"} & set(kind(ngram="lm", lengths=2).ineffective())
    assert not {"ngram", "ngram_weight"} & set(CtcModel.decode_options(ngram="lm", lengths=2).ineffective())


def test_codes_come_from_a_beam_or_are_drawn() -> None:
    kind = LatentTransformerModel.decode_options
    assert kind(lengths=3, latent_lengths=2).counts() == {"lengths": 3, "decode_samples": 1, "latent_lengths": 2}
    assert kind(decode_samples=4).codes == 4 and kind().codes == kind().candidates == 1
    assert "latent_temperature" in kind(lengths=3).ineffective()
    assert "latent_temperature" not in kind(decode_samples=2).ineffective()
    with pytest.raises(UsageError) as error:
        kind(lengths=2, decode_samples=2)
    assert "--iter-decode-with-beam" in said(error) and "--decode-samples" in said(error)


@MODELS
def test_where_references_are_scored_nothing_but_the_norm_matters(name: str) -> None:
    kind = OF_MODELS[name]
    idle = kind(score_reference=True, rescore_norm="lenpen").ineffective()
    assert set(idle) == names_of(kind) - {"score_reference", "rescore_norm", "lenpen", "engine"}
    assert ("shortlist" in idle) == ("shortlist" in names_of(kind)), "a reference may have any word"
    assert set(idle.values()) == {"beside --score-reference"}
    assert ("lenpen" in kind(score_reference=True).ineffective()) == (kind.own_norm != "lenpen")


def test_the_reason_says_what_to_change() -> None:
    assert ITERATIVE(stop_rule="none").ineffective()["stop_window"] == "on --stop-rule none"
    assert ITERATIVE(stop_rule="oracle").ineffective()["stop_distance"] == "on --stop-rule oracle"
    idle = ScoreOptions(latent_inference="mean").ineffective()
    assert idle["iterations"] == "on --latent-inference mean with so many steps and samples"
