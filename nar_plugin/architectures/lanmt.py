"""LaNMT: a target is decoded in one pass from latents, which a posterior finds anew from what was decoded.

Shu, Lee, Nakayama & Cho 2020, arXiv 1908.07181. The prior's encoder is the source encoder; eight-dimensional latents
stand on source positions and come to target positions by a monotonic attention to places; the length is predicted from
latents and source; the decoder is factorised. Delta inference (section 3.5): the first pass decodes the prior's mean,
each refinement step the posterior's mean given the tokens before, with the length predicted anew.

It is ``--arch lanmt``, and what ``--arch latent_transformer`` is with ``--latent gaussian``
(``architectures.latent_transformer``, which registers both).

Differs from the released code: attention to the source has weights of its own (there it has those of self-attention);
padding is hidden by −∞; the length transform has the paper's kernel (``--length-kernel prefix``: the released one);
the prior's mean is among the candidates of a latent search, as the first; candidates are compared by their mean
log-probability (``--rescore-norm sum``: by the sum, as there); what stands beyond a candidate's length is padding
everywhere. Attention weights and feed-forward layers have no dropout of their own unless asked for.
"""

from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import torch
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from ..methods import gaussian, noise, options
from ..methods import lanmt as method
from ..methods import lengths as length_classes
from ..methods.contract import Encoded, Finished, NetInput, Pass, Proposals, Request, Scored, State
from ..methods.symbols import Symbols, begin_padded, right_padded
from ..methods.terms import Classes, Nats, Term, Tokens
from ..methods.transformer import Memory, Projection, padding_mask
from . import base


@dataclass
class LanmtConfig(base.GaussianConfig):
    latent: ChoiceEnum(["gaussian"]) = field(  # type: ignore[valid-type]
        default="gaussian", metadata={"help": "what a latent is"}
    )
    length_kernel: ChoiceEnum(["gaussian", "prefix"]) = field(  # type: ignore[valid-type]
        default="gaussian", metadata={"help": "of the length transform: the paper's, or that of the released code"}
    )


@dataclass(frozen=True, kw_only=True)
class LanmtOptions(
    options.Candidates, options.Vocabulary, options.Deduplication, options.GoldLength, options.LatentSearch
):
    iterations: int = options.own(options.Refinement, "iterations", 1)
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")
    decode_sample_noise: float = options.own(options.LatentSearch, "decode_sample_noise", 0.5)
    latent_inference: str = options.own(options.LatentSearch, "latent_inference", "delta", ("delta", "mean"))


@dataclass(frozen=True, kw_only=True)
class LanmtEncoded(Encoded):
    """``states``: (B, S, D) of the prior; ``embedded``: (B, S, D) source embeddings; S counts ``<s>`` and ``</s>``."""

    embedded: Tensor
    states: Tensor
    memory: Tuple[Memory, ...]
    is_source: Tensor
    mask: Optional[Tensor]
    mean: Tensor
    std: Tensor


@dataclass(frozen=True, kw_only=True)
class LanmtProposals(Proposals):
    """``latents``: (R, S, Z); ``lengths``: those asked for, counting ``<s>``, or None: predicted from the latents."""

    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class LanmtState(State):
    """``tokens``, ``scores``: (R, T) without ``<s>``; ``latents``: (R, S, Z) that they were decoded from.

    ``mask``: (R, T + 1) True on tokens and ``<s>``, or None where no row has padding; ``asked``: the lengths asked for.
    """

    tokens: Tensor
    scores: Tensor
    latents: Tensor
    mask: Optional[Tensor]
    asked: Optional[Tensor]
    encoded: LanmtEncoded


