"""Latent transformers: a target is decoded in one pass from latents, which a posterior finds anew from what was said.

``--latent gaussian`` (the default; ``--arch lanmt`` is the same model) is LaNMT: Shu, Lee, Nakayama & Cho 2020, arXiv
1908.07181. The prior's encoder is the source encoder; eight-dimensional latents stand on source positions and come to
target positions by a monotonic attention to places; the length is predicted from latents and source; the decoder is
factorised. Delta inference (section 3.5): the first pass decodes the prior's mean, each refinement the posterior's mean
given the tokens before, with the length predicted anew.

Differs from the released code: attention to the source has weights of its own (there it has those of self-attention);
padding is hidden by −∞; the length transform has the paper's kernel (``--length-kernel prefix``: the released one);
the prior's mean is among the candidates of a latent search, as the first; candidates are compared by their mean
log-probability (``--rescore-norm sum``: by the sum, as there); what stands beyond a candidate's length is padding
everywhere. Attention weights and feed-forward layers have no dropout of their own unless asked for.
"""

from dataclasses import dataclass, field
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import gaussian, noise, prediction
from ..methods import lanmt as method
from ..methods import lengths as length_classes
from ..methods.contract import Ask, Encoded, Finished, Scored, Starts, State
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Term, Tokens, Values
from ..methods.transformer import Memory, Stack, padding_mask
from . import base


@dataclass
class LatentTransformerConfig(base.GaussianConfig):
    latent: ChoiceEnum(["gaussian"]) = field(  # type: ignore[valid-type]
        default="gaussian", metadata={"help": "what a latent is"}
    )
    length_kernel: ChoiceEnum(["gaussian", "prefix"]) = field(  # type: ignore[valid-type]
        default="gaussian", metadata={"help": "of the length transform: the paper's, or that of the released code"}
    )


@dataclass(frozen=True, kw_only=True)
class LatentEncoded(Encoded):
    """``states``: (B, S, D) of the prior; ``embedded``: (B, S, D) source embeddings; S counts ``<s>`` and ``</s>``."""

    embedded: Tensor
    states: Tensor
    memory: Tuple[Memory, ...]
    is_source: Tensor
    mask: Optional[Tensor]
    mean: Tensor
    std: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentStarts(Starts):
    """``latents``: (R, S, Z); ``lengths``: those asked for, counting ``<s>``, or None: predicted from the latents."""

    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentState(State):
    """``tokens``, ``scores``: (R, T) without ``<s>``; ``latents``: (R, S, Z) that they were decoded from.

    ``mask``: (R, T + 1) True on tokens and ``<s>``, or None where no row has padding.
    """

    tokens: Tensor
    scores: Tensor
    latents: Tensor
    mask: Optional[Tensor]
    asked: Optional[Tensor]
    encoded: LatentEncoded


