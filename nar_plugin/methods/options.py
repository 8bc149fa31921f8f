"""What may be asked of a decode: every option once, with its default, meaning, bounds and the options it goes with.

Options stand in groups by purpose. A model combines the groups that it heeds in a class of its own, where ``own`` gives
a default or choices that differ, and names that class in ``decode_options``. The task's flags are made from the groups
here, ``generators.factory`` fills in what the user gave and refuses what a model does not name, and the model is handed
an instance. A new flag is one field of a group.

A field whose ``host_flag`` is set is one of fairseq's own flags; all others are flags of the task, named as the field.
"""

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Mapping, TypeVar, get_args

from .usage import UsageError

ABOUT = "option"
NORMS = ("mean", "sum", "lenpen")
STOP_RULES = ("none", "fixed-point", "jaccard", "oracle")
INFERENCES = ("mean", "delta", "score", "energy")
UNMASKINGS = ("linear", "cosine", "threshold", "entropy", "gap")
UNMASK_THRESHOLDS = {"threshold": 0.9, "entropy": 2.0, "gap": 1.0}
"""By the rules that have one, what holds where none is given."""
ENGINES = ("eager", "int8", "bf16", "compiled")
ACCEPTS = ("exact", "top-k", "distance")
FERTILITIES = ("argmax", "average", "sample", "search")

T = TypeVar("T", bound="Options")


@dataclass(frozen=True)
class About:
    """What is to be known of an option.

    ``unset``: what the flag holds when nobody gave it; None: then the default of the model holds. ``nothing``: a value
    that asks for nothing and so is never refused. ``choices``, ``least``, ``most``: the values that it takes.
    """

    help: str
    unset: Any
    host_flag: str = ""
    nothing: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float = math.inf


_AS_DEFAULT: Any = object()


def option(default: Any, help: str, *, unset: Any = _AS_DEFAULT, **about: Any) -> Any:
    """A field of a group of options; ``about`` as in ``About``."""
    given = About(help, default if unset is _AS_DEFAULT else unset, **about)
    return field(default=default, metadata={ABOUT: given})


def own(group: "type[Options]", name: str, default: Any, choices: tuple[str, ...] | None = None) -> Any:
    """The group's field ``name`` with the default, and maybe the choices, of one model."""
    about = about_of(group)[name]
    if choices is not None:
        about = About(**{**vars(about), "choices": choices})
    return field(default=default, metadata={ABOUT: about})


def about_of(group: "type[Options]") -> dict[str, About]:
    """The options of a group or of a model, by name."""
    return {f.name: f.metadata[ABOUT] for f in fields(group)}


def flag_of(name: str, about: About | None = None) -> str:
    """As the user types it: ``--iter-decode-max-iter`` for ``iterations``."""
    return "--" + ((about.host_flag if about else "") or name).replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The base of all groups. Raises UsageError for a value out of its bounds."""

    def __post_init__(self) -> None:
        for f in fields(self):
            _check(f, getattr(self, f.name))

    def counts(self) -> dict[str, int]:
        """By option, how many proposals a sentence it asks for; they multiply."""
        return {}

    lacking: ClassVar[Mapping[str, str]] = {}
    """Why a model has no use for an option that others have, where that is to be said."""

    @property
    def candidates(self) -> int:
        """Proposals a sentence."""
        return math.prod(self.counts().values())

    def searches(self) -> dict[str, int]:
        """By option, how many hypotheses a proposal is asked for, where one pass gives several; they multiply."""
        return {}

    @property
    def hypotheses(self) -> int:
        """The most hypotheses that a sentence gets; more than ``candidates`` where one pass gives several."""
        return self.candidates * math.prod(self.searches().values())

    @property
    def steps(self) -> int:
        """Refinement steps that are asked for."""
        return 0

    def ineffective(self) -> dict[str, str]:
        """Options that change nothing beside the others, each with the reason: «on --stop-rule none»."""
        return {}

    def part(self, group: type[T]) -> T:
        """These options as those of a group; its defaults where the model heeds none of it."""
        return self if isinstance(self, group) else group()


def _check(f: Field[Any], value: Any) -> None:
    about: About = f.metadata[ABOUT]
    flag = flag_of(f.name, about)
    if about.choices and value is not None and value not in about.choices:
        raise UsageError(f"{flag} {value}: this model knows {', '.join(about.choices)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{flag} {value}: it takes a finite number")
    if about.least is None or value is None or about.least <= value <= about.most:
        return
    if about.most == math.inf:
        raise UsageError(f"{flag} {value}: it needs {about.least} or more")
    raise UsageError(f"{flag} {value}: it needs a number from {about.least} to {about.most}")


@dataclass(frozen=True, kw_only=True)
class Engine(Options):
    """How the networks are computed: for every model, fairseq's own too, and the teacher that rescores."""

    engine: str = option(
        "eager",
        "int8: linear maps in whole numbers, a scale a token (CPU); bf16: all in bfloat16; compiled: torch.compile, "
        "on a GPU CUDA graphs",
        choices=ENGINES,
    )