class LanmtModel(base.GaussianModel):
    """Shapes as in ``methods.contract``. Inside, both sides begin with ``<s>``, which is predicted like any token;
    lengths inside count it, those that come from and go to the outside do not. Under ``--freeze encoder`` the source
    has none, as no teacher's has."""

    cfg: LanmtConfig
    criterions = ("elbo_length",)
    decode_options = LanmtOptions

    def __init__(self, cfg: LanmtConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, latent_size=1, posterior_layers=0)
        dim, size = cfg.encoder_embed_dim, cfg.latent_size
        table = nn.Embedding(symbols.size, dim)
        self.source_embedding = self.build_embedding(
            self.source_table(table, source_size), cfg.max_source_positions + 1
        )
        self.target_embedding = self.build_embedding(table, cfg.max_target_positions + 1)
        layers = cfg.posterior_layers or cfg.decoder_layers
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder", has_input_skip=True)
        self.posterior = method.Posterior(
            self.build_stack("decoder", layers, has_source=False), self.build_stack("decoder", layers), dim, size
        )
        self.prior, self.lift = nn.Linear(dim, 2 * size), nn.Linear(size, dim)
        self.length_head = nn.Linear(dim, length_classes.OFFSETS)
        self.length_table = nn.Embedding(cfg.max_target_positions + 2, dim)
        self.sigma = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(symbols.size))
        self.output = table if cfg.share_all_embeddings else nn.Embedding(symbols.size, dim)
        self.initialize()
        decode = method.Decoder(
            *(self.target_embedding, self.length_table, self.decoder),
            is_prefix=str(cfg.length_kernel) == "prefix",
        )
        encode = method.Encoder(self.source_embedding, self.encoder, self.prior, self.decoder)
        self.passes = {
            "encode": Pass(encode, "encoder"),
            "lift": Pass(method.Lift(self.lift)),
            "length": Pass(method.Length(self.length_head)),
            "decode": Pass(decode, "decoder"),
            "project": Pass(Projection(self.output, symbols.size)),
            "infer": Pass(method.Inference(self.target_embedding, self.posterior), "posterior"),
        }

    @property
    def gaussian_heads(self) -> Tuple[nn.Linear, ...]:
        return self.prior, self.posterior.output

    def encode(self, net_input: NetInput) -> LanmtEncoded:
        source, is_token = right_padded(net_input["src_tokens"], self.symbols.pad)
        padded, is_source = source, is_token
        if not self.is_encoder_frozen:
            padded, is_source = begin_padded(source, is_token, self.symbols.bos)
        mask = padding_mask(is_source)
        embedded, states, memory, mean, std = self.run("encode", padded, mask)
        return LanmtEncoded(
            **self.source_facts(source, is_token),
            embedded=embedded,
            states=states,
            memory=memory,
            is_source=is_source,
            mask=mask,
            mean=mean,
            std=std,
        )

    def infer(self, encoded: LanmtEncoded, target: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The posterior of latents given targets that begin with ``<s>``."""
        return self.run("infer", encoded.embedded, encoded.mask, target, mask)

    def lifted(self, encoded: LanmtEncoded, latents: Tensor) -> Tensor:
        """(R, S, Z) latents, which are float32, to the width and type of the model's states."""
        return self.run("lift", latents.to(encoded.states.dtype))

    def length_logits(self, encoded: LanmtEncoded, lifted: Tensor) -> Tensor:
        return self.run("length", lifted, encoded.states, encoded.is_source)

    def decode(
        self, encoded: LanmtEncoded, lifted: Tensor, lengths: Tensor, is_token: Tensor, mask: Optional[Tensor]
    ) -> Tensor:
        """One decoder pass: lifted latents on source positions to (R, T, D) states on target positions."""
        return self.run(
            "decode", lifted, encoded.is_source, lengths, is_token, mask, encoded.memory, encoded.mask, self.sigma
        )

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """Section 3.4: ``token`` from one posterior sample, ``kl`` a source position, ``length``; ``keys`` are those of
        the sample."""
        target, is_token = begin_padded(target, is_token, self.symbols.bos)
        encoded, mask = self.encode(net_input), padding_mask(is_token)
        mean, std = self.infer(encoded, target, mask)
        lifted, lengths = self.lifted(encoded, gaussian.sample(mean, std, keys)), is_token.sum(1)
        logits = self.project(self.decode(encoded, lifted, lengths, is_token, mask)[is_token])
        kl = gaussian.divergence(mean, std, encoded.mean, encoded.std)
        classes = length_classes.offset_classes(encoded.is_source.sum(1), lengths)
        return [
            Tokens("token", logits, target[is_token]),
            Nats("kl", kl, encoded.is_source, has_free_bits=True),
            Classes("length", self.length_logits(encoded, lifted), classes),
        ]

    def propose(self, encoded: LanmtEncoded, request: Request[LanmtOptions]) -> LanmtProposals:
        """The prior's mean, and around it samples, until there are ``request.n`` (section 3.5, latent search)."""
        n, longest = request.n, self.cfg.max_target_positions
        latents = encoded.mean.repeat_interleave(n, 0)
        if n > 1:
            spread = request.options.decode_sample_noise * encoded.std.repeat_interleave(n, 0)
            is_drawn = torch.arange(n, device=latents.device).repeat(len(encoded.mean)) > 0
            latents = gaussian.searched(latents, spread, noise.candidate_keys(request.keys(), n), is_drawn)
        lengths = None
        if request.lengths is not None:
            lengths = request.lengths.clamp(length_classes.SHORTEST, longest).repeat_interleave(n) + 1
        widest = encoded.mean.size(1) + length_classes.OFFSETS + length_classes.SHORTEST_OFFSET - 1
        return LanmtProposals(lengths=lengths, longest=min(widest, longest + 1), latents=latents)

    def start(self, encoded: LanmtEncoded, proposals: LanmtProposals) -> LanmtState:
        """The proposed latents, decoded."""
        return self.decoded(encoded, proposals.latents, proposals.lengths)

    def refine(self, state: LanmtState, step: int, steps: int) -> LanmtState:
        """A delta step: the posterior's mean given the tokens, a new length, new tokens."""
        return self.decoded(state.encoded, self.posterior_latents(state, state.tokens), state.asked)

    def decoded(self, encoded: LanmtEncoded, latents: Tensor, asked: Optional[Tensor]) -> LanmtState:
        """The most probable length, and the most probable token at each position."""
        lifted, lengths = self.lifted(encoded, latents), asked
        if lengths is None:
            classes, sizes = self.length_logits(encoded, lifted).argmax(1), encoded.is_source.sum(1)
            bounds = length_classes.SHORTEST + 1, self.cfg.max_target_positions + 1
            lengths = length_classes.of_offsets(classes, sizes, *bounds)
        is_token, mask = length_classes.canvas(lengths)
        logits = self.project(self.decode(encoded, lifted, lengths, is_token, mask)[:, 1:], encoded.shortlist)
        tokens, scores = self.most_probable(logits, is_token[:, 1:], encoded.shortlist, encoded.penalty)
        return LanmtState(tokens=tokens, scores=scores, latents=latents, mask=mask, asked=asked, encoded=encoded)

    def latents(self, state: LanmtState) -> Tensor:
        return state.latents

    def posterior_latents(self, state: LanmtState, target: Tensor) -> Tensor:
        """The posterior's mean given (R, T) targets as padded as the state's tokens."""
        bos = target.new_full((len(target), 1), self.symbols.bos)
        return self.infer(state.encoded, torch.cat([bos, target], 1), state.mask)[0]

    def latent_steps(self, state: LanmtState, latents: Tensor) -> None:
        """There is no refiner."""

    def finish(self, state: LanmtState) -> Finished:
        return Finished(state.tokens, state.scores)

    def score(self, encoded: LanmtEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from its posterior's mean, less the divergence, and of its length.

        A proxy: the bound is a mean over the posterior, of which this is the middle.
        """
        target, is_token = begin_padded(*right_padded(target, self.symbols.pad), self.symbols.bos)
        mask, lengths = padding_mask(is_token), is_token.sum(1)
        mean, std = self.infer(encoded, target, mask)
        lifted = self.lifted(encoded, mean)
        logits = self.project(self.decode(encoded, lifted, lengths, is_token, mask))
        tokens = self.target_log_probs(logits, target, is_token)
        kl = gaussian.divergence(mean, std, encoded.mean, encoded.std).masked_fill(~encoded.is_source, 0.0).sum(1)
        classes = length_classes.offset_classes(encoded.is_source.sum(1), lengths)
        length = self.length_logits(encoded, lifted).float().log_softmax(1).gather(1, classes[:, None])[:, 0]
        return Scored(tokens[:, 1:], tokens[:, 0] + length - kl, "proxy")
