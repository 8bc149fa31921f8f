"""Methods made of a few integers, which ask of the decode loop everything that real methods will ask.

Each has a plain function beside it that says, one sentence at a time, what the loop must give.
"""

from dataclasses import dataclass, replace
from typing import Any, Sequence

import torch
from torch import Tensor, nn

from nar_plugin.methods import noise, options
from nar_plugin.methods.contract import Encoded, Finished, NetInput, Pass, Proposals, Request, Scored, State
from nar_plugin.methods.symbols import right_padded
from tests.tiny import EOS, FIRST_WORD, PAD, SYMBOLS, WORDS, Row, stacked


@dataclass(frozen=True, kw_only=True)
class StubOptions(options.Candidates, options.Lengths, options.Stopping):
    iterations: int = options.own(options.Refinement, "iterations", 3)


@dataclass(frozen=True, kw_only=True)
class StubEncoded(Encoded):
    source: Tensor


def plain(row: Tensor) -> Row:
    """A padded row as words, ``</s>`` and padding dropped."""
    return [token for token in row.tolist() if token not in (PAD, EOS)]


def padded(rows: Sequence[Row]) -> Tensor:
    return stacked(rows, eos=None)


def falling(tokens: Tensor) -> Tensor:
    """-0.1, -0.2, … at the tokens and 0 at pads: scores that tell positions apart."""
    places = torch.arange(1, tokens.size(1) + 1) * -0.1
    return places.expand(tokens.shape).masked_fill(tokens == PAD, 0.0)


class Stub(nn.Module):
    """What all stubs share. ``seen``: the sources that each pass worked on, as rows of words."""

    name, symbols = "stub", SYMBOLS
    criterions: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    decode_options: type[options.Options] = StubOptions

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.core = nn.Identity(), nn.Identity()
        self.seen: list[list[Row]] = []

    @property
    def passes(self) -> dict[str, Pass]:
        return {"read": Pass(self.reader, "reader"), "work": Pass(self.core, "core")}

    def encode(self, net_input: NetInput) -> StubEncoded:
        source, is_token = right_padded(self.reader(net_input["src_tokens"]), PAD)
        is_empty = ~(is_token & (source != EOS)).any(1)
        return StubEncoded(source=source, keys=noise.source_keys(source, is_token), is_empty=is_empty)

    def max_steps(self, asked: int) -> int:
        return asked

    def note(self, sources: Tensor) -> None:
        """One pass of the model over these rows."""
        self.core(sources)
        self.seen.append([plain(row) for row in sources])

    def score(self, encoded: Encoded, target: Tensor) -> Scored:
        return Scored(falling(target), torch.full((len(target),), -1.0), "exact")


# --- a latent-variable method: no tokens in the state, lengths that change from step to step


@dataclass(frozen=True, kw_only=True)
class LatentProposals(Proposals):
    offset: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentState(State):
    latent: Tensor
    lengths: Tensor
    source: Tensor


def next_latent(latent: Any, step: int) -> Any:
    return (latent * 5 + step * 11) % 97


def length_of(latent: Any) -> Any:
    return 1 + latent % 7


def latent_text(source: Row, steps: int, offset: int = 0) -> Row:
    """What a latent decodes to after so many refinements."""
    latent = (sum(source) + offset) % 97
    for step in range(1, steps + 1):
        latent = next_latent(latent, step)
    return [FIRST_WORD + (latent + j) % WORDS for j in range(length_of(latent))]