@dataclass(frozen=True, kw_only=True)
class Candidates(Engine):
    """How hypotheses of a sentence are compared, and what is kept and written of them: heeded by every model."""

    nbest: int = option(1, "so many of a sentence's hypotheses, the best first", host_flag="nbest", least=1)
    rescore_norm: str | None = option(
        None,
        "how candidates' summed log-probabilities are made comparable (default: mean; of a sum over alignments sum)",
        choices=NORMS,
    )
    lenpen: float = option(1.0, "the exponent of --rescore-norm lenpen", host_flag="lenpen")
    is_rescored: bool = option(
        False, "a teacher, the last of --path, chooses", host_flag="iter_decode_with_external_reranker"
    )
    score_reference: bool = option(False, "score the references, decode nothing", host_flag="score_reference")
    max_candidate_tokens: int | None = option(
        None, "decode at most so many candidate tokens at a time; changes memory, no result", least=1
    )
    collapse_repeats: bool = option(False, "drop words equal to the word before, once chosen")
    ngram: str | None = option(
        None, "file of a language model, ARPA or of kenlm, whose log-probability is added to a hypothesis's own"
    )
    ngram_weight: float = option(0.3, "so many times", least=0)
    own_norm: ClassVar[str] = "mean"
    """The norm of the model's own log-probabilities where none is given; a teacher's are always a mean then."""

    def norm(self, *, is_teachers: bool = False) -> str:
        """By which log-probabilities are made comparable."""
        return self.rescore_norm or ("mean" if is_teachers else self.own_norm)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nbest > self.hypotheses:
            abouts = about_of(type(self))
            flags = " or ".join(flag_of(name, abouts[name]) for name in {**self.counts(), **self.searches()})
            raise UsageError(f"--nbest {self.nbest} needs {self.nbest} or more candidates: {flags or 'there are none'}")

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective() | self.idle_of_ngrams()
        if self.score_reference:
            heeded = ("score_reference", "rescore_norm", "lenpen", *about_of(Engine))
            found |= {name: "beside --score-reference" for name in about_of(type(self)) if name not in heeded}
        if self.norm() != "lenpen":
            found["lenpen"] = "without --rescore-norm lenpen"
        return found

    def idle_of_ngrams(self) -> dict[str, str]:
        """What a language model does not come to."""
        if self.ngram is None:
            return {"ngram_weight": "without --ngram"}
        if self.is_rescored:
            return {"ngram": "beside --iter-decode-with-external-reranker"}
        return {"ngram": "with one hypothesis, among which there is no choice"} if self.hypotheses == 1 else {}


@dataclass(frozen=True, kw_only=True)
class GoldLength(Options):
    """For models that may be told a target's length."""

    gold_target_len: bool = option(False, "decode with the reference's length, or a window of candidates around it")


@dataclass(frozen=True, kw_only=True)
class Beam(Options):
    """For models that try several of something at once."""

    lengths: int = option(
        1,
        "lengths that are tried, or hypotheses of a prefix beam search (ctc)",
        host_flag="iter_decode_with_beam",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class PrefixBeam(Beam):
    """For models that search among the alignments of one pass; 1: the most probable alignment, without a search."""

    def searches(self) -> dict[str, int]:
        return {**super().searches(), "lengths": self.lengths}


@dataclass(frozen=True, kw_only=True)
class Lengths(GoldLength, Beam):
    """For models that try several lengths."""

    def counts(self) -> dict[str, int]:
        return {**super().counts(), "lengths": self.lengths}


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Options):
    """For models whose choice of words may be narrowed: those that predict by ``Encoded.shortlist``."""

    shortlist: str | None = option(
        None, "file of nar align: a sentence gets only words that its source's words have there, which is faster"
    )


@dataclass(frozen=True, kw_only=True)
class Deduplication(Options):
    """For models of which a pass says all words of a target, each at its own position (``methods.deduplication``)."""

    deduplicate: bool = option(
        False, "the words of a pass that are the most probable together where no two in a row are equal"
    )
    duplicate_penalty: float | None = option(
        None, "two in a row may be equal, for so many nats (default: they may not)", least=0
    )

    @property
    def penalty(self) -> float | None:
        """What two equal words in a row cost in nats; None: nothing, and nobody looks at them."""
        cost = math.inf if self.duplicate_penalty is None else self.duplicate_penalty
        return cost if self.deduplicate else None

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        return found if self.deduplicate else {**found, "duplicate_penalty": "without --deduplicate"}


