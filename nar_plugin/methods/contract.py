"""What a decoding model offers to the task, the criterion, the generators and the tools, and the records between them.

A model never meets the decode loop by import, only by this contract. Everything that a sentence owns is a row
(dimension 0) of a frozen record, so that the loop can drop finished sentences, repeat a sentence for its candidates and
cut a batch into chunks without knowing the method.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Generic, Mapping, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .options import Options
from .symbols import Symbols
from .terms import Term
from .usage import UsageError

__all__ = [
    "AnyModel",
    "DecodingModel",
    "Encoded",
    "FillsMasks",
    "Finished",
    "LengthProposals",
    "NetInput",
    "Pass",
    "Proposals",
    "Redrafts",
    "RefinesLatents",
    "Request",
    "Rows",
    "Scored",
    "Shortlist",
    "SpeaksInCodes",
    "State",
    "UsageError",
]

R = TypeVar("R", bound="Rows")
O = TypeVar("O", bound=Options)  # noqa: E741
E = TypeVar("E", bound="Encoded")
P = TypeVar("P", bound="Proposals")
S = TypeVar("S", bound="State")

NetInput = Mapping[str, Tensor]
"""A batch's ``net_input``. Text is ``src_tokens``, (B, S) ids padded on either side; other sources have other names."""


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, Rows):
        return value.select(rows)
    if type(value) is tuple:
        return tuple(_select(item, rows) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a record of rows cannot hold a {type(value).__name__}: its rows would not be selected")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A record whose tensors, nested records and tuples of them have one row a sentence (or candidate).

    Plain values (None, numbers, text) belong to the whole batch. Nothing else may be held: ``select`` raises TypeError.
    """

    def select(self: R, rows: Tensor) -> R:
        """The same record holding only ``rows`` (an int64 index, repeats allowed), in that order."""
        return replace(self, **{f.name: _select(getattr(self, f.name), rows) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Shortlist(Rows):
    """The words that the sentences of a batch may get.

    ``words``: (U,) ids, rising and then repeated; the union of all rows, of which smaller batches stay a part, so that
    what is made of it (``kept``, by name) is made once. ``is_whole``: they are all V words in order, whose projection
    is there already. ``is_allowed``: (R, U) which of them a row may get, no repeated one among them. No special symbol
    is allowed but ``</s>`` and ``<unk>``, which always are.
    """

    words: Tensor
    is_allowed: Tensor
    is_whole: bool = False
    kept: dict[str, Any] = field(default_factory=dict, compare=False)

    def select(self, rows: Tensor) -> "Shortlist":
        return replace(self, is_allowed=self.is_allowed.index_select(0, rows))

    def once(self, name: str, make: Callable[[Tensor], Any]) -> Any:
        """What ``make`` makes of the words, kept under a name as long as the batch is decoded."""
        if name not in self.kept:
            self.kept[name] = make(self.words)
        return self.kept[name]

    def limited(self, logits: Tensor) -> Tensor:
        """(R, …, U) logits of the words with −∞ in place of those that a row may not get, in place."""
        between = [1] * (logits.dim() - 2)
        return logits.masked_fill_(~self.is_allowed.unflatten(0, (-1, *between)), -torch.inf)


@dataclass(frozen=True, kw_only=True)
class Encoded(Rows):
    """What a model knows of its sources, whatever they are; a model adds its own fields.

    ``keys``: (B,) int64 hashes of the source alone, from which a decode draws its noise (``methods.noise``).
    ``is_empty``: (B,) True where there is nothing to translate. ``shortlist``: the words that a decode may give, None
    where it may give all; ``penalty``: what two equal words in a row cost, in nats, None where words are chosen each by
    itself. The loop sets both; a model whose options have them (``options.Vocabulary``, ``options.Deduplication``)
    heeds them.
    """

    keys: Tensor
    is_empty: Tensor
    shortlist: Shortlist | None = None
    penalty: float | None = None


@dataclass(frozen=True, kw_only=True)
class Proposals(Rows):
    """Where decoding starts: ``n`` rows a sentence, sentence-major (row ``b * n + c``). Row 0 of each is deterministic.

    ``lengths``: (B * n,) canvas widths in tokens, end symbol counted as the method counts it; None when unknown, and
    then ``longest`` is what no canvas will exceed (0: unknown too, and ``--max-candidate-tokens`` decodes row by row).
    """

    lengths: Tensor | None = None
    longest: int = 0


@dataclass(frozen=True, kw_only=True)
class LengthProposals(Proposals):
    """Proposals of which the length is known."""

    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class State(Rows):
    """A decode in progress. A method adds its fields: latents, confidences, a verified prefix, the encoded source.

    ``tokens``: (R, T) ids, padded; None while a method holds latents only. T may change from step to step.
    ``done``: (R,) True where the method itself is finished with a row; None when it never says so. A finished row may
    be refined further, with rows that are not: what comes of it is thrown away.
    """

    tokens: Tensor | None = None
    done: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Request(Generic[O]):
    """What is asked of a decode.

    ``options``: an instance of the model's ``decode_options``; what later steps need of them, a model keeps in its
    proposals and states. ``keys``: makes (B,) int64 noise keys from ``Encoded.keys`` and ``--seed``; a model that draws
    nothing does not call it. ``lengths``: (B,) reference lengths in tokens, under ``--gold-target-len`` only.
    """

    options: O
    keys: Callable[[], Tensor]
    lengths: Tensor | None = None

    @property
    def n(self) -> int:
        """Proposals a sentence, all kinds multiplied (lengths × samples)."""
        return self.options.candidates


class Finished(NamedTuple):
    """Decoded rows: (N, T) right-padded ids, (N, T) log-probabilities in nats, 0 at pads.

    ``extra``: (N,) log-probability in nats of what is no token and yet tells candidates apart (a latent, fertilities).
    ``owner``: (N,) the state's row that each hypothesis is of, rising, each row at least once, the best of a row first:
    a method that searches after its pass (a beam over one pass's output) has several a row, and says how many at most
    in ``Options.searches``. None: one a row.
    """

    tokens: Tensor
    scores: Tensor
    extra: Tensor | None = None
    owner: Tensor | None = None


class Scored(NamedTuple):
    """Log-probabilities of given targets, in nats.

    ``tokens``: (B, T), 0 at pads. ``extra``: (B,), whatever is not a token's (the length, a prior), 0 if nothing.
    ``kind``: ``exact``, ``bound`` (a lower bound) or ``proxy`` (comparable between targets of one source only).
    """

    tokens: Tensor
    extra: Tensor
    kind: str


class Pass(NamedTuple):
    """A network of a model: a module that takes and gives tensors (and tuples of them, and None) only.

    Its first argument has a row a sentence or candidate. ``counts_as``: under which name its calls and rows are counted
    in the report of a decode; "" where it is part of another pass. Those that count as ``decoder`` are the passes that
    tables of results speak of.
    """

    module: nn.Module
    counts_as: str = ""


class DecodingModel(Protocol[E, P, S, O]):
    """A model that the task trains and that the refinement loop decodes. fairseq builds it with the task, which has the
    special ids (``task.symbols``) and both dictionaries.

    ``name``: what messages call it, its ``--arch``. ``criterions``: names of those that train it. ``inputs``: the side
    columns of a batch that training wants beside source and target (``keys``: (B,) noise keys). ``decode_options``: the
    class of ``methods.options`` which holds the options that this model heeds, with its own defaults.
    """

    @property
    def name(self) -> str: ...

    @property
    def criterions(self) -> tuple[str, ...]: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def decode_options(self) -> type[O]: ...

    @property
    def symbols(self) -> Symbols:
        """The special ids of its targets."""

    @property
    def passes(self) -> Mapping[str, Pass]:
        """Its networks by name, in the order in which a decode comes to them. All that it computes with weights is
        computed by calling these: counters, clocks, compilers and quantisers take them from here."""

    def __call__(self, net_input: NetInput, target: Tensor, **columns: Tensor) -> list[Term]:
        """Loss terms of a batch. ``target``: (B, T) padded ids ending in the end symbol; ``columns``: as ``inputs``."""

    def encode(self, net_input: NetInput) -> E:
        """The sources, to whatever the later calls need."""

    def propose(self, encoded: E, request: Request[O]) -> P:
        """``request.n`` proposals a sentence."""

    def start(self, encoded: E, proposals: P) -> S:
        """The first pass. ``encoded`` and ``proposals`` have the same R rows."""

    def refine(self, state: S, step: int, steps: int) -> S:
        """Refinement step ``step`` of 1..``steps``; may consume its argument."""

    def max_steps(self, asked: int) -> int:
        """How many refinement steps follow the first pass, at most, where the options say ``asked``."""
        return asked

    def finish(self, state: S) -> Finished:
        """What the state says as text; leaves ``state`` as it is. It may cost a pass where a state holds latents."""

    def score(self, encoded: E, target: Tensor) -> Scored:
        """Log-probability of (B, T) right-padded targets ending in the end symbol."""


AnyModel = DecodingModel[Any, Any, Any, Any]
"""Of whatever records: what the generators hold."""


class FillsMasks(Protocol):
    """A model that fills masked places of a target: what ``masked_accuracy`` measures, beyond ``DecodingModel``."""

    def masked_logits(self, encoded: Any, target: Tensor, masked: Tensor) -> Tensor:
        """(M, V) logits at the M places of (B, T) targets where ``masked`` is True and the target is hidden."""

    def length_log_probs(self, encoded: Any) -> Tensor:
        """(B, L) log-probabilities that a target has 0 … L − 1 tokens."""


class Redrafts(Protocol):
    """A model that writes a sentence on behind given words: what ``--redraft`` asks of a drafter, beyond
    ``DecodingModel``."""

    def max_positions(self) -> tuple[int, int]:
        """Longest source and target, in tokens with the end symbol."""

    def redraft(self, encoded: Any, tokens: Tensor, is_token: Tensor, known: Tensor) -> Tensor:
        """(R, T) targets, the first (R,) ``known`` tokens of which are given, with the others written anew."""


class SpeaksInCodes(Protocol):
    """A model that decodes codes: what tables of what is lost in them measure, beyond ``DecodingModel``."""

    def codes_of(self, encoded: Any, target: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """(R, M) codes of (R, T) targets on canvases of (R,) lengths, and (R, M) where there are any."""

    def code_log_probs(self, encoded: Any, codes: Tensor) -> Tensor:
        """(R, M, K) log-probabilities of each code given those before it."""

    def predicted_codes(self, encoded: Any, counts: Tensor) -> Tensor:
        """(B,) numbers of codes to the (B, M) most probable ones, one after the other."""

    def word_log_probs(self, encoded: Any, codes: Tensor, is_code: Tensor, width: int) -> Tensor:
        """(R, ``width``, V) log-probabilities of words given codes."""


class RefinesLatents(Protocol):
    """A model that refines latents: what the pictures of latents show, beyond ``DecodingModel``.

    ``request.options.latent_inference`` says how; its choices in the model's ``decode_options`` are the ways there are.
    """

    def latents(self, state: Any) -> Tensor:
        """(R, P, Z) latents of a state."""

    def posterior_latents(self, state: Any, target: Tensor) -> Tensor:
        """(R, P, Z): the mean of the posterior given (R, T) targets, of the lengths that the state has."""

    def latent_steps(self, state: Any, latents: Tensor) -> Tensor | None:
        """(N, P, Z): a refiner's steps from N latents of the state's one sentence; None where there is no refiner."""