class Posterior(nn.Module):
    """q(z | x, y): source embeddings attend to each other and to an encoder of the target (section 3.1)."""

    def __init__(self, target: Stack, source: Stack, dim: int, latent_size: int) -> None:
        super().__init__()
        self.target, self.source = target, source
        self.output = nn.Linear(dim, 2 * latent_size)

    def forward(
        self, embedded: Tensor, mask: Optional[Tensor], target: Tensor, is_token: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """(B, S, D) source and (B, T, D) target embeddings to the mean and standard deviation, (B, S, Z) each."""
        memory = self.source.project(self.target(target, is_token))
        return gaussian.split(self.output(self.source(embedded, mask, memory, is_token)))


@register_model("latent_transformer", dataclass=LatentTransformerConfig)
class LatentTransformerModel(base.DecodingModel):
    """Shapes as in ``methods.contract``. Inside, both sides begin with ``<s>``, which is predicted like any token;
    lengths inside count it, those that come from and go to the outside do not."""

    criterions = ("elbo_length",)
    decode_flags = base.CANDIDATE_FLAGS - {"iter_decode_with_beam"} | base.STOP_FLAGS | base.LATENT_FLAGS
    candidate_flags = ("decode_samples",)
    inferences = ("delta", "mean")
    sample_noise = 0.5
    silent_iterations = 1
    default_stop_rule = "fixed-point"

    def __init__(self, cfg: LatentTransformerConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, latent_size=1, posterior_layers=0)
        cfg.normalize_before = not cfg.post_norm
        dim, size = cfg.encoder_embed_dim, cfg.latent_size
        table = nn.Embedding(symbols.size, dim)
        source_table = table if cfg.share_all_embeddings else nn.Embedding(source_size, dim)
        self.source_embedding = base.TokenEmbedding(source_table, cfg.max_source_positions + 1, cfg)
        self.target_embedding = base.TokenEmbedding(table, cfg.max_target_positions + 1, cfg)
        layers = cfg.posterior_layers or cfg.decoder_layers
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder", has_input_skip=True)
        self.posterior = Posterior(
            self.build_stack("decoder", layers, has_source=False), self.build_stack("decoder", layers), dim, size
        )
        self.prior, self.lift = nn.Linear(dim, 2 * size), nn.Linear(size, dim)
        self.length_head = nn.Linear(dim, method.OFFSETS)
        self.length_table = nn.Embedding(cfg.max_target_positions + 2, dim)
        self.sigma = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(symbols.size))
        self.output = table if cfg.share_all_embeddings else nn.Embedding(symbols.size, dim)
        self.initialize()

    @property
    def counted(self) -> Any:
        return {"encoder": self.encoder, "decoder": self.decoder, "posterior": self.posterior}

    def begun(self, tokens: Tensor, is_token: Tensor) -> Tuple[Tensor, Tensor]:
        """(B, T) right-padded ids with ``<s>`` in front, and their mask."""
        return F.pad(tokens, (1, 0), value=self.symbols.bos), F.pad(is_token, (1, 0), value=True)

    def encode(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None) -> LatentEncoded:
        source, is_token = right_padded(src_tokens, self.symbols.pad)
        begun, is_source = self.begun(source, is_token)
        mask = padding_mask(is_source)
        embedded = self.source_embedding(begun)
        states = self.encoder(embedded, mask)
        mean, std = gaussian.split(self.prior(states))
        return LatentEncoded(
            source=source,
            embedded=embedded,
            states=states,
            memory=self.decoder.project(states),
            is_source=is_source,
            mask=mask,
            mean=mean,
            std=std,
        )

    def infer(self, encoded: LatentEncoded, target: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The posterior of latents given targets that begin with ``<s>``."""
        return self.posterior(encoded.embedded, encoded.mask, self.target_embedding(target), mask)

    def length_logits(self, encoded: LatentEncoded, lifted: Tensor) -> Tensor:
        """(B, 100): from the mean over the source of latents and states together."""
        weight = encoded.is_source[..., None]
        mean = ((lifted + encoded.states) * weight).sum(1) / encoded.is_source.sum(1, keepdim=True)
        return self.length_head(mean)

    def decode(
        self, encoded: LatentEncoded, lifted: Tensor, lengths: Tensor, width: int, mask: Optional[Tensor]
    ) -> Tensor:
        """One decoder pass: lifted latents on source positions to (B, width, D) states on target positions."""
        is_prefix = str(self.cfg.length_kernel) == "prefix"
        placed = method.length_transform(lifted, encoded.is_source, lengths, width, self.sigma, is_prefix)
        read = 0.5**0.5 * placed + 0.5 * (
            self.target_embedding.positions.weight[:width] + self.length_table(lengths)[:, None]
        )
        return self.decoder(read, mask, encoded.memory, encoded.mask)

    def project(self, states: Tensor) -> Tensor:
        """Vocabulary logits (…, V)."""
        return F.linear(states, self.output.weight, self.bias)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        target: Optional[Tensor] = None,
        keys: Optional[Tensor] = None,
        **unknown: Any,
    ) -> List[Term]:
        """Loss terms (section 3.4): ``token`` from one posterior sample, ``kl`` a source position, ``length``.

        ``target``: (B, T) ids ending in ``</s>``; ``keys``: (B,) noise keys of the sample.
        """
        keys = self.required(keys)
        target, is_token = self.begun(*right_padded(self.required(target), self.symbols.pad))
        encoded, mask = self.encode(src_tokens, src_lengths), padding_mask(is_token)
        mean, std = self.infer(encoded, target, mask)
        latents = gaussian.sample(mean, std, keys)
        lifted, lengths = self.lift(latents.to(self.lift.weight.dtype)), is_token.sum(1)
        logits = self.project(self.decode(encoded, lifted, lengths, is_token.size(1), mask)[is_token])
        classes = method.length_classes(encoded.is_source.sum(1), lengths)
        return [
            Tokens("token", logits, target[is_token]),
            Values("kl", gaussian.divergence(mean, std, encoded.mean, encoded.std), encoded.is_source),
            Classes("length", self.length_logits(encoded, lifted), classes),
        ]

    def propose(self, encoded: LatentEncoded, ask: Ask) -> LatentStarts:
        """The prior's mean, and around it samples, until there are ``ask.n`` (section 3.5, latent search)."""
        latents = encoded.mean.repeat_interleave(ask.n, 0)
        if ask.n > 1:
            sample = torch.arange(ask.n, device=latents.device).repeat(len(encoded.mean))
            keys = noise.fold(ask.seeds().repeat_interleave(ask.n), sample)
            spread = ask.options["decode_sample_noise"] * encoded.std.repeat_interleave(ask.n, 0)
            latents = torch.where((sample == 0)[:, None, None], latents, gaussian.sample(latents, spread, keys))
        lengths = None
        if ask.lengths is not None:
            lengths = (
                ask.lengths.clamp(length_classes.SHORTEST, self.cfg.max_target_positions).repeat_interleave(ask.n) + 1
            )
        longest = min(
            encoded.mean.size(1) + method.OFFSETS + method.SHORTEST_OFFSET - 1, self.cfg.max_target_positions + 1
        )
        return LatentStarts(lengths=lengths, longest=longest, latents=latents)

    def start(self, encoded: LatentEncoded, starts: LatentStarts) -> LatentState:
        """What the proposed latents say."""
        return self.said(encoded, starts.latents, starts.lengths)

    def refine(self, state: LatentState, step: int, steps: int) -> LatentState:
        """A delta step: the posterior's mean given the tokens, a new length, new tokens."""
        mean, _ = self.infer(state.encoded, F.pad(state.tokens, (1, 0), value=self.symbols.bos), state.mask)
        return self.said(state.encoded, mean, state.asked)

    def said(self, encoded: LatentEncoded, latents: Tensor, asked: Optional[Tensor]) -> LatentState:
        """The most probable length, and the most probable token at each position."""
        lifted = self.lift(latents.to(self.lift.weight.dtype))
        lengths = asked
        if lengths is None:
            classes = self.length_logits(encoded, lifted).argmax(1)
            sizes = encoded.is_source.sum(1)
            lengths = method.lengths_of(classes, sizes, length_classes.SHORTEST + 1, self.cfg.max_target_positions + 1)
        is_token, mask = length_classes.canvas(lengths)
        logits = self.project(self.decode(encoded, lifted, lengths, is_token.size(1), mask)[:, 1:])
        tokens, scores = prediction.most_probable(logits, (self.symbols.pad, self.symbols.bos))
        is_said = is_token[:, 1:]
        return LatentState(
            tokens=tokens.masked_fill(~is_said, self.symbols.pad),
            scores=scores.masked_fill(~is_said, 0.0),
            latents=latents,
            mask=mask,
            asked=asked,
            encoded=encoded,
        )

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: LatentState) -> Finished:
        return Finished(state.tokens, state.scores)

    def score(self, encoded: LatentEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from its posterior's mean, less the divergence, and of its length.

        A proxy: the bound is a mean over the posterior, of which this is the middle.
        """
        begun, is_token = self.begun(*right_padded(target, self.symbols.pad))
        mask = padding_mask(is_token)
        mean, std = self.infer(encoded, begun, mask)
        lifted, lengths = self.lift(mean.to(self.lift.weight.dtype)), is_token.sum(1)
        log_probs = self.project(self.decode(encoded, lifted, lengths, is_token.size(1), mask)).float().log_softmax(-1)
        tokens = log_probs.gather(2, begun[..., None])[..., 0].masked_fill(~is_token, 0.0)
        kl = gaussian.divergence(mean, std, encoded.mean, encoded.std).masked_fill(~encoded.is_source, 0.0).sum(1)
        classes = method.length_classes(encoded.is_source.sum(1), lengths)
        length = self.length_logits(encoded, lifted).float().log_softmax(1).gather(1, classes[:, None])[:, 0]
        return Scored(tokens[:, 1:], tokens[:, 0] + length - kl, "proxy")


base.register_presets(
    "latent_transformer",
    "lanmt",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1},
    iwslt16_de_en={"dropout": 0.1},
    iwslt14_de_en={"dropout": 0.3},
    wmt14_en_de={"dropout": 0.1},
    wmt16_ro_en={"dropout": 0.1},
)
