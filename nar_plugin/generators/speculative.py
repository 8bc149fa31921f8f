"""Drafts of one model, verified by another, for the one loop: any model that writes a sentence at once, a small
autoregressive one, or the text that is there already drafts for an autoregressive verifier (``methods.speculative``).

Under the rule ``exact`` what comes out is the verifier's own greedy output, with its own scores.
"""

from dataclasses import replace
from typing import Any, Callable, Mapping, Protocol, cast

import torch
from torch import Tensor

from ..methods.contract import AnyModel, Encoded, Finished, NetInput, Pass, Redrafts, Request, Scored
from ..methods.drafters import NgramDrafter, SentenceDrafter, StepDrafter
from ..methods.options import Drafted, DraftedSentences, DraftedSteps, about_of, filled
from ..methods.speculative import Drafter, Drafting, Planned, SourceEncoded, Speculation, Verifier
from ..methods.symbols import Symbols, closed, right_padded
from ..methods.terms import Term
from ..methods.usage import UsageError
from .loop import RefinementGenerator

NGRAM = "ngram"
"""The value of ``--drafter`` that names no checkpoint."""


Told = Callable[[NetInput, SourceEncoded], Any]
"""What a drafter is to know of the sources of a batch, of which the verifier knows something already."""


class CachedModel(Verifier, Protocol):
    """An autoregressive model that verifies (``compat.CachedTransformer``)."""

    passes: Mapping[str, Pass]

    @property
    def positions(self) -> int: ...

    @property
    def longest_source(self) -> int: ...

    def encode(self, net_input: NetInput) -> SourceEncoded: ...


class SentenceWriter:
    """A decoding model as ``drafters.Writer``: its own loop, one candidate, ``steps`` refinements where it has any."""

    def __init__(self, model: AnyModel, symbols: Symbols, steps: int) -> None:
        known = about_of(model.decode_options)
        asked = {name: value for name, value in (("iterations", steps), ("stop_rule", "none")) if name in known}
        if steps and "iterations" not in known:
            raise UsageError(f"--iter-decode-max-iter {steps}: a drafter of --arch {model.name} makes one pass")
        self.model, self.symbols = model, symbols
        self.loop = RefinementGenerator(model, symbols, filled(model.decode_options, asked))
        self.length: int | None = None
        """Words of every sentence, where a clock forces them."""

    def sentences(self, told: Encoded) -> Tensor:
        """(R, T) padded ids that end in ``</s>``."""
        lengths = None if self.length is None else torch.full_like(told.keys, self.length)
        request = Request(options=self.loop.options, keys=lambda: told.keys, lengths=lengths)
        decoded = self.loop.decode_all(told, self.model.propose(told, request))
        return closed(decoded.tokens, self.symbols)[0]

    def rest(self, told: Encoded, tokens: Tensor, is_token: Tensor, known: Tensor) -> Tensor:
        """(R, T) sentences of which the first (R,) ``known`` tokens are given, with the others written anew."""
        model: Redrafts = cast(Any, self.model)
        return model.redraft(told, tokens, is_token, known)


