"""Mask-predict: a conditional masked language model decoded in a few passes over masked words.

Ghazvininejad, Levy, Liu & Zettlemoyer 2019, arXiv 1904.09324. Encoder with a LENGTH token in front whose state predicts
the target length (section 2.3); decoder without causal mask; BERT's initialisation, GELU, learned positions, layer norm
after each block, embeddings not scaled, as released. The mask is an input row past the dictionary's end and no output.
"""

from dataclasses import dataclass, field, replace
from typing import List, Optional, Tuple

import torch
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import glancing, options, prediction, unmasking
from ..methods import lengths as length_classes
from ..methods import mask_predict as method
from ..methods.contract import (
    Encoded,
    Finished,
    LengthProposals,
    NetInput,
    Pass,
    Request,
    Scored,
    Shortlist,
    State,
    UsageError,
)
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Term, Tokens
from ..methods.transformer import Memory, Projection, padding_mask
from . import base


@dataclass
class MaskPredictConfig(base.GlancingConfig, base.TransformerConfig):
    release_compat: bool = field(
        default=False, metadata={"help": "in training mask 1 to N - 1 tokens as the released code does, not 1 to N"}
    )
    mask_span: bool = field(
        default=False, metadata={"help": "in training mask one contiguous span, not a random subset"}
    )


