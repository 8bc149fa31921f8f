"""Mask-predict: a conditional masked language model decoded in a fixed number of passes.

Ghazvininejad, Levy, Liu & Zettlemoyer 2019, arXiv 1904.09324. Encoder with a LENGTH token in front whose state predicts
the target length (section 2.3); decoder without causal mask; BERT's initialisation, GELU, learned positions, layer norm
after each block, embeddings not scaled, as released. The mask is an input row past the dictionary's end and no output.
"""

from dataclasses import dataclass, field, replace
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import lengths as length_classes
from ..methods import mask_predict as method
from ..methods import prediction
from ..methods.contract import Ask, Encoded, Finished, LengthStarts, Scored, State
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Term, Tokens
from ..methods.transformer import Memory, padding_mask
from . import base


@dataclass
class MaskPredictConfig(base.TransformerConfig):
    release_compat: bool = field(
        default=False, metadata={"help": "in training mask 1 to N - 1 tokens as the released code does, not 1 to N"}
    )
    mask_span: bool = field(
        default=False, metadata={"help": "in training mask one contiguous span, not a random subset"}
    )


@dataclass(frozen=True, kw_only=True)
class MaskPredictEncoded(Encoded):
    """Every decoder layer's keys and values of the source, and the length prediction."""

    memory: Tuple[Memory, ...]
    is_source: Optional[Tensor]
    length_log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class MaskPredictState(State):
    """``scores``: (R, T) log-probability of each token at the pass that predicted it, 0 at pads.

    ``mask`` is ``is_token``, or None where no row has padding.
    """

    tokens: Tensor
    encoded: MaskPredictEncoded
    lengths: Tensor
    is_token: Tensor
    mask: Optional[Tensor]
    scores: Tensor