class LatentStub(Stub):
    def propose(self, encoded: StubEncoded, request: Request[Any]) -> LatentProposals:
        keys = request.keys()
        offsets = [torch.zeros_like(keys)]
        offsets += [(noise.uniform(noise.fold(keys, c), 1)[:, 0] * 90).long() + 1 for c in range(1, request.n)]
        return LatentProposals(offset=torch.stack(offsets, 1).flatten())

    def start(self, encoded: StubEncoded, proposals: LatentProposals) -> LatentState:
        self.note(encoded.source)
        sums = torch.tensor([sum(plain(row)) for row in encoded.source])
        latent = (sums + proposals.offset) % 97
        return LatentState(latent=latent, lengths=length_of(latent), source=encoded.source)

    def refine(self, state: LatentState, step: int, steps: int) -> LatentState:
        self.note(state.source)
        latent = next_latent(state.latent, step)
        return replace(state, latent=latent, lengths=length_of(latent))

    def finish(self, state: LatentState) -> Finished:
        places = torch.arange(int(state.lengths.max()))
        tokens = FIRST_WORD + (state.latent[:, None] + places) % WORDS
        tokens = tokens.masked_fill(places >= state.lengths[:, None], PAD)
        return Finished(tokens, falling(tokens))


# --- a draft-and-verify method: unknown lengths, rows that say themselves when they are done


def verifier(source: Row, prefix: Row) -> int:
    """The next token of a slow, right model: ``</s>`` after 1 to 15 words."""
    if len(prefix) >= 1 + sum(source) % 15:
        return EOS
    return FIRST_WORD + (sum(source) * 31 + len(prefix) * 7 + 3 * (prefix[-1] if prefix else 0)) % WORDS


def sequential(source: Row) -> Row:
    """Its greedy output, one token at a time, ``</s>`` included."""
    prefix: Row = []
    while not prefix or prefix[-1] != EOS:
        prefix.append(verifier(source, prefix))
    return prefix


def cheap_guess(source: Row, prefix: Row) -> int:
    """Right, except at some places that depend on the source."""
    right = verifier(source, prefix)
    is_wrong = (sum(source) + 3 * len(prefix)) % 4 == 0
    return FIRST_WORD + (right + 1 - FIRST_WORD) % WORDS if is_wrong else right


def one_round(source: Row, prefix: Row, size: int) -> Row:
    """Draft ``size`` tokens; keep those that the verifier says too, and its own where they first differ."""
    draft = list(prefix)
    for _ in range(size):
        draft.append(cheap_guess(source, draft))
    accepted = list(prefix)
    for token in draft[len(prefix) :]:
        right = verifier(source, accepted)
        accepted.append(right)
        if right != token or right == EOS:
            break
    return accepted


def rounds_needed(source: Row, size: int) -> int:
    prefix, rounds = one_round(source, [], size), 1
    while prefix[-1] != EOS:
        prefix, rounds = one_round(source, prefix, size), rounds + 1
    return rounds


@dataclass(frozen=True, kw_only=True)
class DraftState(State):
    source: Tensor


class DraftStub(Stub):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.size = size

    def max_steps(self, asked: int) -> int:
        return 100

    def propose(self, encoded: StubEncoded, request: Request[Any]) -> Proposals:
        return Proposals()

    def start(self, encoded: StubEncoded, proposals: Proposals) -> DraftState:
        return self.grown(encoded.source, [[] for _ in encoded.source])

    def refine(self, state: DraftState, step: int, steps: int) -> DraftState:
        prefixes = [[token for token in row if token != PAD] for row in state.tokens.tolist()]
        return self.grown(state.source, prefixes)

    def grown(self, source: Tensor, prefixes: list[Row]) -> DraftState:
        self.note(source)
        rows = [one_round(plain(s), prefix, self.size) for s, prefix in zip(source, prefixes, strict=True)]
        done = torch.tensor([row[-1] == EOS for row in rows])
        return DraftState(tokens=padded(rows), done=done, source=source)

    def finish(self, state: DraftState) -> Finished:
        return Finished(state.tokens, falling(state.tokens))


# --- a method that settles after a number of steps which the first source word says


def settles_after(source: Row) -> int:
    return source[0] - FIRST_WORD


def settling_text(source: Row, steps: int) -> Row:
    level = min(steps, settles_after(source))
    return [FIRST_WORD + level] * (level + 1) + [EOS]


@dataclass(frozen=True, kw_only=True)
class SettlingState(State):
    source: Tensor


