"""CTC: words and blanks on a canvas several times as long as the source, in one pass.

Libovický & Helcl 2018 (arXiv 1811.04719), Saharia et al. 2020 (arXiv 2004.07437); glancing and deep supervision after
Qian et al. 2021 and Huang et al. 2022 (``methods.ctc``). The loss sums over all alignments. The blocks are those of
Vaswani et al. 2017, as a teacher's. Position i of a canvas begins as the source's word ⌊i / upsample⌋. The blank is an
output past the dictionary's end, and a row of the table there. The end symbol of a target is on no canvas: what is read
has an end anyway.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import alignments, glancing, options, prediction, prefix_beam
from ..methods import ctc as method
from ..methods import lengths as length_classes
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
from ..methods.terms import Alignments, Nats, Term
from ..methods.transformer import Memory, Projection, padding_mask
from . import base


@dataclass
class CtcConfig(base.GlancingConfig, base.VaswaniConfig):
    upsample: int = field(default=2, metadata={"help": "positions of the canvas for each token of the source"})
    deep_supervision: bool = field(
        default=False, metadata={"help": "every layer predicts, is taught, and tells the next what it says"}
    )


@dataclass(frozen=True, kw_only=True)
class CtcOptions(options.Candidates, options.Vocabulary, options.PrefixBeam, options.History):
    own_norm: ClassVar[str] = "sum"
    lacking: ClassVar[Mapping[str, str]] = {"deduplicate": "on whose canvas equal neighbours are one word"}


@dataclass(frozen=True, kw_only=True)
class CtcEncoded(Encoded):
    """``source``: (B, S) ids; ``lengths``: (B,) how many; every decoder layer's keys and values of it, if there is a
    decoder."""

    source: Tensor
    lengths: Tensor
    is_source: Optional[Tensor]
    memory: Optional[Tuple[Memory, ...]]


@dataclass(frozen=True, kw_only=True)
class CtcProposals(LengthProposals):
    """``beam``: hypotheses that are sought; 1: the best alignment is read."""

    beam: int


@dataclass(frozen=True, kw_only=True)
class CtcState(State):
    """``said``, ``scores``: (R, C) what each position says, a blank or a word, and its log-probability in nats; or, for
    a search, ``log_probs``: (R, C, U) of all that it may say, the blank last. ``beam`` as in the proposals."""

    is_canvas: Tensor
    said: Optional[Tensor]
    scores: Optional[Tensor]
    log_probs: Optional[Tensor]
    shortlist: Optional[Shortlist]
    beam: int


@register_model("ctc", dataclass=CtcConfig)
class CtcModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; ``C`` positions of the canvas, as many times a source's as ``--upsample``."""

    cfg: CtcConfig
    criterions = ("alignment",)
    decode_options = CtcOptions

    def __init__(self, cfg: CtcConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, upsample=1, encoder_layers=1, decoder_layers=0)
        self.glance = glancing.Schedule(cfg.glance, cfg.max_update)
        dim, is_alone = cfg.encoder_embed_dim, not cfg.decoder_layers
        if is_alone and self.is_encoder_frozen:
            raise UsageError("--freeze encoder: beside --decoder-layers 0 nothing is left that would learn")
        target_table = nn.Embedding(symbols.size + 1, dim)
        is_shared = cfg.share_all_embeddings
        source_table = self.source_table(target_table, source_size) if is_shared else nn.Embedding(source_size, dim)
        self.source_embedding = self.build_embedding(source_table, cfg.max_source_positions)
        self.target_embedding = self.build_embedding(target_table, cfg.upsample * cfg.max_source_positions)
        self.encoder = self.build_stack("encoder")
        self.decoder = None if is_alone else self.build_stack("decoder")
        if is_alone:  # the encoder reads the canvas
            self.source_embedding.positions = self.target_embedding.positions
        projection, stack = Projection(target_table, symbols.size + 1), self.decoder or self.encoder
        self.predictions = None
        if cfg.deep_supervision and len(stack.layers) > 1:
            self.predictions = method.LayerPredictions(len(stack.layers), self.target_embedding, projection)
        self.initialize()
        if self.predictions is not None:
            self.predictions.reset()
        copied = target_table if is_shared else source_table
        decoder = method.Decoder(copied, self.target_embedding, stack, self.predictions)
        self.passes = {"decode": Pass(decoder, "decoder"), "project": Pass(projection)}
        if self.decoder is not None:
            encoder = method.Encoder(self.source_embedding, self.encoder, self.decoder)
            self.passes = {"encode": Pass(encoder, "encoder"), **self.passes}

    @property
    def blank(self) -> int:
        """Its id, which is an output here."""
        return self.symbols.mask

    @property
    def banned(self) -> Tuple[int, ...]:
        return *super().banned, self.symbols.eos

    def set_num_updates(self, num_updates: int) -> None:
        """The task says how far the training is, after a resume too."""
        super().set_num_updates(num_updates)
        self.glance.update = num_updates

    def encode(self, net_input: NetInput) -> CtcEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask = padding_mask(is_source)
        memory = None if self.decoder is None else self.run("encode", source, mask)
        facts, lengths = self.source_facts(source, is_source), is_source.sum(1)
        return CtcEncoded(**facts, source=source, lengths=lengths, is_source=mask, memory=memory)

    def is_canvas(self, encoded: CtcEncoded) -> Tensor:
        """(R, C) where the canvas is."""
        times = self.cfg.upsample
        return length_classes.is_within(times * encoded.lengths, times * encoded.source.size(1))

    def decode(
        self, encoded: CtcEncoded, shown: Optional[Tensor] = None, keeps_lower: bool = False
    ) -> Tuple[Tensor, List[Tensor]]:
        """The one decoder pass: (R, C, D) states, and the logits of lower layers (``methods.ctc.Decoder``)."""
        canvas, mask = (
            None if x is None else x.repeat_interleave(self.cfg.upsample, 1)
            for x in (encoded.source, encoded.is_source)
        )
        return self.run("decode", canvas, mask, encoded.memory, encoded.is_source, shown, keeps_lower)

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """``alignment`` of the last layer and, with deep supervision, ``layer1`` … of those below, with equal weights.
        In training part of the best alignment may be shown; ``keys`` choose which."""
        encoded, lengths = self.encode(net_input), is_token.sum(1) - 1
        on_canvas = self.cfg.upsample * encoded.lengths
        least = alignments.least_canvas(target, lengths)
        is_fitting = least <= on_canvas
        shown = self.glimpse(encoded, target, lengths, is_fitting, keys) if self.training else None
        states, lower = self.decode(encoded, shown, keeps_lower=True)
        weight, terms = 1 / (len(lower) + 1), []

        def nats(logits: Tensor) -> Tensor:
            return alignments.minus_log_likelihood(logits, target, lengths, on_canvas, self.blank)

        for i in range(len(lower)):  # logits are let go as their loss is made
            terms.append(Nats(f"layer{i + 1}", nats(lower.pop(0)), is_fitting, weight))
        factors = (least + encoded.lengths - 1).div(encoded.lengths, rounding_mode="floor").clamp(min=1)
        last = nats(self.project(states))
        facts = Alignments("alignment", last, is_fitting, weight, factor=self.cfg.upsample, least_factor=factors)
        return [*terms, facts]

    @torch.no_grad()
    def glimpse(
        self, encoded: CtcEncoded, target: Tensor, lengths: Tensor, is_fitting: Tensor, keys: Tensor
    ) -> Optional[Tensor]:
        """What a first pass, with the dropout of the second, lets be shown; None where the ratio is 0."""
        ratio = self.glance.ratio
        if not ratio:
            return None
        with glancing.first_pass(target.device):
            states, _ = self.decode(encoded)
        is_canvas = self.is_canvas(encoded)
        said, aligned = method.said_and_aligned(self.project(states), target, lengths, is_canvas, self.blank)
        return method.glimpse(keys, said, aligned, is_canvas, is_fitting, ratio)

    def propose(self, encoded: CtcEncoded, request: Request[CtcOptions]) -> CtcProposals:
        """One canvas a sentence."""
        return CtcProposals(lengths=self.cfg.upsample * encoded.lengths, beam=request.options.lengths)

    def start(self, encoded: CtcEncoded, proposals: CtcProposals) -> CtcState:
        """The pass; what positions say is chosen here, or all probabilities are kept for a search."""
        shortlist = None if encoded.shortlist is None else self.with_blank(encoded.shortlist)
        is_canvas, (states, _) = self.is_canvas(encoded), self.decode(encoded)
        log_probs = self.log_probs(self.project(states, shortlist), shortlist)
        state = CtcState(
            is_canvas=is_canvas, said=None, scores=None, log_probs=log_probs, shortlist=shortlist, beam=proposals.beam
        )
        if proposals.beam > 1:
            return state
        scores, places = prediction.greatest(log_probs)
        return replace(state, said=self.words_at(places, shortlist), scores=scores, log_probs=None)

    def canvas(self, encoded: CtcEncoded) -> Tuple[Tensor, Tensor, Tensor]:
        """(B, C) what each position says, a word or the blank, its log-probability in nats, and where it is read."""
        state = self.start(encoded, CtcProposals(lengths=self.cfg.upsample * encoded.lengths, beam=1))
        assert state.said is not None and state.scores is not None
        return state.said, state.scores, alignments.is_read(state.said, state.is_canvas, self.blank)

    def with_blank(self, shortlist: Shortlist) -> Shortlist:
        """The words and, last, the blank, which every position may say; the end symbol none."""
        words = shortlist.once("words and the blank", lambda words: F.pad(words, (0, 1), value=self.blank))
        is_allowed = F.pad(shortlist.is_allowed, (0, 1), value=True)
        return replace(shortlist, words=words, is_allowed=is_allowed & (words != self.symbols.eos))

    def finish(self, state: CtcState) -> Finished:
        """The words that are read, and ``</s>``. Of one alignment a word has the log-probability of its first position,
        and those of all other positions are extra; of a search each has its own, given those before."""
        if state.said is None or state.scores is None:
            return self.hypotheses(state)
        words, scores = alignments.read(state.said, state.scores, state.is_canvas, self.blank, self.symbols)
        extra = state.scores.masked_fill(~state.is_canvas, 0.0).sum(1) - scores.sum(1)
        return Finished(words, scores, extra)

    def hypotheses(self, state: CtcState) -> Finished:
        """Those of a prefix beam search, ranked by the exact sums over their alignments, best first."""
        assert state.log_probs is not None
        log_probs, is_canvas, n = state.log_probs, state.is_canvas, state.beam
        words, sizes, is_there = prefix_beam.search(log_probs, is_canvas, n)
        said = alignments.states(words, log_probs.size(2) - 1)
        emitted = alignments.emissions(log_probs, said.flatten(1), is_canvas, log_probs.size(2) - 1)
        emitted = emitted.unflatten(2, said.shape[1:]).transpose(1, 2)
        row, nth = is_there.nonzero(as_tuple=True)
        words, sizes, said = words[row, nth], sizes[row, nth], said[row, nth]
        scores = alignments.log_likelihoods(emitted[row, nth], said, sizes, log_probs.size(2) - 1)
        order = scores.sum(1).argsort(descending=True, stable=True)
        order = order[row[order].argsort(stable=True)]
        is_word = length_classes.is_within(sizes, words.size(1))
        words = self.words_at(words, state.shortlist).masked_fill(~is_word, self.symbols.pad)
        words = F.pad(words, (0, 1), value=self.symbols.pad).scatter(1, sizes[:, None], self.symbols.eos)
        return Finished(words[order], scores[order], owner=row)

    def score(self, encoded: CtcEncoded, target: Tensor) -> Scored:
        """Of every word given those before, and of the end: exactly, over all alignments; −∞ where there is none."""
        target, is_token = right_padded(target, self.symbols.pad)
        is_canvas, (states, _) = self.is_canvas(encoded), self.decode(encoded)
        log_probs = self.project(states).float().log_softmax(-1)
        said = alignments.states(target, self.blank)
        emitted = alignments.emissions(log_probs, said, is_canvas, self.blank)
        scores = alignments.log_likelihoods(emitted, said, is_token.sum(1) - 1, self.blank)
        return Scored(scores[:, : target.size(1)], scores.new_zeros(len(scores)), "exact")


PRENORM = {"normalize_before": True}  # as the teachers of the small corpora; elsewhere these norm after each block

base.register_presets(
    "ctc",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1, **PRENORM},
    iwslt16_de_en={"dropout": 0.1},
    iwslt14_de_en={"dropout": 0.3},
    wmt14_en_de={"dropout": 0.1},
    wmt16_ro_en={"dropout": 0.1},
)
