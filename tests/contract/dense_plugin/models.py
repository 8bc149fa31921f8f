"""A model that reads frames, one that gives several hypotheses a pass, and one that wants a weight a sentence."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from nar_plugin.methods import lengths, noise, options, prediction
from nar_plugin.methods.contract import Encoded, Finished, NetInput, Pass, Proposals, Request, Scored, State
from nar_plugin.methods.symbols import Symbols, right_padded
from nar_plugin.methods.terms import Classes, Nats, Term, Tokens

from .data import FEATURES

MOST_FRAMES = 32
QUANTUM = 1 / 1024
"""Frames that differ by less are one source to whoever draws noise."""


@dataclass
class DenseModelConfig(FairseqDataclass):
    width: int = field(default=32, metadata={"help": "numbers a place"})
    max_target_positions: int = II("task.max_target_positions")


@dataclass(frozen=True, kw_only=True)
class DenseOptions(options.Candidates, options.Samples, options.Stopping):
    """Candidates are noise on what was read; ``spread`` is an option that the package does not know."""

    iterations: int = options.own(options.Refinement, "iterations", 0)
    spread: float = options.option(2.0, "how far the noise goes", unset=None, least=0)

    def counts(self) -> dict[str, int]:
        return {**super().counts(), "decode_samples": max(1, self.decode_samples)}


@dataclass(frozen=True, kw_only=True)
class BeamOptions(DenseOptions):
    @property
    def hypotheses(self) -> int:
        return self.candidates * MOST_A_ROW


@dataclass(frozen=True, kw_only=True)
class DenseEncoded(Encoded):
    states: Tensor
    frame_lengths: Tensor
    length_log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class DenseProposals(Proposals):
    """``shift``: (R, D), what is added to all that was read."""

    lengths: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True)
class DenseState(State):
    tokens: Tensor
    logits: Tensor
    read: Tensor


class FrameReader(nn.Module):
    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.states, self.length = nn.Linear(FEATURES, width), nn.Embedding(MOST_FRAMES + 1, longest + 1)
        nn.init.normal_(self.length.weight, std=0.1)

    def forward(self, frames: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, F) frames to (B, S, D) states and (B, L) log-probabilities of lengths."""
        logits = 10 * self.length(frame_lengths.clamp(max=MOST_FRAMES))  # so that they move fast enough
        return self.states(frames), logits.log_softmax(-1)


class WordWriter(nn.Module):
    def __init__(self, words: int, width: int, longest: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest + 1, width)
        self.hidden, self.output = nn.Linear(width, width), nn.Linear(width, words)

    def forward(self, read: Tensor, tokens: Tensor, to_go: Tensor) -> Tensor:
        """(R, T, D), (R, T) words so far and (R, T) places to the end: (R, T, V) logits."""
        states = read + self.words(tokens) + self.places(to_go)
        return self.output(torch.relu(self.hidden(states)))


@register_model("dense", dataclass=DenseModelConfig)
class Dense(BaseFairseqModel):
    name = "dense"
    criterions: tuple[str, ...] = ("token_length",)
    inputs: tuple[str, ...] = ()
    decode_options: type[DenseOptions] = DenseOptions

    def __init__(self, cfg: DenseModelConfig, symbols: Symbols) -> None:
        super().__init__()
        self._longest, self.symbols = cfg.max_target_positions, symbols
        self._reader = FrameReader(cfg.width, self._longest)
        self._writer = WordWriter(symbols.size, cfg.width, self._longest)
        self.passes = {"read": Pass(self._reader, "reader"), "write": Pass(self._writer, "decoder")}

    @classmethod
    def build_model(cls, cfg: DenseModelConfig, task: Any) -> "Dense":
        return cls(cfg, task.symbols)

    def max_positions(self) -> None:
        return None

    def forward(self, net_input: NetInput, target: Tensor) -> list[Term]:
        target, is_token = right_padded(target, self.symbols.pad)
        encoded = self.encode(net_input)
        logits = self._write(self._read(encoded, is_token), is_token, self._blank(is_token))
        return [
            Tokens("token", logits[is_token], target[is_token]),
            Classes("length", encoded.length_log_probs, is_token.sum(1)),
        ]

    def encode(self, net_input: NetInput) -> DenseEncoded:
        frames, sizes = net_input["frames"], net_input["frame_lengths"]
        is_frame = lengths.is_within(sizes, frames.size(1))
        columns = torch.arange(FEATURES, device=frames.device)
        hashed = noise.mix((frames / QUANTUM).round().long() * FEATURES + columns).sum(-1)
        if not frames.size(1):  # nothing but empty sources: one frame that says nothing
            frames = F.pad(frames, (0, 0, 0, 1))
        states, log_probs = self._reader(frames, sizes)
        return DenseEncoded(
            keys=noise.source_keys(hashed, is_frame),
            is_empty=sizes == 0,
            states=states,
            frame_lengths=sizes,
            length_log_probs=log_probs,
        )

    def propose(self, encoded: DenseEncoded, request: Request[DenseOptions]) -> DenseProposals:
        best = lengths.top_lengths(encoded.length_log_probs, 1)[:, 0].repeat_interleave(request.n)
        shift = encoded.states.new_zeros(len(best), encoded.states.size(2))
        if request.n > 1:
            keys = noise.candidate_keys(request.keys(), request.n)
            is_noisy = torch.arange(len(best), device=keys.device) % request.n > 0
            shift = request.options.spread * (2 * noise.uniform(keys, shift.size(1)) - 1) * is_noisy[:, None]
        return DenseProposals(lengths=best, shift=shift)

    def start(self, encoded: DenseEncoded, proposals: DenseProposals) -> DenseState:
        is_token, _ = lengths.canvas(proposals.lengths)
        return self._state(self._read(encoded, is_token) + proposals.shift[:, None], is_token, self._blank(is_token))

    def refine(self, state: DenseState, step: int, steps: int) -> DenseState:
        return self._state(state.read, state.tokens != self.symbols.pad, state.tokens)

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: DenseState) -> Finished:
        scores = state.logits.log_softmax(-1).gather(2, state.tokens[..., None])[..., 0]
        return Finished(state.tokens, scores.masked_fill(state.tokens == self.symbols.pad, 0.0))

    def score(self, encoded: DenseEncoded, target: Tensor) -> Scored:
        is_token = target != self.symbols.pad
        logits = self._write(self._read(encoded, is_token), is_token, self._blank(is_token))
        of_length = encoded.length_log_probs.gather(1, is_token.sum(1, keepdim=True))[:, 0]
        log_probs = logits.log_softmax(-1).gather(2, target[..., None])[..., 0]
        return Scored(log_probs.masked_fill(~is_token, 0.0), of_length, "exact")

    def _blank(self, is_token: Tensor) -> Tensor:
        return torch.where(is_token, self.symbols.unk, self.symbols.pad)

    def _read(self, encoded: DenseEncoded, is_token: Tensor) -> Tensor:
        """(R, T, D): for each place of a canvas the frame that lies where it lies, the last one for the end symbol."""
        words = (is_token.sum(1, keepdim=True) - 1).clamp(min=1)
        places = torch.arange(is_token.size(1), device=is_token.device) * encoded.frame_lengths[:, None] // words
        last = (encoded.frame_lengths[:, None] - 1).clamp(min=0)
        places = torch.minimum(places, last)[..., None]
        return encoded.states.gather(1, places.expand(-1, -1, encoded.states.size(2)))

    def _write(self, read: Tensor, is_token: Tensor, tokens: Tensor) -> Tensor:
        to_go = is_token.flip(1).cumsum(1).flip(1)
        logits: Tensor = self._writer(read, tokens, to_go)
        return logits

    def _state(self, read: Tensor, is_token: Tensor, before: Tensor) -> DenseState:
        logits = self._write(read, is_token, before)
        tokens, _ = prediction.most_probable(logits, (self.symbols.pad, self.symbols.bos))
        return DenseState(tokens=tokens.masked_fill(~is_token, self.symbols.pad), logits=logits, read=read)


