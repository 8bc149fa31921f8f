"""The first non-autoregressive transformer: each source word says how many words it becomes, and all are said at once.

Gu, Bradbury, Xiong, Li & Socher 2018, arXiv 1711.02281. A head on the encoder gives each source word a fertility; the
decoder reads the source's embeddings, each as often as its fertility says, and predicts every word in one pass. None of
its positions attends to itself, a second attention of every layer looks at positions alone, and decoder layer i attends
to encoder layer i. The fertilities of the training text are those of an alignment (``nar align``); several vectors of
them, drawn or searched, make the candidates of noisy parallel decoding.

Differs from the released code: ``</s>`` ends source and target and has the fertility 1, so it is predicted like any
word; a target has at most twice the tokens of its own source, not of the longest one; the argmax is always among the
candidates; the two losses are means over a sentence's words; attention is scaled by the width of a head.
"""

from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import fertility_nat as method
from ..methods import lengths as length_classes
from ..methods import noise, options, source_copy
from ..methods.contract import (
    Encoded,
    Finished,
    LengthProposals,
    NetInput,
    Pass,
    Request,
    Scored,
    State,
    UsageError,
)
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Fertilities, Term, Tokens
from ..methods.transformer import Memory, Projection, padding_mask
from . import base


@dataclass
class FertilityNatConfig(base.VaswaniConfig):
    """The paper's blocks, with norm after each."""

    attend_top: bool = field(default=False, metadata={"help": "every decoder layer attends to the top encoder layer"})


@dataclass(frozen=True, kw_only=True)
class FertilityNatOptions(options.Candidates, options.Vocabulary, options.Deduplication, options.Fertilities):
    """Noisy parallel decoding; without samples, the most probable or the average fertilities."""


@dataclass(frozen=True, kw_only=True)
class FertilityNatEncoded(Encoded):
    """``copied``: (B, S, D) source embeddings with positions; every decoder layer's keys and values of the source;
    ``log_probs``: (B, S, 50) of fertilities in nats, what is certain at ends and pads."""

    copied: Tensor
    lengths: Tensor
    is_source: Optional[Tensor]
    memory: Tuple[Memory, ...]
    log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class FertilityNatProposals(LengthProposals):
    """``fertilities``: (R, S), which sum to the lengths."""

    fertilities: Tensor


@dataclass(frozen=True, kw_only=True)
class FertilityNatState(State):
    """``tokens``, ``scores``: (R, T) words and their log-probabilities, 0 at pads; ``extra``: (R,) log p(f | x)."""

    tokens: Tensor
    scores: Tensor
    extra: Tensor


