"""What a decoding model offers to the generators, and the records that pass between them.

A model never meets the decode loop by import, only by this contract. Everything that a sentence owns is a row
(dimension 0) of a frozen record, so that the loop can drop finished sentences, repeat a sentence for its candidates and
cut a batch into chunks without knowing the method.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Mapping, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn

R = TypeVar("R", bound="Rows")


class UsageError(SystemExit):
    """What the user asked for cannot be done. The message is one line that says what to change.

    It derives from SystemExit, so that a program prints that line and ends with status 1, without a traceback; a
    caller who wants to go on catches UsageError.
    """


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, Rows):
        return value.select(rows)
    if isinstance(value, tuple):
        return tuple(_select(item, rows) for item in value)
    return value


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A record whose tensors, nested records and tuples of them all have one row a sentence (or candidate)."""

    def select(self: R, rows: Tensor) -> R:
        """The same record holding only ``rows`` (an int64 index, repeats allowed), in that order."""
        return replace(self, **{f.name: _select(getattr(self, f.name), rows) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Encoded(Rows):
    """What a model knows of its sources; a model adds its own fields.

    ``source``: (B, S) right-padded source ids, kept for hashing and for a teacher; None where sources are not tokens.
    """

    source: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Starts(Rows):
    """Where decoding starts: ``n`` rows a sentence, sentence-major (row ``b * n + c``). Row 0 of each is deterministic.

    ``lengths``: (B * n,) canvas widths in tokens, end symbol counted as the method counts it; None when unknown, and
    then ``longest`` is what no canvas will exceed (0: the source's width).
    """

    lengths: Tensor | None = None
    longest: int = 0


@dataclass(frozen=True, kw_only=True)
class LengthStarts(Starts):
    """Starts of which the length is known."""

    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class State(Rows):
    """A decode in progress. A method adds its fields: latents, confidences, a verified prefix, the encoded source.

    ``tokens``: (R, T) ids, padded; None while a method holds latents only. T may change from step to step.
    ``done``: (R,) True where the method itself is finished with a row; None when it never says so.
    """

    tokens: Tensor | None = None
    done: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a decode asks for.

    ``n``: starts a sentence, all kinds multiplied (lengths × samples). ``seeds``: makes (B,) int64 keys, from which all
    randomness comes (``methods.noise``); a model that draws nothing does not call it. ``lengths``: (B,) reference
    lengths, under ``--gold-target-len`` only. ``options``: the task's decode flags that the model's ``decode_flags``
    name; what later steps need of them, a model keeps in its starts and states (``Rows.select`` leaves plain values
    alone).
    """

    n: int
    seeds: Callable[[], Tensor]
    lengths: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Finished(NamedTuple):
    """Decoded rows: (R, T) right-padded ids, (R, T) log-probabilities in nats, 0 at pads.

    ``extra``: (R,) log-probability in nats of what is no token and yet tells candidates apart (a latent, fertilities).
    """

    tokens: Tensor
    scores: Tensor
    extra: Tensor | None = None


class Scored(NamedTuple):
    """Log-probabilities of given targets, in nats.

    ``tokens``: (B, T), 0 at pads. ``extra``: (B,), whatever is not a token's (the length, a prior), 0 if nothing.
    ``kind``: ``exact``, ``bound`` (a lower bound) or ``proxy`` (comparable between targets of one source only).
    """

    tokens: Tensor
    extra: Tensor
    kind: str


class DecodingModel(Protocol):
    """A model that the refinement loop can drive.

    ``counted`` names the sub-modules whose forward passes are counted; ``decode_flags`` the decode options which this
    model heeds (all others are refused); ``candidate_flags`` those of them whose product is the number of candidates;
    ``silent_iterations`` stands for ``--iter-decode-max-iter`` where a validation decode does not say it;
    ``default_stop_rule``, if there is one, for ``--stop-rule`` (else ``none``). Where latents are refined,
    ``inferences`` are the ways in which they can be, the default first, and ``sample_noise`` is the spread of a search
    in deviations of the prior.
    """

    decode_flags: frozenset[str]
    candidate_flags: tuple[str, ...]
    silent_iterations: int

    @property
    def counted(self) -> Mapping[str, nn.Module]: ...

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> Encoded:
        """(B, S) source ids, padded on either side, to whatever the later calls need. One encoder pass."""

    def propose(self, encoded: Encoded, ask: Ask) -> Starts:
        """``ask.n`` starts a sentence."""

    def start(self, encoded: Encoded, starts: Starts) -> State:
        """The first pass. ``encoded`` and ``starts`` have the same R rows."""

    def refine(self, state: State, step: int, steps: int) -> State:
        """Refinement ``step`` of 1..``steps``; may consume its argument."""

    def max_steps(self, asked: int) -> int:
        """How many refinements follow the first pass when ``--iter-decode-max-iter`` says ``asked``."""

    def finish(self, state: State) -> Finished:
        """What the state says as text; leaves ``state`` as it is. It may cost a pass where a state holds latents."""

    def score(self, encoded: Encoded, target: Tensor) -> Scored:
        """Log-probability of (B, T) right-padded targets ending in the end symbol."""