@register_model("mask_predict", dataclass=MaskPredictConfig)
class MaskPredictModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; lengths count ``</s>``, which is masked and predicted like any token."""

    criterions = ("token_length",)
    decode_flags = base.CANDIDATE_FLAGS | {"iter_decode_max_iter", "iter_decode_force_max_iter", "gold_target_len"}
    silent_iterations = 9

    def __init__(self, cfg: MaskPredictConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        dim = cfg.encoder_embed_dim
        target_table = nn.Embedding(symbols.size + 1, dim)
        source_table = target_table if cfg.share_all_embeddings else nn.Embedding(source_size, dim)
        self.source_embedding = base.TokenEmbedding(source_table, cfg.max_source_positions, cfg)
        self.target_embedding = base.TokenEmbedding(target_table, cfg.max_target_positions, cfg)
        # row 0 is the LENGTH token that the encoder reads, row N the class "N tokens" (tied, section 2.3)
        self.length_table = nn.Embedding(cfg.max_target_positions + 1, dim)
        self.length_dropout = nn.Dropout(cfg.dropout)
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder")
        self.initialize()

    def project(self, features: Tensor) -> Tensor:
        """Vocabulary logits (…, V), tied to the input table less its mask row."""
        return F.linear(features, self.target_embedding.tokens.weight[: self.symbols.size])

    def decode(self, encoded: MaskPredictEncoded, tokens: Tensor, is_token: Optional[Tensor]) -> Tensor:
        """One decoder pass: (R, T) ids, some of them masks, to (R, T, D) features."""
        return self.decoder(self.target_embedding(tokens), is_token, encoded.memory, encoded.is_source)

    def encode(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None) -> MaskPredictEncoded:
        source, is_source = right_padded(src_tokens, self.symbols.pad)
        slot = self.length_dropout(self.length_table.weight[:1].expand(len(source), 1, -1))
        with_slot = torch.cat([slot, self.source_embedding(source)], 1)
        mask = padding_mask(is_source)
        states = self.encoder(with_slot, None if mask is None else F.pad(mask, (1, 0), value=True))
        logits = F.linear(states[:, 0], self.length_table.weight).float()
        logits[:, 0] = -torch.inf
        return MaskPredictEncoded(
            source=source,
            memory=self.decoder.project(states[:, 1:]),
            is_source=mask,
            length_log_probs=logits.log_softmax(1),
        )

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        target: Optional[Tensor] = None,
        keys: Optional[Tensor] = None,
        **unknown: Any,
    ) -> List[Term]:
        """Loss terms: ``token`` over the masked positions, ``length`` once a sentence (section 3.1).

        ``target``: (B, T) ids ending in ``</s>``; ``keys``: (B,) noise keys that choose the masks.
        """
        keys = self.required(keys)
        target, is_token = right_padded(self.required(target), self.symbols.pad)
        masked = method.training_mask(keys, is_token, self.cfg.release_compat, self.cfg.mask_span)
        encoded = self.encode(src_tokens, src_lengths)
        features = self.decode(encoded, target.masked_fill(masked, self.symbols.mask), padding_mask(is_token))
        return [
            Tokens("token", self.project(features[masked]), target[masked]),
            Classes("length", encoded.length_log_probs, is_token.sum(1)),
        ]

    def propose(self, encoded: MaskPredictEncoded, ask: Ask) -> LengthStarts:
        """The most probable lengths, best first, or a window around the reference's (released decoder)."""
        if ask.lengths is None:
            candidates = length_classes.top_lengths(encoded.length_log_probs, ask.n)
        else:
            candidates = length_classes.window(ask.lengths, ask.n, self.cfg.max_target_positions)
        return LengthStarts(lengths=candidates.flatten())

    def start(self, encoded: MaskPredictEncoded, starts: LengthStarts) -> MaskPredictState:
        """Pass 1: every position masked, every position predicted (section 4)."""
        is_token, mask = length_classes.canvas(starts.lengths)
        tokens = starts.lengths.new_full(is_token.shape, self.symbols.mask).masked_fill(~is_token, self.symbols.pad)
        features = self.decode(encoded, tokens, mask)
        tokens, scores = prediction.most_probable(self.project(features), self.banned)
        return MaskPredictState(
            tokens=tokens.masked_fill(~is_token, self.symbols.pad),
            scores=scores.masked_fill(~is_token, 0.0),
            encoded=encoded,
            lengths=starts.lengths,
            is_token=is_token,
            mask=mask,
        )

    def refine(self, state: MaskPredictState, step: int, steps: int) -> MaskPredictState:
        """Pass ``step`` + 1 of ``steps`` + 1: mask the least confident, predict them anew, leave the rest as they are.

        The vocabulary projection, the dearest product of a pass, is made at the masked positions only.
        """
        lengths = None if state.mask is None else state.lengths
        chosen = method.least_confident(state.scores, lengths, step, steps + 1)
        features = self.decode(state.encoded, state.tokens.scatter(1, chosen, self.symbols.mask), state.mask)
        features = features.gather(1, chosen[..., None].expand(-1, -1, features.size(-1)))
        predicted, scores = prediction.most_probable(self.project(features), self.banned)
        # where a row repeats a position, it writes the same prediction twice
        return replace(
            state,
            tokens=state.tokens.scatter(1, chosen, predicted),
            scores=state.scores.scatter(1, chosen, scores),
        )

    @property
    def banned(self) -> Tuple[int, ...]:
        """Ids that a decode never says; the mask has no output."""
        return self.symbols.pad, self.symbols.bos

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: MaskPredictState) -> Finished:
        return Finished(state.tokens, state.scores)

    def score(self, encoded: MaskPredictEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from a fully masked canvas of its length, and of that length.

        A proxy: the model gives no likelihood of what it refines.
        """
        target, is_token = right_padded(target, self.symbols.pad)
        canvas = torch.full_like(target, self.symbols.mask).masked_fill(~is_token, self.symbols.pad)
        logits = self.project(self.decode(encoded, canvas, is_token)).float()
        log_probs = logits.log_softmax(-1).gather(2, target[..., None])[..., 0].masked_fill(~is_token, 0.0)
        return Scored(log_probs, encoded.length_log_probs.gather(1, is_token.sum(1, keepdim=True))[:, 0], "proxy")


# The small presets differ from the release: pre-norm, which forgives a high learning rate. It needs Glorot's
# initialisation: under N(0, 0.02) pre-norm residual branches start too weak, and a training that reaches the teacher's
# BLEU with either of the other pairings (post-norm with N(0, 0.02), as released, too) learns next to nothing.
PRENORM = {"initialization": "xavier", "positions": "sinusoidal", "normalize_before": True}

base.register_presets(
    "mask_predict",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1, **PRENORM},
    iwslt16_de_en={"dropout": 0.1, **PRENORM},
    iwslt14_de_en={"dropout": 0.3, **PRENORM},
    wmt14_en_de={"dropout": 0.3},
    wmt16_ro_en={"dropout": 0.3},
)
