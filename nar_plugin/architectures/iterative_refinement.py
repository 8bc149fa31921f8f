"""Deterministic iterative refinement: a first guess from the copied source, refined by one decoder any number of times.

Lee, Mansimov & Cho 2018, arXiv 1802.06901. Decoder 1 reads source embeddings copied to the target's length; decoder 2,
one set of weights for every refinement, reads the words of the pass before and its hidden states. Layers have attention
by position and a highway around the feed-forward block, and decoder layer i attends to encoder layer i. The objective
is α · J_LVM + (1 − α) · J_DAE, summed over the passes, with the reference as target of each.

Differs from the released code: corruption leaves ``</s>`` alone; means over the source leave out padding; attention is
scaled by the width of a head; the choice between J_LVM and J_DAE is drawn for each sentence, not once a batch.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Iterator, List, Optional, Tuple

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import iterative_refinement as method
from ..methods import lengths as length_classes
from ..methods import noise, options, prediction, source_copy
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

LONGEST_OFFSET = 20
"""A target is at most so many tokens longer or shorter than its source (released code: 41 classes)."""


@dataclass
class IterativeRefinementConfig(base.VaswaniConfig):
    """The paper's blocks, with norm after each."""

    train_refinements: int = field(default=4, metadata={"help": "refinements after the first pass in training"})
    share_decoders: bool = field(default=False, metadata={"help": "the first pass has the weights of the others"})
    lvm_share: float = field(
        default=0.5, metadata={"help": "alpha: share of refining the model's own words, not a corrupted reference"}
    )
    exact_mixture: bool = field(
        default=False, metadata={"help": "both losses of every refinement, weighted; else one is drawn a sentence"}
    )
    corruption: ChoiceEnum(["count", "probability"]) = field(  # type: ignore[valid-type]
        default="count", metadata={"help": "corrupt a fixed count of words (released code), or each by chance (paper)"}
    )
    corruption_rate: Optional[float] = field(
        default=None, metadata={"help": "share of corrupted words (default: falling with the refinements, as released)"}
    )
    next_input: ChoiceEnum(["both", "words", "hidden"]) = field(  # type: ignore[valid-type]
        default="both", metadata={"help": "what a refinement reads of the pass before"}
    )
    attend_top: bool = field(default=False, metadata={"help": "every decoder layer attends to the top encoder layer"})
    mask_diagonal: bool = field(
        default=False, metadata={"help": "no position of a decoder attends to itself (Gu et al. 2018)"}
    )
    stop_gradient: ChoiceEnum(["none", "hidden", "length", "both"]) = field(  # type: ignore[valid-type]
        default="hidden",
        metadata={"help": "where none flows: to the pass before (talk), from the length to the encoder"},
    )
    length_head: ChoiceEnum(["mlp", "linear"]) = field(  # type: ignore[valid-type]
        default="mlp", metadata={"help": "two layers on the top states (talk), or one on all states, detached (code)"}
    )
    sampled_words: bool = field(
        default=False, metadata={"help": "in training a refinement reads a sample of the pass before, not its argmax"}
    )
    train_target: ChoiceEnum(["reference", "prediction"]) = field(  # type: ignore[valid-type]
        default="reference", metadata={"help": "prediction: all passes but the last are taught their own words (talk)"}
    )
    pass_loss: ChoiceEnum(["sum", "mean"]) = field(  # type: ignore[valid-type]
        default="sum", metadata={"help": "passes are summed (Lee) or averaged (fairseq)"}
    )


@dataclass(frozen=True, kw_only=True)
class IterativeRefinementOptions(
    options.Candidates,
    options.Vocabulary,
    options.Deduplication,
    options.Lengths,
    options.Samples,
    options.Stopping,
):
    iterations: int = options.own(options.Refinement, "iterations", 4)
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")


