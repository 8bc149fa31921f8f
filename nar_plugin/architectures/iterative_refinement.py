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
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import iterative_refinement as method
from ..methods import lengths as length_classes
from ..methods import noise, prediction
from ..methods.contract import Ask, Encoded, Finished, LengthStarts, Scored, State, UsageError
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Term, Tokens
from ..methods.transformer import Memory, Stack, padding_mask
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
class IterativeRefinementEncoded(Encoded):
    """``copied``: (B, S, D) source embeddings with positions; ``memories``: the source for decoder 1 and decoder 2."""

    source: Tensor
    copied: Tensor
    lengths: Tensor
    is_source: Optional[Tensor]
    memories: Tuple[Tuple[Memory, ...], Tuple[Memory, ...]]
    offset_log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class IterativeRefinementStarts(LengthStarts):
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
    decode_flags = (
        base.CANDIDATE_FLAGS | base.STOP_FLAGS | {"iter_decode_max_iter", "gold_target_len", "decode_samples"}
    )
    silent_iterations = 4
    default_stop_rule = "fixed-point"

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
        self.source_embedding = base.TokenEmbedding(
            shared or nn.Embedding(source_size, dim), cfg.max_source_positions, cfg
        )
        self.target_embedding = base.TokenEmbedding(
            shared or nn.Embedding(symbols.size, dim), cfg.max_target_positions, cfg
        )
        self.encoder = self.build_stack("encoder", is_highway=True)
        blocks = {"is_highway": True, "has_positions": True, "is_blind": cfg.mask_diagonal}
        later = self.build_stack("decoder", **blocks)
        self.decoder = Decoders(later if cfg.share_decoders else self.build_stack("decoder", **blocks), later)
        # decoder 1 has an output of its own; that of decoder 2 is the table by which it reads words
        self.first_output = shared or nn.Embedding(symbols.size, dim)
        if cfg.share_decoders:
            self.first_output = self.target_embedding.tokens
        hidden: List[nn.Module] = [nn.Linear(dim, dim), nn.ReLU()] if str(cfg.length_head) == "mlp" else []
        self.length_head = nn.Sequential(*hidden, nn.Linear(dim, 2 * LONGEST_OFFSET + 1))
        self.initialize()

    def stops(self, what: str) -> bool:
        """Whether ``--stop-gradient`` names ``hidden`` or ``length``."""
        return str(self.cfg.stop_gradient) in (what, "both")

    def encode(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None) -> IterativeRefinementEncoded:
        source, is_source = right_padded(src_tokens, self.symbols.pad)
        mask = padding_mask(is_source)
        copied = self.source_embedding.embed(source)
        states = self.encoder.states(self.source_embedding.dropout(copied), mask)
        return IterativeRefinementEncoded(
            source=source,
            copied=copied,
            lengths=is_source.sum(1),
            is_source=mask,
            memories=self.decoder.project(states[-1] if self.cfg.attend_top else states),
            offset_log_probs=self.offset_logits([copied, *states], is_source).float().log_softmax(1),
        )

    def offset_logits(self, states: List[Tensor], is_source: Tensor) -> Tensor:
        """(B, 41) of T − S from −20: from the mean of the top states, or of the sum of all of them."""
        is_linear = str(self.cfg.length_head) == "linear"
        read = torch.stack(states).sum(0) if is_linear else states[-1]
        if is_linear or self.stops("length"):
            read = read.detach()
        mean = (read * is_source[..., None]).sum(1) / is_source.sum(1, keepdim=True).clamp(min=1)
        return self.length_head(mean)

    def first_pass(
        self, encoded: IterativeRefinementEncoded, lengths: Tensor, mask: Optional[Tensor], width: int
    ) -> Tensor:
        """Decoder 1 over the copied source: (R, width, D) states."""
        places = method.copied_places(encoded.lengths, lengths, width)
        copied = encoded.copied.gather(1, places[..., None].expand(-1, -1, encoded.copied.size(-1)))
        return self.run(copied + self.positions(width), encoded, mask, is_first=True)

    def next_pass(
        self, encoded: IterativeRefinementEncoded, tokens: Tensor, hidden: Tensor, mask: Optional[Tensor]
    ) -> Tensor:
        """Decoder 2 over the words and hidden states of the pass before: (R, T, D) states."""
        read = self.positions(tokens.size(1)).expand_as(hidden)
        if str(self.cfg.next_input) != "hidden":
            read = read + self.target_embedding.scale * self.target_embedding.tokens(tokens)
        if str(self.cfg.next_input) != "words":
            read = read + (hidden.detach() if self.stops("hidden") else hidden)
        return self.run(read, encoded, mask, is_first=False)

    def positions(self, width: int) -> Tensor:
        return self.target_embedding.positions.weight[:width]

    def run(self, x: Tensor, encoded: IterativeRefinementEncoded, mask: Optional[Tensor], is_first: bool) -> Tensor:
        return self.decoder(
            self.target_embedding.dropout(x),
            mask,
            encoded.memories,
            encoded.is_source,
            self.positions(x.size(1)),
            is_first,
        )

    def project(self, features: Tensor, is_first: bool) -> Tensor:
        """Vocabulary logits (…, V), without bias."""
        table = self.first_output if is_first else self.target_embedding.tokens
        return F.linear(features, table.weight)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        target: Optional[Tensor] = None,
        keys: Optional[Tensor] = None,
        **unknown: Any,
    ) -> List[Term]:
        """Loss terms: ``pass0`` … over all target tokens, ``length`` once a sentence (section 3.2).

        ``target``: (B, T) ids ending in ``</s>``; ``keys``: (B,) noise keys. In validation nothing is corrupted.
        """
        keys = self.required(keys)
        target, is_token = right_padded(self.required(target), self.symbols.pad)
        encoded = self.encode(src_tokens, src_lengths)
        terms = list(self.passes(encoded, target, is_token, keys))
        # the criterion divides by the scored tokens of all terms
        weight = len(terms) / (1.0 if str(self.cfg.pass_loss) == "sum" else self.cfg.train_refinements + 1)
        offset = (is_token.sum(1) - encoded.lengths).clamp(-LONGEST_OFFSET, LONGEST_OFFSET) + LONGEST_OFFSET
        found: List[Term] = [*terms, Classes("length", encoded.offset_log_probs, offset)]
        return [replace(term, weight=term.weight * weight) for term in found]

    def passes(
        self, encoded: IterativeRefinementEncoded, target: Tensor, is_token: Tensor, keys: Tensor
    ) -> Iterator[Tokens]:
        """The loss of the first pass and of each refinement: where the mixture is exact, of both kinds."""
        cfg, lengths, mask = self.cfg, is_token.sum(1), padding_mask(is_token)
        share = cfg.lvm_share if self.training else 1.0
        reference, last = target[is_token], cfg.train_refinements
        hidden = self.first_pass(encoded, lengths, mask, target.size(1))
        for k in range(last + 1):
            logits = self.project(hidden[is_token], is_first=k == 0)
            own = self.words(logits, noise.fold(keys, 3 * k), is_token)
            taught = own[is_token] if str(cfg.train_target) == "prediction" and k < last else reference
            yield Tokens(f"pass{k}", logits, taught, share if k and cfg.exact_mixture else 1.0)
            if k == last:
                return
            read = own
            if share < 1:
                noisy = self.corrupted(noise.fold(keys, 3 * k + 1), target, lengths, k)
                if cfg.exact_mixture:
                    states = self.next_pass(encoded, noisy, hidden, mask)[is_token]
                    yield Tokens(f"denoise{k + 1}", self.project(states, is_first=False), reference, 1 - share)
                else:
                    is_own = noise.uniform(noise.fold(keys, 3 * k + 2), 1) < share
                    read = torch.where(is_own, own, noisy)
            hidden = self.next_pass(encoded, read, hidden, mask)

    def words(self, logits: Tensor, keys: Tensor, is_token: Tensor) -> Tensor:
        """(B, T) ids of what a pass said, (M, V) logits at the real positions: no gradient passes here."""
        logits = logits.detach()
        if self.cfg.sampled_words and self.training:
            said = prediction.sampled(logits, noise.uniform(keys, is_token.size(1))[is_token])
        else:
            said = prediction.greatest(logits.float())[1]
        return said.new_full(is_token.shape, self.symbols.pad).masked_scatter(is_token, said)

    def corrupted(self, keys: Tensor, target: Tensor, lengths: Tensor, refinement: int) -> Tensor:
        """The reference as the ``refinement``-th refinement, from 0, is to mend it."""
        cfg = self.cfg
        rate = cfg.corruption_rate
        if rate is None:
            rate = method.corruption_rates(cfg.train_refinements)[refinement]
        symbols, by_count = self.symbols, str(cfg.corruption) == "count"
        return method.corruption(keys, target, lengths, rate, symbols.first_word, symbols.size, by_count)

    def propose(self, encoded: IterativeRefinementEncoded, ask: Ask) -> IterativeRefinementStarts:
        """The most probable length and those around it, or the reference's and those around it."""
        best = encoded.lengths + encoded.offset_log_probs.argmax(1) - LONGEST_OFFSET
        middle = best if ask.lengths is None else ask.lengths
        lengths = length_classes.window(middle, ask.n, self.cfg.max_target_positions).flatten()
        samples, keys = int(ask.options.get("decode_samples", 0)), None
        if samples:
            candidate = torch.arange(ask.n, device=lengths.device).repeat(len(best))
            keys = noise.fold(ask.seeds().repeat_interleave(ask.n), candidate)
        return IterativeRefinementStarts(lengths=lengths, samples=samples, keys=keys)

    def start(self, encoded: IterativeRefinementEncoded, starts: IterativeRefinementStarts) -> IterativeRefinementState:
        """Pass 1, by decoder 1, which says the same to all runs."""
        is_token, mask = length_classes.canvas(starts.lengths)
        hidden = self.first_pass(encoded, starts.lengths, mask, is_token.size(1))
        hidden = hidden[:, None].expand(-1, 1 + starts.samples, -1, -1)
        tokens, scores, words = self.said(hidden, is_token, starts.keys, 0)
        return IterativeRefinementState(
            tokens=tokens,
            scores=scores,
            words=words,
            hidden=hidden,
            keys=starts.keys,
            encoded=encoded,
            is_token=is_token,
            mask=mask,
        )

    def refine(self, state: IterativeRefinementState, step: int, steps: int) -> IterativeRefinementState:
        """One pass of decoder 2, which says every word anew; the length stays."""
        runs, encoded, mask = state.words.size(1), state.encoded, state.mask
        if runs > 1:
            rows = torch.arange(len(state.words), device=state.words.device).repeat_interleave(runs)
            encoded, mask = encoded.select(rows), None if mask is None else mask[rows]
        hidden = self.next_pass(encoded, state.words.flatten(0, 1), state.hidden.flatten(0, 1), mask)
        hidden = hidden.unflatten(0, (-1, runs))
        tokens, scores, words = self.said(hidden, state.is_token, state.keys, step)
        return replace(state, tokens=tokens, scores=scores, words=words, hidden=hidden)

    def said(
        self, hidden: Tensor, is_token: Tensor, keys: Optional[Tensor], step: int
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """From (R, N, T, D) states: the tokens, scores and words of the state after ``step`` refinements."""
        logits, banned = self.project(hidden, is_first=step == 0), (self.symbols.pad, self.symbols.bos)
        if keys is None:
            tokens, scores = prediction.most_probable(logits[:, 0], banned)
            words = tokens[:, None]
        else:
            tokens, scores = prediction.most_probable(prediction.mean_log_probs(logits), banned)
            words = self.read_next(logits, noise.fold(keys, step), banned)
        tokens = tokens.masked_fill(~is_token, self.symbols.pad)
        return tokens, scores.masked_fill(~is_token, 0.0), words.masked_fill(~is_token[:, None], self.symbols.pad)

    def read_next(self, logits: Tensor, keys: Tensor, banned: Tuple[int, ...]) -> Tensor:
        """(R, N, T) words of (R, N, T, V) logits: the first run's most probable ones, samples of each other's."""
        rows, runs, width, _ = logits.shape
        best, _ = prediction.most_probable(logits[:, 0], banned)
        logits = logits[:, 1:].index_fill(-1, torch.tensor(banned, device=logits.device), -torch.inf)
        run = torch.arange(runs - 1, device=keys.device).repeat(rows)
        draws = noise.uniform(noise.fold(keys.repeat_interleave(runs - 1), run), width).view(rows, runs - 1, width)
        return torch.cat([best[:, None], prediction.sampled(logits, draws)], 1)

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: IterativeRefinementState) -> Finished:
        return Finished(state.tokens, state.scores)

    def score(self, encoded: IterativeRefinementEncoded, target: Tensor) -> Scored:
        """Log-probability of a target in the last pass of as many as in training, and of its length.

        A proxy: passes before it have their own words, which the target need not have.
        """
        target, is_token = right_padded(target, self.symbols.pad)
        lengths, mask = is_token.sum(1), padding_mask(is_token)
        hidden = self.first_pass(encoded, lengths, mask, target.size(1))
        for k in range(self.cfg.train_refinements):
            _, _, words = self.said(hidden[:, None], is_token, None, k)
            hidden = self.next_pass(encoded, words[:, 0], hidden, mask)
        logits = self.project(hidden, is_first=not self.cfg.train_refinements).float()
        log_probs = logits.log_softmax(-1).gather(2, target[..., None])[..., 0].masked_fill(~is_token, 0.0)
        offset = (lengths - encoded.lengths).clamp(-LONGEST_OFFSET, LONGEST_OFFSET) + LONGEST_OFFSET
        return Scored(log_probs, encoded.offset_log_probs.gather(1, offset[:, None])[:, 0], "proxy")


class Decoders(nn.Module):
    """Decoder 1 for the first pass, decoder 2 for every other: one module, whose passes are counted together."""

    def __init__(self, first: Stack, later: Stack) -> None:
        super().__init__()
        self.first, self.later = first, later

    def project(self, states: "Tensor | List[Tensor]") -> Tuple[Tuple[Memory, ...], Tuple[Memory, ...]]:
        """The source for either, projected once where they are one."""
        later = self.later.project(states)
        return (later if self.first is self.later else self.first.project(states)), later

    def forward(
        self,
        x: Tensor,
        is_token: Optional[Tensor],
        memories: Tuple[Tuple[Memory, ...], Tuple[Memory, ...]],
        is_source: Optional[Tensor],
        positions: Tensor,
        is_first: bool,
    ) -> Tensor:
        decoder, memory = (self.first, memories[0]) if is_first else (self.later, memories[1])
        return decoder(x, is_token, memory, is_source, positions)


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