class SettlingStub(Stub):
    def propose(self, encoded: StubEncoded, request: Request[Any]) -> Proposals:
        return Proposals(lengths=torch.full((len(encoded.keys) * request.n,), WORDS))

    def start(self, encoded: StubEncoded, proposals: Proposals) -> SettlingState:
        return self.after(encoded.source, 0)

    def refine(self, state: SettlingState, step: int, steps: int) -> SettlingState:
        return self.after(state.source, step)

    def after(self, source: Tensor, step: int) -> SettlingState:
        self.note(source)
        return SettlingState(tokens=padded([settling_text(plain(row), step) for row in source]), source=source)

    def finish(self, state: SettlingState) -> Finished:
        return Finished(state.tokens, falling(state.tokens))


class ConsumingStub(Stub):
    """One word that counts the steps up to a level; ``refine`` writes into its argument, as the contract allows."""

    propose = SettlingStub.propose
    finish = SettlingStub.finish

    def start(self, encoded: StubEncoded, proposals: Proposals) -> SettlingState:
        self.note(encoded.source)
        return SettlingState(tokens=torch.full((len(encoded.source), 1), FIRST_WORD), source=encoded.source)

    def refine(self, state: SettlingState, step: int, steps: int) -> SettlingState:
        self.note(state.source)
        levels = torch.tensor([[settles_after(plain(row))] for row in state.source])
        state.tokens.add_((state.tokens - FIRST_WORD < levels).long())
        return state


# --- candidates typed in by the test


@dataclass(frozen=True, kw_only=True)
class TableProposals(Proposals):
    candidate: Tensor


@dataclass(frozen=True, kw_only=True)
class TableState(State):
    scores: Tensor


class TableStub(Stub):
    """``table[first source word][candidate]`` is the text, ``</s>`` included, and its log-probabilities."""

    def __init__(self, table: dict[int, list[tuple[Row, list[float]]]]) -> None:
        super().__init__()
        self.table = table

    def propose(self, encoded: StubEncoded, request: Request[Any]) -> TableProposals:
        return TableProposals(candidate=torch.arange(request.n).repeat(len(encoded.keys)))

    def start(self, encoded: StubEncoded, proposals: TableProposals) -> TableState:
        self.note(encoded.source)
        first = [int(row[0]) for row in encoded.source]
        chosen = [self.table[s][c] for s, c in zip(first, proposals.candidate.tolist(), strict=True)]
        tokens = padded([text for text, _ in chosen])
        width = tokens.size(1)
        return TableState(tokens=tokens, scores=torch.tensor([s + [0.0] * (width - len(s)) for _, s in chosen]))

    def refine(self, state: TableState, step: int, steps: int) -> TableState:
        return state

    def finish(self, state: TableState) -> Finished:
        return Finished(state.tokens, state.scores)


class UnigramTeacher:
    """An autoregressive teacher as fairseq has them, whose log-probabilities are typed in.

    ``log_probs[first source word][token]``, whatever stands before. ``inputs``: what its decoder was given.
    """

    def max_decoder_positions(self) -> int:
        return 1000

    def __init__(self, log_probs: dict[int, dict[int, float]]) -> None:
        self.log_probs, self.inputs, self.encoder = log_probs, [], self
        self.encoder_calls = 0

    def __call__(self, src_tokens: Tensor, src_lengths: Tensor) -> Tensor:
        self.encoder_calls += 1
        return torch.tensor([next(t for t in row if t not in (PAD, EOS)) for row in src_tokens.tolist()])

    def reorder_encoder_out(self, encoded: Tensor, order: Tensor) -> Tensor:
        return encoded[order]

    def decoder(self, previous: Tensor, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        self.inputs.append(previous)
        return previous, encoder_out

    def get_normalized_probs(self, output: tuple[Tensor, Tensor], log_probs: bool) -> Tensor:
        assert log_probs
        previous, words = output
        result = torch.full((*previous.shape, SYMBOLS.size), -99.0)
        for row, word in enumerate(words.tolist()):
            for token, value in self.log_probs[word].items():
                result[row, :, token] = value
        return result