@dataclass(frozen=True, kw_only=True)
class IterativeRefinementEncoded(Encoded):
    """``copied``: (B, S, D) source embeddings with positions; ``memories``: the source for decoder 1 and decoder 2."""

    copied: Tensor
    lengths: Tensor
    is_source: Optional[Tensor]
    memories: Tuple[Tuple[Memory, ...], Tuple[Memory, ...]]
    offset_log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class IterativeRefinementProposals(LengthProposals):
    """``samples``: how many runs there are beside the deterministic one; ``keys``: (R,) their noise keys."""

    samples: int
    keys: Optional[Tensor]


@dataclass(frozen=True, kw_only=True)
class IterativeRefinementState(State):
    """``words``: (R, N, T) ids that each run reads next, the first its most probable ones, the others samples;
    ``hidden``: (R, N, T, D) their top states; ``tokens``, ``scores``: (R, T) the most probable words of all runs
    together and their log-probabilities, 0 at pads.

    ``mask`` is ``is_token``, or None where no row has padding.
    """

    tokens: Tensor
    scores: Tensor
    words: Tensor
    hidden: Tensor
    keys: Optional[Tensor]
    encoded: IterativeRefinementEncoded
    is_token: Tensor
    mask: Optional[Tensor]


@register_model("iterative_refinement", dataclass=IterativeRefinementConfig)
class IterativeRefinementModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; lengths count ``</s>``, which is predicted like any token."""

    criterions = ("token_length",)
    decode_options = IterativeRefinementOptions

    def __init__(self, cfg: IterativeRefinementConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        if cfg.train_refinements < 0:
            raise UsageError("--train-refinements needs 0 or more")
        for flag, share in (("--lvm-share", cfg.lvm_share), ("--corruption-rate", cfg.corruption_rate)):
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"{flag} needs a number from 0 to 1")
        if not cfg.attend_top and cfg.encoder_layers != cfg.decoder_layers:
            raise UsageError(
                "decoder layer i attends to encoder layer i: as many of one as of the other, or --attend-top"
            )
        dim = cfg.encoder_embed_dim
        shared = nn.Embedding(symbols.size, dim) if cfg.share_all_embeddings else None
        source_table = self.source_table(shared, source_size) if shared else nn.Embedding(source_size, dim)
        self.source_embedding = self.build_embedding(source_table, cfg.max_source_positions)
        self.target_embedding = self.build_embedding(
            shared or nn.Embedding(symbols.size, dim), cfg.max_target_positions
        )
        self.encoder = self.build_stack("encoder", is_highway=not self.is_encoder_frozen)  # no teacher has highways
        blocks = {"is_highway": True, "has_positions": True}
        later = self.build_stack("decoder", **blocks)
        self.decoder = method.Decoders(later if cfg.share_decoders else self.build_stack("decoder", **blocks), later)
        # decoder 1 has an output of its own; that of decoder 2 is the table by which it reads words
        self.first_output = shared or nn.Embedding(symbols.size, dim)
        if cfg.share_decoders:
            self.first_output = self.target_embedding.tokens
        hidden: List[nn.Module] = [nn.Linear(dim, dim), nn.ReLU()] if str(cfg.length_head) == "mlp" else []
        self.length_head = nn.Sequential(*hidden, nn.Linear(dim, 2 * LONGEST_OFFSET + 1))
        self.initialize()
        self.passes = self.networks()

    def networks(self) -> "dict[str, Pass]":
        cfg, embedding, decoder = self.cfg, self.target_embedding, self.decoder
        is_linear, next_input = str(cfg.length_head) == "linear", str(cfg.next_input)
        encode = method.Encoder(
            *(self.source_embedding, self.encoder, decoder, self.length_head),
            attends_top=cfg.attend_top,
            reads_all=is_linear,
            is_detached=is_linear or self.stops("length"),
        )
        reads = {"reads_words": next_input != "hidden", "reads_hidden": next_input != "words"}
        return {
            "encode": Pass(encode, "encoder"),
            "first": Pass(source_copy.CopyPass(embedding, decoder.first, cfg.mask_diagonal), "decoder"),
            "project_first": Pass(Projection(self.first_output, self.symbols.size)),
            "next": Pass(method.NextPass(embedding, decoder.later, cfg.mask_diagonal, **reads), "decoder"),
            "project": Pass(Projection(embedding.tokens, self.symbols.size)),
        }

    def stops(self, what: str) -> bool:
        """Whether ``--stop-gradient`` names ``hidden`` or ``length``."""
        return str(self.cfg.stop_gradient) in (what, "both")

    def encode(self, net_input: NetInput) -> IterativeRefinementEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask = padding_mask(is_source)
        copied, memories, offset_log_probs = self.run("encode", source, is_source, mask)
        return IterativeRefinementEncoded(
            **self.source_facts(source, is_source),
            copied=copied,
            lengths=is_source.sum(1),
            is_source=mask,
            memories=memories,
            offset_log_probs=offset_log_probs,
        )

    def first_pass(
        self, encoded: IterativeRefinementEncoded, lengths: Tensor, mask: Optional[Tensor], width: int
    ) -> Tensor:
        """Decoder 1 over the copied source: (R, width, D) states."""
        places = method.copied_places(encoded.lengths, lengths, width)
        return self.run("first", encoded.copied, places, mask, encoded.memories[0], encoded.is_source)

    def next_pass(
        self, encoded: IterativeRefinementEncoded, tokens: Tensor, hidden: Tensor, mask: Optional[Tensor]
    ) -> Tensor:
        """Decoder 2 over the words and hidden states of the pass before: (R, T, D) states."""
        if self.stops("hidden"):
            hidden = hidden.detach()
        return self.run("next", tokens, hidden, mask, encoded.memories[1], encoded.is_source)

    def project(self, states: Tensor, shortlist: Optional[Shortlist] = None, step: int = 1) -> Tensor:
        """Logits as in the base, of the states after ``step`` refinements."""
        return self.projected("project" if step else "project_first", states, shortlist)

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """``pass0`` … over all target tokens, ``length`` once a sentence (section 3.2). In validation nothing is
        corrupted."""
        encoded = self.encode(net_input)
        offset = (is_token.sum(1) - encoded.lengths).clamp(-LONGEST_OFFSET, LONGEST_OFFSET) + LONGEST_OFFSET
        terms: List[Term] = [*self.pass_terms(encoded, target, is_token, keys)]
        terms.append(Classes("length", encoded.offset_log_probs, offset))
        passes = 1 if str(self.cfg.pass_loss) == "sum" else self.cfg.train_refinements + 1
        return [replace(term, weight=term.weight / passes) for term in terms]

    def pass_terms(
        self, encoded: IterativeRefinementEncoded, target: Tensor, is_token: Tensor, keys: Tensor
    ) -> Iterator[Tokens]:
        """The loss of the first pass, whose tokens are counted, and of each refinement, which is about the same tokens:
        where the mixture is exact, of both kinds."""
        cfg, lengths, mask = self.cfg, is_token.sum(1), padding_mask(is_token)
        share = cfg.lvm_share if self.training else 1.0
        reference, last = target[is_token], cfg.train_refinements
        hidden = self.first_pass(encoded, lengths, mask, target.size(1))
        for k in range(last + 1):
            logits = self.project(hidden[is_token], step=k)
            own = self.words(logits, noise.fold(keys, 3 * k), is_token)
            taught = own[is_token] if str(cfg.train_target) == "prediction" and k < last else reference
            yield Tokens(f"pass{k}", logits, taught, share if k and cfg.exact_mixture else 1.0, is_counted=k == 0)
            if k == last:
                return
            read = own
            if share < 1:
                noisy = self.corrupted(noise.fold(keys, 3 * k + 1), target, lengths, k)
                if cfg.exact_mixture:
                    states = self.next_pass(encoded, noisy, hidden, mask)[is_token]
                    logits = self.project(states, step=k + 1)
                    yield Tokens(f"denoise{k + 1}", logits, reference, 1 - share, is_counted=False)
                else:
                    is_own = noise.uniform(noise.fold(keys, 3 * k + 2), 1) < share
                    read = torch.where(is_own, own, noisy)
            hidden = self.next_pass(encoded, read, hidden, mask)

    def words(self, logits: Tensor, keys: Tensor, is_token: Tensor) -> Tensor:
        """(B, T) ids of what a pass gives, (M, V) logits at the real positions: no gradient passes here."""
        logits = logits.detach()
        if self.cfg.sampled_words and self.training:
            words = prediction.sampled(logits, noise.uniform(keys, is_token.size(1))[is_token])
        else:
            words = prediction.greatest(logits.float())[1]
        return words.new_full(is_token.shape, self.symbols.pad).masked_scatter(is_token, words)

    def corrupted(self, keys: Tensor, target: Tensor, lengths: Tensor, refinement: int) -> Tensor:
        """The reference as the ``refinement``-th refinement, from 0, is to correct it."""
        cfg = self.cfg
        rate = cfg.corruption_rate
        if rate is None:
            rate = method.corruption_rates(cfg.train_refinements)[refinement]
        symbols, by_count = self.symbols, str(cfg.corruption) == "count"
        return method.corruption(keys, target, lengths, rate, symbols.first_word, symbols.size, by_count)

    def shares_encoder(self, teacher: Any) -> bool:
        """Its decoders attend to all layers of the encoder, whose top states alone are not enough."""
        return False

    def propose(
        self, encoded: IterativeRefinementEncoded, request: Request[IterativeRefinementOptions]
    ) -> IterativeRefinementProposals:
        """The most probable length and those around it, or the reference's and those around it."""
        best = encoded.lengths + encoded.offset_log_probs.argmax(1) - LONGEST_OFFSET
        middle = best if request.lengths is None else request.lengths
        lengths = self.lengths_around(middle, request.n).flatten()
        samples = request.options.decode_samples
        keys = noise.candidate_keys(request.keys(), request.n) if samples else None
        return IterativeRefinementProposals(lengths=lengths, samples=samples, keys=keys)

    def start(
        self, encoded: IterativeRefinementEncoded, proposals: IterativeRefinementProposals
    ) -> IterativeRefinementState:
        """Pass 1, by decoder 1, which gives the same to all runs."""
        is_token, mask = length_classes.canvas(proposals.lengths)
        hidden = self.first_pass(encoded, proposals.lengths, mask, is_token.size(1))
        hidden = hidden[:, None].expand(-1, 1 + proposals.samples, -1, -1)
        tokens, scores, words = self.predicted(hidden, is_token, proposals.keys, 0, encoded.shortlist, encoded.penalty)
        return IterativeRefinementState(
            tokens=tokens,
            scores=scores,
            words=words,
            hidden=hidden,
            keys=proposals.keys,
            encoded=encoded,
            is_token=is_token,
            mask=mask,
        )

    def refine(self, state: IterativeRefinementState, step: int, steps: int) -> IterativeRefinementState:
        """One pass of decoder 2, which predicts every word anew; the length stays."""
        runs, encoded, mask = state.words.size(1), state.encoded, state.mask
        if runs > 1:
            rows = torch.arange(len(state.words), device=state.words.device).repeat_interleave(runs)
            encoded, mask = encoded.select(rows), None if mask is None else mask[rows]
        hidden = self.next_pass(encoded, state.words.flatten(0, 1), state.hidden.flatten(0, 1), mask)
        hidden = hidden.unflatten(0, (-1, runs))
        known = state.encoded
        tokens, scores, words = self.predicted(hidden, state.is_token, state.keys, step, known.shortlist, known.penalty)
        return replace(state, tokens=tokens, scores=scores, words=words, hidden=hidden)

    def predicted(
        self,
        hidden: Tensor,
        is_token: Tensor,
        keys: Optional[Tensor],
        step: int,
        shortlist: Optional[Shortlist] = None,
        penalty: Optional[float] = None,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """From (R, N, T, D) states: the tokens, scores and words of the state after ``step`` refinements."""
        logits = self.project(hidden, shortlist, step)
        if keys is None:
            tokens, scores = self.most_probable(logits[:, 0], is_token, shortlist, penalty)
            return tokens, scores, tokens[:, None]
        tokens, scores = self.most_probable(prediction.mean_log_probs(logits), is_token, shortlist, penalty)
        words = self.read_next(logits, is_token, noise.fold(keys, step), shortlist, penalty)
        return tokens, scores, words.masked_fill(~is_token[:, None], self.symbols.pad)

    def read_next(
        self,
        logits: Tensor,
        is_token: Tensor,
        keys: Tensor,
        shortlist: Optional[Shortlist],
        penalty: Optional[float],
    ) -> Tensor:
        """(R, N, T) words of (R, N, T, V) logits, or of a shortlist's: the first run's most probable ones, samples of
        each other's."""
        rows, runs, width, _ = logits.shape
        best, _ = self.chosen(logits[:, 0], is_token, shortlist, penalty)
        draws = noise.uniform(noise.candidate_keys(keys, runs - 1), width).view(rows, runs - 1, width)
        return torch.cat([best[:, None], self.drawn(logits[:, 1:], draws, shortlist)], 1)

    def drawn(self, logits: Tensor, draws: Tensor, shortlist: Optional[Shortlist]) -> Tensor:
        """Words as the numbers in (…) ``draws`` choose them, none of them banned."""
        if shortlist is not None:
            return shortlist.words[prediction.sampled(logits, draws)]
        logits = logits.index_fill(-1, torch.tensor(self.banned, device=logits.device), -torch.inf)
        return prediction.sampled(logits, draws)

    def finish(self, state: IterativeRefinementState) -> Finished:
        return Finished(state.tokens, state.scores)

    def redraft(self, encoded: IterativeRefinementEncoded, tokens: Tensor, is_token: Tensor, known: Tensor) -> Tensor:
        """(R, T) targets of which the first (R,) ``known`` tokens are given: decoder 1 for the new length, and one
        refinement that reads the given words, and behind them those that were drafted before."""
        mask = padding_mask(is_token)
        hidden = self.first_pass(encoded, is_token.sum(1), mask, tokens.size(1))
        hidden = self.next_pass(encoded, tokens, hidden, mask)
        found, _ = self.most_probable(self.project(hidden), is_token)
        return torch.where(length_classes.is_within(known, tokens.size(1)), tokens, found)

    def score(self, encoded: IterativeRefinementEncoded, target: Tensor) -> Scored:
        """Log-probability of a target in the first pass, by decoder 1, and of its length.

        Exact for one pass; passes after it have their own words, which the target need not have.
        """
        target, is_token = right_padded(target, self.symbols.pad)
        lengths, mask = is_token.sum(1), padding_mask(is_token)
        hidden = self.first_pass(encoded, lengths, mask, target.size(1))
        offset = (lengths - encoded.lengths).clamp(-LONGEST_OFFSET, LONGEST_OFFSET) + LONGEST_OFFSET
        of_length = encoded.offset_log_probs.gather(1, offset[:, None])[:, 0]
        return Scored(self.target_log_probs(self.project(hidden, step=0), target, is_token), of_length, "exact")


# As in mask-predict: pre-norm forgives a high learning rate.
PRENORM = {"normalize_before": True}

base.register_presets(
    "iterative_refinement",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1, **PRENORM},
    iwslt16_de_en={"dropout": 0.1},
    iwslt14_de_en={"dropout": 0.1},
    wmt14_en_de={"dropout": 0.1, "encoder_ffn_embed_dim": 512, "decoder_ffn_embed_dim": 512},
    wmt16_ro_en={"dropout": 0.1, "encoder_ffn_embed_dim": 512, "decoder_ffn_embed_dim": 512},
)