@dataclass(frozen=True, kw_only=True)
class MaskPredictOptions(
    options.Candidates, options.Vocabulary, options.Deduplication, options.Lengths, options.Unmasking
):
    iterations: int = options.own(options.Refinement, "iterations", 9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deduplicate and self.steps:
            raise UsageError("--deduplicate: one pass alone says all words at once here (--iter-decode-max-iter 0)")


@dataclass(frozen=True, kw_only=True)
class MaskPredictEncoded(Encoded):
    """Every decoder layer's keys and values of the source, and the length prediction."""

    memory: Tuple[Memory, ...]
    is_source: Optional[Tensor]
    length_log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class MaskPredictProposals(LengthProposals):
    plan: unmasking.Plan


@dataclass(frozen=True, kw_only=True)
class MaskPredictState(State):
    """``scores``: (R, T) log-probability of each token at the pass that predicted it, 0 at pads; ``evidence``: what the
    rule of the plan measured there, if it does. ``mask``: (R, T) where no pad is, or None where no row has padding.
    ``chosen``: (R, M) positions that the next pass masks, None after the last one.
    """

    tokens: Tensor
    encoded: MaskPredictEncoded
    plan: unmasking.Plan
    lengths: Tensor
    mask: Optional[Tensor]
    scores: Tensor
    evidence: Optional[Tensor]
    chosen: Optional[Tensor] = None


@register_model("mask_predict", dataclass=MaskPredictConfig)
class MaskPredictModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; lengths count ``</s>``, which is masked and predicted like any token."""

    criterions = ("token_length",)
    freezable = ()  # the encoder reads a LENGTH token
    decode_options = MaskPredictOptions

    def __init__(self, cfg: MaskPredictConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        if cfg.glance and (cfg.release_compat or cfg.mask_span):
            raise UsageError("--glance chooses what is masked in training: not with --release-compat or --mask-span")
        self.glance = glancing.Schedule(cfg.glance, cfg.max_update)
        dim = cfg.encoder_embed_dim
        target_table = nn.Embedding(symbols.size + 1, dim)
        source_table = target_table if cfg.share_all_embeddings else nn.Embedding(source_size, dim)
        self.source_embedding = self.build_embedding(source_table, cfg.max_source_positions)
        self.target_embedding = self.build_embedding(target_table, cfg.max_target_positions)
        self.length_table = nn.Embedding(cfg.max_target_positions + 1, dim)
        self.length_dropout = nn.Dropout(cfg.dropout)
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder")
        self.initialize()
        encoder = method.Encoder(
            self.source_embedding, self.length_table, self.length_dropout, self.encoder, self.decoder
        )
        self.passes = {
            "encode": Pass(encoder, "encoder"),
            "decode": Pass(method.Decoder(self.target_embedding, self.decoder), "decoder"),
            "project": Pass(Projection(target_table, symbols.size)),  # tied to the input table less its mask row
        }

    def set_num_updates(self, num_updates: int) -> None:
        """The task says how far the training is, after a resume too."""
        super().set_num_updates(num_updates)
        self.glance.update = num_updates

    def encode(self, net_input: NetInput) -> MaskPredictEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask = padding_mask(is_source)
        memory, log_probs = self.run("encode", source, mask)
        facts = self.source_facts(source, is_source)
        return MaskPredictEncoded(**facts, memory=memory, is_source=mask, length_log_probs=log_probs)

    def decode(self, encoded: MaskPredictEncoded, tokens: Tensor, mask: Optional[Tensor]) -> Tensor:
        """One decoder pass: (R, T) ids, some of them masks, to (R, T, D) states."""
        return self.run("decode", tokens, mask, encoded.memory, encoded.is_source)

    def masked_logits(self, encoded: MaskPredictEncoded, target: Tensor, masked: Tensor) -> Tensor:
        """(M, V) logits at the masked places of (B, T) targets."""
        mask = padding_mask(target != self.symbols.pad)
        states = self.decode(encoded, target.masked_fill(masked, self.symbols.mask), mask)
        return self.project(states[masked])

    def length_log_probs(self, encoded: MaskPredictEncoded) -> Tensor:
        return encoded.length_log_probs

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """``token`` over the masked positions, ``length`` once a sentence (section 3.1); ``keys`` choose the masks.

        With ``--glance`` all words are masked but, in training, those that are shown.
        """
        encoded = self.encode(net_input)
        if self.cfg.glance:
            masked = is_token & ~self.glimpse(encoded, target, is_token, keys) if self.training else is_token
        else:
            masked = method.training_mask(keys, is_token, self.cfg.release_compat, self.cfg.mask_span)
        return [
            Tokens("token", self.masked_logits(encoded, target, masked), target[masked]),
            Classes("length", encoded.length_log_probs, is_token.sum(1)),
        ]

    @torch.no_grad()
    def glimpse(self, encoded: MaskPredictEncoded, target: Tensor, is_token: Tensor, keys: Tensor) -> Tensor:
        """(B, T) the words that are shown after a first pass, which has the dropout of the second."""
        if not self.glance.ratio:
            return torch.zeros_like(is_token)
        with glancing.first_pass(target.device):
            _, said = prediction.greatest(self.masked_logits(encoded, target, is_token))
        is_wrong = torch.zeros_like(is_token).masked_scatter(is_token, said != target[is_token])
        return glancing.shown(keys, is_token, is_wrong.sum(1), self.glance.ratio)

    def propose(self, encoded: MaskPredictEncoded, request: Request[MaskPredictOptions]) -> MaskPredictProposals:
        """The most probable lengths, best first, or a window around the reference's (released decoder)."""
        if request.lengths is None:
            candidates = length_classes.top_lengths(encoded.length_log_probs, request.n)
        else:
            candidates = self.lengths_around(request.lengths, request.n)
        asked = request.options
        plan = unmasking.Plan(rule=asked.unmask, threshold=asked.threshold, passes=asked.steps + 1)
        return MaskPredictProposals(lengths=candidates.flatten(), plan=plan)

    def start(self, encoded: MaskPredictEncoded, proposals: MaskPredictProposals) -> MaskPredictState:
        """Pass 1: every position masked, every position predicted (section 4)."""
        is_token, mask = length_classes.canvas(proposals.lengths)
        tokens = proposals.lengths.new_full(is_token.shape, self.symbols.mask).masked_fill(~is_token, self.symbols.pad)
        plan, states = proposals.plan, self.decode(encoded, tokens, mask)
        if encoded.penalty is None:
            tokens, scores, evidence = self.predict(states, plan, encoded.shortlist)
        else:  # there is no further pass, for which evidence would be
            logits, evidence = self.project(states, encoded.shortlist), None
            tokens, scores = self.chosen(logits, is_token, encoded.shortlist, encoded.penalty)
        state = MaskPredictState(
            tokens=tokens.masked_fill(~is_token, self.symbols.pad),
            encoded=encoded,
            plan=plan,
            lengths=proposals.lengths,
            mask=mask,
            scores=scores.masked_fill(~is_token, 0.0),
            evidence=None if evidence is None else evidence.masked_fill(~is_token, 0.0),
        )
        return self.with_masks(state, 1)

    def refine(self, state: MaskPredictState, step: int, steps: int) -> MaskPredictState:
        """Pass ``step`` + 1: predict the chosen positions anew and leave the rest as they are.

        The vocabulary projection, the dearest product of a pass, is made at the masked positions only.
        """
        assert state.chosen is not None
        chosen, shortlist = state.chosen, state.encoded.shortlist
        states = self.decode(state.encoded, state.tokens.scatter(1, chosen, self.symbols.mask), state.mask)
        states = states.gather(1, chosen[..., None].expand(-1, -1, states.size(-1)))
        predicted, scores, evidence = self.predict(states, state.plan, shortlist)
        # where a row repeats a position, it writes the same prediction twice
        state = replace(
            state,
            tokens=state.tokens.scatter(1, chosen, predicted),
            scores=state.scores.scatter(1, chosen, scores),
        )
        if state.evidence is not None and evidence is not None:
            state = replace(state, evidence=state.evidence.scatter(1, chosen, evidence))
        return self.with_masks(state, step + 1)

    def predict(
        self, states: Tensor, plan: unmasking.Plan, shortlist: Optional[Shortlist]
    ) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        """(R, M, D) states to the (R, M) most probable ids, their log-probabilities in nats, and the evidence."""
        log_probs = self.log_probs(self.project(states, shortlist), shortlist)
        scores, places = prediction.greatest(log_probs)
        measure = unmasking.RULES[plan.rule].measure
        return self.words_at(places, shortlist), scores, None if measure is None else measure(log_probs, places)

    def with_masks(self, state: MaskPredictState, step: int) -> MaskPredictState:
        """The state after pass ``step`` with what the next one masks, by the rule of the plan."""
        plan = state.plan
        if step == plan.passes:
            return replace(state, chosen=None, done=None)
        canvas = unmasking.Canvas(
            state.scores, state.evidence, state.chosen, state.lengths, state.mask, step, plan.passes
        )
        chosen, done = unmasking.RULES[plan.rule].masks(canvas, plan.threshold)
        return replace(state, chosen=chosen, done=done)

    def finish(self, state: MaskPredictState) -> Finished:
        return Finished(state.tokens, state.scores)

    def redraft(self, encoded: MaskPredictEncoded, tokens: Tensor, is_token: Tensor, known: Tensor) -> Tensor:
        """(R, T) targets of which the first (R,) ``known`` tokens are given: one pass with the others masked."""
        is_known = length_classes.is_within(known, tokens.size(1))
        masked = is_token & ~is_known
        states = self.decode(encoded, tokens.masked_fill(masked, self.symbols.mask), padding_mask(is_token))
        found, _ = self.most_probable(self.project(states), is_token)
        return torch.where(masked, found, tokens)

    def score(self, encoded: MaskPredictEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from a fully masked canvas of its length, and of that length.

        Exact for one pass; what more passes refine has no likelihood.
        """
        target, is_token = right_padded(target, self.symbols.pad)
        canvas = torch.full_like(target, self.symbols.mask).masked_fill(~is_token, self.symbols.pad)
        logits = self.project(self.decode(encoded, canvas, is_token))
        of_length = encoded.length_log_probs.gather(1, is_token.sum(1, keepdim=True))[:, 0]
        return Scored(self.target_log_probs(logits, target, is_token), of_length, "exact")


# The small presets differ from the release: pre-norm, which forgives a high learning rate. It needs Glorot's
# initialisation: under N(0, 0.02) pre-norm residual branches start too weak, and a training that reaches the teacher's
# BLEU with either of the other pairings (post-norm with N(0, 0.02), as released, too) learns next to nothing.
PRENORM = {"initialization": "xavier", "positions": "sinusoidal", "normalize_before": True}

base.register_presets(
    "mask_predict",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1, "activation_fn": "relu", **PRENORM},  # as the teachers of the small corpora
    iwslt16_de_en={"dropout": 0.1, **PRENORM},
    iwslt14_de_en={"dropout": 0.3, **PRENORM},
    wmt14_en_de={"dropout": 0.3},
    wmt16_ro_en={"dropout": 0.3},
)