# --- several hypotheses a row


MOST_A_ROW = 4
"""Hypotheses that a row gives at most."""


class Partial(NamedTuple):
    tokens: list[int]
    scores: list[float]


def beam(log_probs: Tensor, size: int) -> list[Partial]:
    """The ``size`` most probable rows of words under (T, V) independent log-probabilities, the best first."""
    found = [Partial([], [])]
    for place in log_probs:
        scores, words = (top.tolist() for top in place.topk(size))
        longer = [Partial([*p.tokens, w], [*p.scores, s]) for p in found for w, s in zip(words, scores, strict=True)]
        found = sorted(longer, key=lambda partial: -sum(partial.scores))[:size]
    return found


@register_model("dense_beam", dataclass=DenseModelConfig)
class DenseBeam(Dense):
    """Its ``finish`` searches: a row has one to four hypotheses, as its words say."""

    name = "dense_beam"
    decode_options = BeamOptions

    def finish(self, state: DenseState) -> Finished:
        rows: list[Partial] = []
        owner: list[int] = []
        log_probs = state.logits.log_softmax(-1)
        log_probs[..., [self.symbols.pad, self.symbols.bos]] = -torch.inf
        for i, tokens in enumerate(state.tokens):
            words = tokens[tokens != self.symbols.pad]
            rows += beam(log_probs[i, : len(words)], self.size(words))
            owner += [i] * (len(rows) - len(owner))
        pad_sequence = torch.nn.utils.rnn.pad_sequence
        tokens = pad_sequence([torch.tensor(row.tokens) for row in rows], True, self.symbols.pad)
        scores = pad_sequence([torch.tensor(row.scores) for row in rows], True)
        rows_of, extra = torch.tensor(owner), -0.5 * (state.tokens[:, 0] % 3).float()
        return Finished(tokens, scores, extra[rows_of], rows_of)

    @staticmethod
    def size(words: Tensor) -> int:
        return 1 + int(words.sum()) % MOST_A_ROW


# --- a side column


@register_model("weighted", dataclass=DenseModelConfig)
class Weighted(Dense):
    """Its loss is that of the words, each sentence's times its weight. ``seen``: the columns of each batch."""

    name = "weighted"
    inputs = ("keys", "weights")

    def __init__(self, cfg: DenseModelConfig, symbols: Symbols) -> None:
        super().__init__(cfg, symbols)
        self.seen: list[dict[str, Tensor]] = []

    def forward(  # type: ignore[override]
        self, net_input: NetInput, target: Tensor, *, keys: Tensor, weights: Tensor
    ) -> list[Term]:
        self.seen.append({"keys": keys, "weights": weights})
        scored = self.score(self.encode(net_input), right_padded(target, self.symbols.pad)[0])
        return [Nats("weighted", -weights * (scored.tokens.sum(1) + scored.extra))]


@register_model("demanding", dataclass=DenseModelConfig)
class Demanding(Dense):
    name = "demanding"
    inputs = ("keys", "fertilities")
