"""The least model of ``nar_plugin.methods.contract.DecodingModel``.

It reads the mean of the source's words, writes a canvas as long as the source plus an offset, and refines it once.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from nar_plugin.methods import lengths, noise, options, prediction
from nar_plugin.methods.contract import Encoded, Finished, LengthProposals, NetInput, Pass, Request, Scored, State
from nar_plugin.methods.symbols import Symbols, right_padded
from nar_plugin.methods.terms import Term, Tokens


@dataclass
class MinimalConfig(FairseqDataclass):
    width: int = field(default=32, metadata={"help": "numbers a word"})
    offset: int = field(default=0, metadata={"help": "how much longer the target is than the source"})
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@dataclass(frozen=True, kw_only=True)
class MinimalOptions(options.Candidates, options.Lengths, options.Refinement):
    iterations: int = options.own(options.Refinement, "iterations", 1)


@dataclass(frozen=True, kw_only=True)
class MinimalEncoded(Encoded):
    """``mean``: (B, D), of the source's words; ``lengths``: (B,), of its target."""

    mean: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class MinimalState(State):
    tokens: Tensor
    scores: Tensor
    encoded: MinimalEncoded


class Reader(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)

    def forward(self, source: Tensor, is_source: Tensor) -> Tensor:
        """(B, S) ids to the (B, D) mean of their embeddings."""
        states = self.words(source) * is_source[..., None]
        return states.sum(1) / is_source.sum(1, keepdim=True).clamp(min=1)


class Writer(nn.Module):
    def __init__(self, words: int, width: int, longest: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.before, self.output = nn.Embedding(words, width), nn.Linear(width, words)

    def forward(self, mean: Tensor, tokens: Tensor) -> Tensor:
        """(R, D) sources and (R, T) words so far, each seen with the one before it, to (R, T, V) logits."""
        before = F.pad(tokens, (1, 0))[:, :-1]
        states = mean[:, None] + self.places.weight[: tokens.size(1)] + self.words(tokens) + self.before(before)
        return self.output(torch.tanh(states))


@register_model("minimal", dataclass=MinimalConfig)
class Minimal(BaseFairseqModel):
    name, criterions, inputs = "minimal", ("token_length",), ()
    decode_options = MinimalOptions

    def __init__(self, cfg: MinimalConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__()
        self._cfg, self.symbols = cfg, symbols
        self._reader = Reader(source_size, cfg.width)
        self._writer = Writer(symbols.size, cfg.width, cfg.max_target_positions)
        self.passes = {"read": Pass(self._reader, "reader"), "write": Pass(self._writer, "decoder")}

    @classmethod
    def build_model(cls, cfg: MinimalConfig, task: Any) -> "Minimal":
        return cls(cfg, task.symbols, len(task.source_dictionary))

    def max_positions(self) -> tuple[int, int]:
        return self._cfg.max_source_positions, self._cfg.max_target_positions

    def forward(self, net_input: NetInput, target: Tensor) -> list[Term]:
        target, is_token = right_padded(target, self.symbols.pad)
        encoded = self.encode(net_input)
        first = self._writer(encoded.mean, self._blank(is_token))
        second = self._writer(encoded.mean, self._words(first, is_token)[0])
        logits = torch.cat([first[is_token], second[is_token]])
        return [Tokens("token", logits, target[is_token].repeat(2))]

    def encode(self, net_input: NetInput) -> MinimalEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        return MinimalEncoded(
            keys=noise.source_keys(source, is_source),
            is_empty=~(is_source & (source != self.symbols.eos)).any(1),
            mean=self._reader(source, is_source),
            lengths=is_source.sum(1) + self._cfg.offset,
        )

    def propose(self, encoded: MinimalEncoded, request: Request[MinimalOptions]) -> LengthProposals:
        center = encoded.lengths if request.lengths is None else request.lengths
        return LengthProposals(lengths=lengths.window(center, request.n, self._cfg.max_target_positions).flatten())

    def start(self, encoded: MinimalEncoded, proposals: LengthProposals) -> MinimalState:
        is_token, _ = lengths.canvas(proposals.lengths)
        tokens, scores = self._words(self._writer(encoded.mean, self._blank(is_token)), is_token)
        return MinimalState(tokens=tokens, scores=scores, encoded=encoded)

    def refine(self, state: MinimalState, step: int, steps: int) -> MinimalState:
        logits = self._writer(state.encoded.mean, state.tokens)
        tokens, scores = self._words(logits, state.tokens != self.symbols.pad)
        return replace(state, tokens=tokens, scores=scores)

    def max_steps(self, asked: int) -> int:
        return min(asked, 1)

    def finish(self, state: MinimalState) -> Finished:
        return Finished(state.tokens, state.scores)

    def score(self, encoded: MinimalEncoded, target: Tensor) -> Scored:
        is_token = target != self.symbols.pad
        logits = self._writer(encoded.mean, self._blank(is_token))
        log_probs = logits.log_softmax(-1).gather(2, target[..., None])[..., 0]
        return Scored(log_probs.masked_fill(~is_token, 0.0), torch.zeros_like(encoded.mean[:, 0]), "proxy")

    def _blank(self, is_token: Tensor) -> Tensor:
        """(R, T) canvases before the first pass."""
        return torch.where(is_token, self.symbols.unk, self.symbols.pad)

    def _words(self, logits: Tensor, is_token: Tensor) -> tuple[Tensor, Tensor]:
        tokens, scores = prediction.most_probable(logits, (self.symbols.pad, self.symbols.bos))
        return tokens.masked_fill(~is_token, self.symbols.pad), scores.masked_fill(~is_token, 0.0)