@register_model("fertility_nat", dataclass=FertilityNatConfig)
class FertilityNatModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; lengths count ``</s>``, which is predicted like any token."""

    criterions = ("token_length", "fertility_finetune")
    inputs = ("keys", "word_counts")
    decode_options = FertilityNatOptions

    def __init__(self, cfg: FertilityNatConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        if not cfg.attend_top and cfg.encoder_layers != cfg.decoder_layers:
            raise UsageError(
                "decoder layer i attends to encoder layer i: as many of one as of the other, or --attend-top"
            )
        dim = cfg.encoder_embed_dim
        target_table = nn.Embedding(symbols.size, dim)
        is_shared = cfg.share_all_embeddings
        source_table = self.source_table(target_table, source_size) if is_shared else nn.Embedding(source_size, dim)
        self.source_embedding = self.build_embedding(source_table, cfg.max_source_positions)
        self.target_embedding = self.build_embedding(target_table, cfg.max_target_positions)
        self.encoder = self.build_stack("encoder")
        self.decoder = self.build_stack("decoder", has_positions=True)
        self.fertility_head = nn.Linear(dim, method.CLASSES)
        self.bias = nn.Parameter(torch.zeros(symbols.size))
        self.initialize()
        encoder = method.Encoder(self.source_embedding, self.encoder, self.decoder, self.fertility_head, cfg.attend_top)
        decoder = source_copy.CopyPass(self.target_embedding, self.decoder, is_blind=True)
        self.passes = {
            "encode": Pass(encoder, "encoder"),
            "decode": Pass(decoder, "decoder"),
            "project": Pass(Projection(target_table, symbols.size)),
        }

    @property
    def output_bias(self) -> Tensor:
        return self.bias

    def shares_encoder(self, teacher: object) -> bool:
        """Its decoder attends to all layers of the encoder, whose top states alone are not enough."""
        return False

    def encode(self, net_input: NetInput) -> FertilityNatEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask, lengths = padding_mask(is_source), is_source.sum(1)
        copied, memory, log_probs = self.run("encode", source, mask)
        return FertilityNatEncoded(
            **self.source_facts(source, is_source),
            copied=copied,
            lengths=lengths,
            is_source=mask,
            memory=memory,
            log_probs=method.pinned(log_probs, lengths),
        )

    def decode(self, encoded: FertilityNatEncoded, fertilities: Tensor, width: int, mask: Optional[Tensor]) -> Tensor:
        """The one decoder pass: (R, S) fertilities to (R, width, D) states."""
        places = method.source_places(fertilities, encoded.lengths, width)
        return self.run("decode", encoded.copied, places, mask, encoded.memory, encoded.is_source)

    def loss_terms(
        self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor, word_counts: Tensor
    ) -> List[Term]:
        """``token`` over all words of the targets, put where (B, S) ``word_counts`` have them; ``fertility`` over the
        words of the sources, those of a sentence as often as its target has words, so that either loss is a mean over
        words, and the sum of both is divided by one number.
        """
        encoded = self.encode(net_input)
        word_counts = F.pad(word_counts, (0, encoded.log_probs.size(1) - word_counts.size(1)))
        states = self.decode(encoded, word_counts, target.size(1), padding_mask(is_token))
        words = method.is_word(encoded.lengths, word_counts.size(1))
        weights = is_token.sum(1) / words.sum(1).clamp(min=1)

        def write(fertilities: Tensor) -> Tuple[Tensor, Tensor]:
            return self.written(encoded, fertilities)

        fertility = Fertilities(
            "fertility",
            encoded.log_probs[words],
            word_counts[words].clamp(max=method.CLASSES - 1),
            weights=weights[:, None].expand_as(words)[words],
            log_probs=encoded.log_probs,
            lengths=encoded.lengths,
            is_token=is_token,
            write=write,
        )
        return [Tokens("token", self.project(states[is_token]), target[is_token]), fertility]

    @torch.no_grad()
    def written(self, encoded: FertilityNatEncoded, fertilities: Tensor) -> Tuple[Tensor, Tensor]:
        """The (M, V) logits of the words of (B, S) fertilities, and (B, T) where they stand."""
        fertilities = self.possible(encoded, fertilities)
        is_token, mask = length_classes.canvas(fertilities.sum(1))
        states = self.decode(encoded, fertilities, is_token.size(1), mask)
        return self.project(states[is_token]), is_token

    def possible(self, encoded: FertilityNatEncoded, fertilities: Tensor) -> Tensor:
        """Fertilities whose sum the model can write."""
        longest = self.cfg.max_target_positions
        return method.bounded(fertilities, encoded.log_probs, encoded.lengths, longest)

    def propose(self, encoded: FertilityNatEncoded, request: Request[FertilityNatOptions]) -> FertilityNatProposals:
        """The most probable, average, drawn or best fertilities; of a reference's length, the average ones scaled."""
        rows = torch.arange(len(encoded.lengths), device=encoded.lengths.device).repeat_interleave(request.n)
        some = encoded.select(rows)
        if request.lengths is None:
            fertilities = self.possible(some, self.fertilities_of(encoded, some, request))
        else:
            fertilities = method.apportioned(some.log_probs, some.lengths, request.lengths[rows].clamp(min=1))
        return FertilityNatProposals(lengths=fertilities.sum(1), fertilities=fertilities)

    def fertilities_of(
        self, encoded: FertilityNatEncoded, some: FertilityNatEncoded, request: Request[FertilityNatOptions]
    ) -> Tensor:
        """(R, S) fertilities as the options say; ``some``: each source as often as it has candidates."""
        asked, n = request.options, request.n
        if asked.fertility == "average":
            return method.average(some.log_probs)
        if asked.fertility == "search":
            return method.searched(encoded.log_probs, n).flatten(0, 1)
        best = method.most_probable(some.log_probs)
        if asked.fertility == "argmax" or n == 1:
            return best
        draws = noise.uniform(noise.candidate_keys(request.keys(), n), best.size(1))
        drawn = method.sampled(some.log_probs, draws, asked.fertility_temperature)
        is_drawn = torch.arange(n, device=best.device).repeat(len(encoded.lengths)) > 0
        return torch.where(is_drawn[:, None], drawn, best)

    def start(self, encoded: FertilityNatEncoded, proposals: FertilityNatProposals) -> FertilityNatState:
        """The pass, and the most probable word at every position."""
        is_token, mask = length_classes.canvas(proposals.lengths)
        states = self.decode(encoded, proposals.fertilities, is_token.size(1), mask)
        logits = self.project(states, encoded.shortlist)
        tokens, scores = self.most_probable(logits, is_token, encoded.shortlist, encoded.penalty)
        extra = method.log_prob(encoded.log_probs, proposals.fertilities)
        return FertilityNatState(tokens=tokens, scores=scores, extra=extra)

    def finish(self, state: FertilityNatState) -> Finished:
        return Finished(state.tokens, state.scores, state.extra)

    def score(self, encoded: FertilityNatEncoded, target: Tensor) -> Scored:
        """Log-probability of a target by the most probable fertilities of its length, and of these.

        A bound: other fertilities may give the target too. −∞ where no fertilities have its length.
        """
        target, is_token = right_padded(target, self.symbols.pad)
        fertilities, extra = method.of_length(encoded.log_probs, is_token.sum(1))
        logits = self.project(self.decode(encoded, fertilities, target.size(1), padding_mask(is_token)))
        return Scored(self.target_log_probs(logits, target, is_token), extra, "bound")


PRENORM = {"normalize_before": True}  # as in iterative refinement: pre-norm forgives a high learning rate
NARROW = {"encoder_ffn_embed_dim": 512, "decoder_ffn_embed_dim": 512}

base.register_presets(
    "fertility_nat",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1, **PRENORM},
    iwslt16_de_en={"dropout": 0.079},
    iwslt14_de_en={"dropout": 0.1},
    wmt14_en_de={"dropout": 0.1, **NARROW},
    wmt16_ro_en={"dropout": 0.1, **NARROW},
)