class DraftedModel:
    """A verifier and a drafter as one decoding model (``methods.contract``), which is decoded and never trained."""

    criterions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        verifier: CachedModel,
        drafter: Drafter,
        symbols: Symbols,
        kind: type[Drafted],
        told: "Told | None" = None,
    ) -> None:
        """``kind``: the options that such a drafter heeds; ``told``: what the drafter is to know of the sources, of a
        batch's ``net_input`` and of what the verifier knows of them."""
        self.name, self.symbols, self.decode_options, self.verifier = name, symbols, kind, verifier
        self.told, self.speculation = told, Speculation(verifier, drafter, symbols)
        self.passes: dict[str, Pass] = dict(verifier.passes)

    def count(self, passes: Mapping[str, Pass]) -> None:
        """The passes of a drafter, by names of its own in the report."""
        for name, one in passes.items():
            counts_as = one.counts_as and f"drafter's {one.counts_as}"
            self.passes[f"draft_{name}"] = Pass(one.module, counts_as)

    def __call__(self, net_input: NetInput, target: Tensor, **columns: Tensor) -> list[Term]:
        """It has no loss."""
        raise NotImplementedError("a model with a drafter is not trained")

    def encode(self, net_input: NetInput) -> SourceEncoded:
        encoded = self.verifier.encode(net_input)
        return encoded if self.told is None else replace(encoded, told=self.told(net_input, encoded))

    def propose(self, encoded: SourceEncoded, request: Request[Any]) -> Planned:
        options = request.options
        drafts = options.draft_length if isinstance(options, DraftedSteps) else 0
        return self.speculation.propose(encoded, request, self.verifier.positions, drafts)

    def start(self, encoded: SourceEncoded, proposals: Planned) -> Drafting:
        return self.speculation.start(encoded, proposals)

    def refine(self, state: Drafting, step: int, steps: int) -> Drafting:
        return self.speculation.refine(state)

    def max_steps(self, asked: int) -> int:
        """As many calls as an output may have tokens: each call gives one at least."""
        return self.verifier.positions

    def finish(self, state: Drafting) -> Finished:
        return self.speculation.finish(state)

    def score(self, encoded: SourceEncoded, target: Tensor) -> Scored:
        return self.speculation.score(encoded, target)


def cut(net_input: NetInput, longest: int, symbols: Symbols) -> NetInput:
    """Sources as far as a drafter can read them: a verifier may read longer ones."""
    source = net_input["src_tokens"]
    if source.size(1) <= longest:
        return net_input
    source = right_padded(source, symbols.pad)[0][:, :longest]
    return {**net_input, "src_tokens": source, "src_lengths": (source != symbols.pad).sum(1)}


def by_ngrams(name: str, verifier: CachedModel, symbols: Symbols, *, is_joint: bool) -> DraftedModel:
    """``--drafter ngram``. ``is_joint``: source and target have one dictionary, so that the source is looked at too."""

    def told(net_input: NetInput, encoded: SourceEncoded) -> Tensor:
        return right_padded(net_input["src_tokens"], symbols.pad)[0]

    drafter = NgramDrafter(symbols)
    return DraftedModel(name, verifier, drafter, symbols, DraftedSteps, told if is_joint else None)


def by_steps(name: str, verifier: CachedModel, small: CachedModel, symbols: Symbols) -> DraftedModel:
    """``--drafter small.pt``: an autoregressive model."""

    def told(net_input: NetInput, encoded: SourceEncoded) -> SourceEncoded:
        return small.encode(cut(net_input, small.longest_source, symbols))

    drafter = StepDrafter(small, symbols)
    model = DraftedModel(name, verifier, drafter, symbols, DraftedSteps, told)
    model.count(small.passes)
    return model


def by_sentences(
    name: str,
    verifier: CachedModel,
    writer: Any,
    symbols: Symbols,
    options: DraftedSentences,
    *,
    is_shared: bool = False,
) -> DraftedModel:
    """``--drafter student.pt``: a model that writes a sentence at once.

    ``is_shared``: its encoder is the verifier's, so that states are made once. Raises UsageError where it is to write
    the rest of a sentence anew and cannot.
    """
    if options.redraft and not hasattr(writer, "redraft"):
        raise UsageError(f"--redraft: a drafter of --arch {writer.name} does not write on behind given words")
    longest = writer.max_positions()[1] if options.redraft else 0
    drafter = SentenceDrafter(
        SentenceWriter(writer, symbols, options.steps), symbols, is_rewritten=options.redraft, longest=longest
    )

    def told(net_input: NetInput, encoded: SourceEncoded) -> Encoded:
        if not is_shared:
            return writer.encode(cut(net_input, writer.max_positions()[0], symbols))
        order = (net_input["src_tokens"] == symbols.pad).to(torch.uint8).argsort(dim=1, stable=True)
        states = encoded.states.gather(1, order[..., None].expand_as(encoded.states))  # padded on the right
        return writer.encode_from(net_input, states)

    model = DraftedModel(name, verifier, drafter, symbols, DraftedSentences, told)
    model.count({key: one for key, one in writer.passes.items() if not (is_shared and one.counts_as == "encoder")})
    return model