@dataclass(frozen=True, kw_only=True)
class History(Options):
    """For models of which what a pass makes can be seen."""

    keep_history: bool = option(False, "keep the output of each pass", host_flag="retain_iter_history")


@dataclass(frozen=True, kw_only=True)
class Counted(History):
    """For models of which it differs from sentence to sentence how many passes they make."""

    print_step: bool = option(False, "print how many steps were made", host_flag="print_step")


@dataclass(frozen=True, kw_only=True)
class Refinement(Counted):
    """For models that refine the output of their first pass."""

    # fairseq's 10 cannot be told from silence where a program decodes; a validation that is not told gets the default
    iterations: int = option(
        0, "refinement steps after the first pass", host_flag="iter_decode_max_iter", unset=10, nothing=0, least=0
    )
    is_forced: bool = option(
        False, "make all of them, whatever the stop rule says", host_flag="iter_decode_force_max_iter"
    )

    @property
    def steps(self) -> int:
        return self.iterations


@dataclass(frozen=True, kw_only=True)
class Unmasking(Refinement):
    """For models that refine by masking words again (``methods.unmasking``)."""

    unmask: str = option(
        "linear",
        "which words a pass leaves masked: fewer from pass to pass (linear, cosine); those that are not sure enough, "
        "until there are none (threshold, entropy); as linear, until all together are sure enough (gap)",
        choices=UNMASKINGS,
    )
    unmask_threshold: float | None = option(
        None,
        "how sure is enough: the probability of a word (--unmask threshold, default 0.9), nats that the words of a "
        "pass may lose together (entropy, 2), a factor of the words' leads over the second best (gap, 1)",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unmask == "threshold" and self.threshold > 1:
            raise UsageError(f"--unmask-threshold {self.threshold}: --unmask threshold needs a number from 0 to 1")

    @property
    def threshold(self) -> float:
        """That of the rule, 0 where it has none."""
        if self.unmask_threshold is None:
            return UNMASK_THRESHOLDS.get(self.unmask, 0.0)
        return self.unmask_threshold

    def ineffective(self) -> dict[str, str]:
        idle = "is_forced" if self.unmask in UNMASK_THRESHOLDS else "unmask_threshold"
        return {**super().ineffective(), idle: f"on --unmask {self.unmask}"}


@dataclass(frozen=True, kw_only=True)
class Stopping(Refinement):
    """For models that may stop refining a sentence before the last step (``generators.stopping``)."""

    stop_rule: str = option(
        "none",
        "when a sentence needs no further refinement (default: the architecture's own)",
        unset=None,
        choices=STOP_RULES,
    )
    stop_window: int = option(
        1, "outputs a stop rule compares with the oldest of them; 1: two passes in a row", least=1
    )
    stop_distance: float = option(
        0.0, "a stop rule ends a sentence at this share of differing tokens, or below", least=0, most=1
    )

    @property
    def rule(self) -> str:
        """The stop rule that is in force."""
        return "none" if self.is_forced else self.stop_rule

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        if self.stop_rule == "none":
            found |= dict.fromkeys(("stop_window", "stop_distance"), "on --stop-rule none")
        if self.stop_rule == "oracle":
            found["stop_distance"] = "on --stop-rule oracle"
        return found


@dataclass(frozen=True, kw_only=True)
class Samples(Engine):
    """For models that draw samples beside what is most probable."""

    decode_samples: int = option(
        0,
        "iterative refinement: refine so many samples beside the most probable words, and average; latent models and "
        "fertilities: so many candidates, the first without noise",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class Codes(GoldLength, Beam, Samples, Stopping):
    """For models whose proposals are sequences of codes: of a beam, or samples."""

    latent_lengths: int = option(
        1, "lengths that are tried where they are predicted, each with every sequence of codes", least=1
    )
    latent_temperature: float = option(1.0, "of the probabilities that --decode-samples draws codes by", least=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lengths > 1 and self.decode_samples > 1:
            raise UsageError("codes are those of --iter-decode-with-beam or drawn by --decode-samples, not both")

    @property
    def codes(self) -> int:
        """Sequences of codes a length."""
        return self.lengths * max(1, self.decode_samples)

    def counts(self) -> dict[str, int]:
        found = {"lengths": self.lengths, "decode_samples": max(1, self.decode_samples)}
        return {**super().counts(), **found, "latent_lengths": self.latent_lengths}

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        if self.decode_samples < 2:
            found["latent_temperature"] = "without --decode-samples 2 or more"
        return found


@dataclass(frozen=True, kw_only=True)
class Fertilities(GoldLength, Samples, History):
    """For models that are told by fertilities how many words each word of a source becomes."""

    fertility: str = option(
        "argmax",
        "how many words a source word becomes: most probably (argmax), on the average (average), or --decode-samples "
        "candidates, drawn beside the most probable one (sample) or the most probable ones together (search)",
        choices=FERTILITIES,
    )
    fertility_temperature: float = option(1.0, "of the probabilities that --fertility sample draws by", least=1e-3)

    def counts(self) -> dict[str, int]:
        is_one = self.fertility in ("argmax", "average")
        return {**super().counts(), "decode_samples": 1 if is_one else max(1, self.decode_samples)}

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        if self.fertility in ("argmax", "average"):
            found["decode_samples"] = f"on --fertility {self.fertility}"
        if self.fertility != "argmax":
            found["gold_target_len"] = f"on --fertility {self.fertility}"
        if self.fertility != "sample":
            found["fertility_temperature"] = f"on --fertility {self.fertility}"
        return found


@dataclass(frozen=True, kw_only=True)
class LatentSearch(Samples, Stopping):
    """For models with continuous latents: where a search draws them, and how they are refined."""

    decode_sample_noise: float = option(
        1.0,
        "spread of latent candidates, in standard deviations of the prior (default: the papers', 0.5 of "
        "latent_transformer, 1 of lanmt_continuous)",
        unset=None,
        least=0,
    )
    latent_inference: str = option(
        "delta",
        "how latents are refined: not at all (mean), by delta steps, by the steps of a refiner (default: by those of a "
        "lanmt_refiner, else delta)",
        unset=None,
        choices=INFERENCES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_inference == "energy" and self.engine in ("int8", "compiled"):
            raise UsageError(f"--engine {self.engine}: not with --latent-inference energy, which takes gradients")

    @property
    def samples(self) -> int:
        """Latents that are tried, the prior's mean among them."""
        return max(1, self.decode_samples)

    def counts(self) -> dict[str, int]:
        return {**super().counts(), "decode_samples": self.samples}

    @property
    def steps(self) -> int:
        return 0 if self.latent_inference == "mean" else self.iterations

    def idle_of_latents(self) -> set[str]:
        """Options of latents that this decode does not come to."""
        idle = {"decode_sample_noise"} if self.samples == 1 else set()
        rules = {"stop_window", "stop_distance"} | ({"stop_rule"} if self.stop_rule != "none" else set())
        if self.latent_inference == "mean":
            return idle | rules | {"iterations"}
        # a refiner's steps leave nothing to compare; the oracle alone has each of them decoded
        return idle | rules if self.latent_inference != "delta" and self.stop_rule != "oracle" else idle

    def ineffective(self) -> dict[str, str]:
        reason = f"on --latent-inference {self.latent_inference} with so many steps and samples"
        return {**super().ineffective(), **dict.fromkeys(self.idle_of_latents(), reason)}


@dataclass(frozen=True, kw_only=True)
class LatentSteps(LatentSearch):
    """For models whose refiner makes steps of a size."""

    latent_step_size: float = option(1.0, "size of a refiner's steps (released IWSLT: 0.8)", least=0)

    def idle_of_latents(self) -> set[str]:
        is_idle = self.latent_inference in ("mean", "delta") or not self.iterations
        return super().idle_of_latents() | ({"latent_step_size"} if is_idle else set())


@dataclass(frozen=True, kw_only=True)
class Greedy(Candidates, Counted):
    """For models that write one word after the other, as fairseq's search with a beam of one, or its sampling, does."""

    own_norm: ClassVar[str] = "lenpen"
    min_len: int = option(1, "the least words of an output", host_flag="min_len", least=0)
    max_len_a: float = option(
        0.0,
        "an output has at most so many times the tokens of its batch's longest source",
        host_flag="max_len_a",
        least=0,
    )
    max_len_b: int = option(200, "and so many more", host_flag="max_len_b", least=0)
    unkpen: float = option(0.0, "taken from the log-probability of <unk>", host_flag="unkpen")
    temperature: float = option(1.0, "logits are divided by it", host_flag="temperature", least=1e-3)
    sampling: bool = option(False, "draw words, do not take the most probable ones", host_flag="sampling")
    sampling_topk: int = option(-1, "draw among so many most probable words", host_flag="sampling_topk", least=-1)
    sampling_topp: float = option(
        -1.0, "draw among the fewest words of this probability together", host_flag="sampling_topp", least=-1, most=1
    )

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        if self.score_reference:
            return found
        found["is_rescored"] = "with one hypothesis, among which there is no choice"
        if not self.sampling:
            found |= dict.fromkeys(("sampling_topk", "sampling_topp"), "without --sampling")
        elif self.sampling_topp > 0:
            found["sampling_topk"] = "beside --sampling-topp"
        return found


@dataclass(frozen=True, kw_only=True)
class Verified(Greedy):
    """For models that write so, but verify several drafted words a call (``methods.verification``)."""

    accept: str = option(
        "exact",
        "which drafted words are accepted: those that the model would have said itself (exact), that are among the "
        "most probable ones (top-k), or, where words are numbers, that are near to what it would have said (distance)",
        choices=ACCEPTS,
    )
    accept_top_k: int = option(2, "on --accept top-k: the first so many by probability", least=1)
    accept_distance: int = option(2, "on --accept distance: so far at most", least=0)
    min_block: int = option(1, "accept so many words a call at least, whatever the model says", least=1)
    block_verification: bool = option(
        False, "with --sampling: accept drafts as a block (Sun et al. 2024), which accepts more, and as exactly"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "compiled":
            raise UsageError("--engine compiled: not where drafts are verified, whose shapes change from call to call")

    def ineffective(self) -> dict[str, str]:
        found = super().ineffective()
        if self.score_reference:
            return found
        if self.sampling:
            found |= dict.fromkeys(("accept", "accept_top_k", "accept_distance", "min_block"), "beside --sampling")
            return found
        found["block_verification"] = "without --sampling"
        others = {"accept_top_k": "top-k", "accept_distance": "distance"}
        return found | {name: f"on --accept {self.accept}" for name, rule in others.items() if rule != self.accept}


@dataclass(frozen=True, kw_only=True)
class Heads(Verified):
    """For models that draft by heads of their own."""

    block_size: int = option(0, "use so many of the heads, the first among them; 0: all", least=0)


@dataclass(frozen=True, kw_only=True)
class Drafted(Verified):
    """For an autoregressive model whose words another one drafts."""

    drafter: str | None = option(
        None,
        "who drafts for an autoregressive model, whose greedy output comes out: the checkpoint of a model that writes "
        "a sentence at once, or of a small autoregressive one, or ngram (the source and the output so far)",
    )


@dataclass(frozen=True, kw_only=True)
class DraftedSteps(Drafted):
    """Where drafts are made a word at a time."""

    draft_length: int = option(8, "words that are drafted a call", least=1)


@dataclass(frozen=True, kw_only=True)
class DraftedSentences(Drafted, Refinement):
    """Where a sentence is drafted at once: ``iterations`` are those of its writer."""

    redraft: bool = option(False, "after each call the drafter writes the rest of the sentence anew")

    @property
    def steps(self) -> int:
        """fairseq's 10 cannot be told from silence: one pass is enough for a draft."""
        return 0 if self.iterations == about_of(Refinement)["iterations"].unset else self.iterations

    def ineffective(self) -> dict[str, str]:
        return {**super().ineffective(), "is_forced": "on a draft, which is made in as many passes as are asked for"}


GROUPS: tuple[type[Options], ...] = (
    *(Candidates, Vocabulary, Deduplication, Lengths, Refinement, Unmasking, Stopping, LatentSteps),
    *(Codes, Fertilities, Heads, DraftedSteps, DraftedSentences),
)
"""All groups: every option is in one of them, or in a base of one."""


def every_option() -> dict[str, Field[Any]]:
    """All options by name, in the order of the groups."""
    return {f.name: f for group in GROUPS for f in fields(group)}


def filled(kind: type[T], given: Mapping[str, Any]) -> T:
    """An instance of a model's options from what was given; None, and what is left out, is the model's default.

    Raises UsageError for a value of another kind or out of bounds.
    """
    values = {f.name: _as(f, given[f.name]) for f in fields(kind) if given.get(f.name) is not None}
    return kind(**values)


def _as(f: Field[Any], value: Any) -> Any:
    """A value as the type of its field; fairseq's own flags, and JSON, may have it as a text or a whole number."""
    wanted = next(kind for kind in (get_args(f.type) or (f.type,)) if kind is not type(None))
    try:
        found = wanted(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    is_cut = wanted is int and found != value and not isinstance(value, str)
    if found is None or is_cut or wanted is bool and isinstance(value, str):
        flag = flag_of(f.name, f.metadata[ABOUT])
        raise UsageError(f"{flag} {value}: it takes {'true or false' if wanted is bool else 'a number'}")
    return found
