"""A latent-variable model whose latents stand on target positions, to be refined without decoding.

Lee, Shu & Cho 2020, "Iterative Refinement in the Continuous Space for Non-Autoregressive Neural Machine Translation",
arXiv 2009.07177, section 3. It is not LaNMT (``lanmt``): the length is predicted once, from the source;
the prior reads nothing but positions and the source; the decoder reads nothing but latents and the source, and learns
from latents where it is.

Differs from the released code: sentences have no ``<s>``; attention to the source has weights of its own (there, for
IWSLT, those of self-attention); padding is hidden by −∞; the first sample of a latent search is the prior's mean;
tokens beyond a candidate's own length are padding; what its tests add to a length is an option (``--length-bonus``).
Attention weights and feed-forward layers have no dropout of their own unless asked for.
"""

from dataclasses import dataclass, field, replace
from typing import Any, List, Optional, Tuple

import torch
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import gaussian, noise, options
from ..methods import lanmt_continuous as method
from ..methods import lengths as length_classes
from ..methods.contract import Encoded, Finished, LengthProposals, NetInput, Pass, Request, Scored, State
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Nats, Term, Tokens
from ..methods.transformer import Memory, Projection, SourceMemory, padding_mask
from . import base


@dataclass
class LanmtContinuousConfig(base.GaussianConfig):
    prior_layers: int = field(default=0, metadata={"help": "layers of the prior; 0: as many as the decoder's"})
    untie_output: bool = field(
        default=False, metadata={"help": "with --share-all-embeddings: an output table of its own (released WMT)"}
    )
    length_bonus: float = field(
        default=0.0,
        metadata={"help": "decode targets longer by this share of the source (released: 0.11 IWSLT, 0.06 Ro-En)"},
    )


@dataclass(frozen=True, kw_only=True)
class LanmtContinuousOptions(
    options.Candidates, options.Vocabulary, options.Deduplication, options.Lengths, options.LatentSearch
):
    iterations: int = options.own(options.Refinement, "iterations", 1)
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")
    latent_inference: str = options.own(options.LatentSearch, "latent_inference", "delta", ("delta", "mean"))


@dataclass(frozen=True, kw_only=True)
class ContinuousEncoded(Encoded):
    """``states``: (B, S, D) of the source; ``length_log_probs``: (B, 100); memories for prior and decoder."""

    states: Tensor
    sizes: Tensor
    mask: Optional[Tensor]
    length_log_probs: Tensor
    prior_memory: Tuple[Memory, ...]
    memory: Tuple[Memory, ...]


@dataclass(frozen=True, kw_only=True)
class ContinuousProposals(LengthProposals):
    """``keys``: (R,) noise keys, None where no latents are drawn; ``is_drawn``: (R,) which are; ``spread``: how far."""

    keys: Optional[Tensor]
    is_drawn: Optional[Tensor]
    spread: float


@dataclass(frozen=True, kw_only=True)
class ContinuousState(State):
    """``latents``: (R, T, Z); ``tokens``, ``scores``: (R, T) decoded from them, None as long as nobody asked.

    ``mask`` is ``is_token``, or None where no row has padding; ``posterior_memory``: the source for the posterior, once
    it was needed.
    """

    latents: Tensor
    scores: Optional[Tensor] = None
    encoded: ContinuousEncoded
    is_token: Tensor
    mask: Optional[Tensor]
    posterior_memory: Optional[Tuple[Memory, ...]] = None


@register_model("lanmt_continuous", dataclass=LanmtContinuousConfig)
class LanmtContinuousModel(base.GaussianModel):
    """Shapes as in ``methods.contract``; T counts ``</s>``."""

    cfg: LanmtContinuousConfig
    criterions = ("elbo_length",)
    decode_options = LanmtContinuousOptions
    is_refinable = True

    def __init__(self, cfg: LanmtContinuousConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, latent_size=1, posterior_layers=0, prior_layers=0, length_bonus=0)
        dim, size = cfg.encoder_embed_dim, cfg.latent_size
        table = nn.Embedding(symbols.size, dim)
        self.source_embedding = self.build_embedding(self.source_table(table, source_size), cfg.max_source_positions)
        self.target_embedding = self.build_embedding(table, cfg.max_target_positions)
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder", has_input_skip=True)
        self.prior, self.posterior = (
            gaussian.GaussianStack(self.build_stack("decoder", layers or cfg.decoder_layers), dim, size)
            for layers in (cfg.prior_layers, cfg.posterior_layers)
        )
        self.lift = nn.Linear(size, dim)
        self.length_head = length_classes.predictor(dim, length_classes.OFFSETS)
        self.bias = nn.Parameter(torch.zeros(symbols.size))
        is_tied = cfg.share_all_embeddings and not cfg.untie_output
        self.output = table if is_tied else nn.Embedding(symbols.size, dim)
        self.initialize()
        encode = method.Encoder(self.source_embedding, self.encoder, self.prior.stack, self.decoder, self.length_head)
        self.passes = {
            "encode": Pass(encode, "encoder"),
            "expect": Pass(method.Prior(self.target_embedding, self.prior), "prior"),
            "remember": Pass(SourceMemory(self.posterior.stack)),
            "infer": Pass(method.Posterior(self.target_embedding, self.posterior), "posterior"),
            "decode": Pass(method.Decoder(self.lift, self.decoder), "decoder"),
            "project": Pass(Projection(self.output, symbols.size)),
        }

    @property
    def gaussian_heads(self) -> Tuple[nn.Linear, ...]:
        return self.prior.output, self.posterior.output

    def encode(self, net_input: NetInput) -> ContinuousEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask = padding_mask(is_source)
        states, log_probs, prior_memory, memory = self.run("encode", source, is_source, mask)
        return ContinuousEncoded(
            **self.source_facts(source, is_source),
            states=states,
            sizes=is_source.sum(1),
            mask=mask,
            length_log_probs=log_probs,
            prior_memory=prior_memory,
            memory=memory,
        )

    def expect(self, encoded: ContinuousEncoded, is_token: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The prior p(z | x, T) for (R, T) targets: mean and standard deviation, (R, T, Z) each."""
        return self.run("expect", is_token, mask, encoded.prior_memory, encoded.mask)

    def infer(
        self, encoded: ContinuousEncoded, target: Tensor, mask: Optional[Tensor], memory: Tuple[Memory, ...]
    ) -> Tuple[Tensor, Tensor]:
        """The posterior q(z | x, y); ``memory``: its own of the source."""
        return self.run("infer", target, mask, memory, encoded.mask)

    def decode(self, encoded: ContinuousEncoded, latents: Tensor, mask: Optional[Tensor]) -> Tensor:
        """One decoder pass: (R, T, Z) latents to (R, T, D) states."""
        return self.run("decode", latents, mask, encoded.memory, encoded.mask)

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """Section 3.1: ``token`` from one posterior sample, ``kl`` a target position, ``length``; ``keys`` are those of
        the sample. Validation takes the posterior's mean."""
        encoded, mask = self.encode(net_input), padding_mask(is_token)
        expected = self.expect(encoded, is_token, mask)
        mean, std = self.infer(encoded, target, mask, self.run("remember", encoded.states))
        latents = gaussian.sample(mean, std, keys) if self.training else mean
        logits = self.project(self.decode(encoded, latents, mask)[is_token])
        classes = length_classes.offset_classes(encoded.sizes, is_token.sum(1))
        return [
            Tokens("token", logits, target[is_token]),
            Nats("kl", gaussian.divergence(mean, std, *expected), is_token, has_free_bits=True),
            Classes("length", encoded.length_log_probs, classes),
        ]

    def propose(self, encoded: ContinuousEncoded, request: Request[Any]) -> ContinuousProposals:
        """Every length with every sample; the first of each length is the prior's mean (section 3.3, latent search)."""
        samples = request.options.samples
        n = request.n // samples
        if request.lengths is None:
            classes = length_classes.top_classes(encoded.length_log_probs, n)
            sizes = encoded.sizes + (self.cfg.length_bonus * encoded.sizes).long()
            longest = self.cfg.max_target_positions
            lengths = length_classes.of_offsets(classes, sizes[:, None], length_classes.SHORTEST, longest)
        else:
            lengths = self.lengths_around(request.lengths, n)
        keys = is_drawn = None
        if samples > 1:
            sample = torch.arange(samples, device=lengths.device).repeat(lengths.numel())
            keys = noise.fold(request.keys().repeat_interleave(request.n), sample)
            is_drawn = sample > 0
        return ContinuousProposals(
            lengths=lengths.flatten().repeat_interleave(samples),
            keys=keys,
            is_drawn=is_drawn,
            spread=request.options.decode_sample_noise,
        )

    def proposed(self, encoded: ContinuousEncoded, proposals: ContinuousProposals) -> ContinuousState:
        """The prior's mean, or a sample around it, not decoded yet."""
        is_token, mask = length_classes.canvas(proposals.lengths)
        latents, std = self.expect(encoded, is_token, mask)
        if proposals.keys is not None and proposals.is_drawn is not None:
            latents = gaussian.searched(latents, proposals.spread * std, proposals.keys, proposals.is_drawn)
        return ContinuousState(latents=latents, encoded=encoded, is_token=is_token, mask=mask)

    def decoded(self, state: ContinuousState) -> ContinuousState:
        """The state with the most probable token at each position: one decoder pass, one projection."""
        shortlist = state.encoded.shortlist
        logits = self.project(self.decode(state.encoded, state.latents, state.mask), shortlist)
        tokens, scores = self.most_probable(logits, state.is_token, shortlist, state.encoded.penalty)
        return replace(state, tokens=tokens, scores=scores)

    def start(self, encoded: ContinuousEncoded, proposals: ContinuousProposals) -> ContinuousState:
        """The proposed latents, decoded."""
        return self.decoded(self.proposed(encoded, proposals))

    def inferred(self, state: ContinuousState) -> ContinuousState:
        """The posterior's mean given the tokens of a state, not decoded yet."""
        memory = state.posterior_memory or self.run("remember", state.encoded.states)
        assert state.tokens is not None
        latents, _ = self.infer(state.encoded, state.tokens, state.mask, memory)
        return replace(state, latents=latents, posterior_memory=memory, tokens=None, scores=None)

    def refine(self, state: ContinuousState, step: int, steps: int) -> ContinuousState:
        """A delta step: latents inferred from the tokens, then new tokens; the length stays."""
        return self.decoded(self.inferred(state))

    def delta(
        self, encoded: ContinuousEncoded, latents: Tensor, is_token: Tensor, mask: Optional[Tensor], steps: int
    ) -> Tensor:
        """Where (B, T, Z) latents are after delta steps; they are not decoded there."""
        state = ContinuousState(latents=latents, encoded=encoded, is_token=is_token, mask=mask)
        for _ in range(steps):
            state = self.inferred(self.decoded(state))
        return state.latents

    def latents(self, state: ContinuousState) -> Tensor:
        return state.latents

    def posterior_latents(self, state: ContinuousState, target: Tensor) -> Tensor:
        return self.inferred(replace(state, tokens=target)).latents

    def latent_steps(self, state: ContinuousState, latents: Tensor) -> None:
        """There is no refiner."""

    def finish(self, state: ContinuousState) -> Finished:
        """A state that holds latents alone is decoded here."""
        if state.tokens is None:
            state = self.decoded(state)
        assert state.tokens is not None and state.scores is not None
        return Finished(state.tokens, state.scores)

    def score(self, encoded: ContinuousEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from its posterior's mean, less the divergence, and of its length: a proxy, as
        in LaNMT."""
        target, is_token = right_padded(target, self.symbols.pad)
        mask = padding_mask(is_token)
        mean, std = self.infer(encoded, target, mask, self.run("remember", encoded.states))
        tokens = self.target_log_probs(self.project(self.decode(encoded, mean, mask)), target, is_token)
        kl = gaussian.divergence(mean, std, *self.expect(encoded, is_token, mask))
        classes = length_classes.offset_classes(encoded.sizes, is_token.sum(1))
        length = encoded.length_log_probs.gather(1, classes[:, None])[:, 0]
        return Scored(tokens, length - kl.masked_fill(~is_token, 0.0).sum(1), "proxy")


ENCODER = {"encoder_layers": 5}
NARROW = {
    **ENCODER,
    **{"decoder_layers": 6, "encoder_embed_dim": 256, "encoder_ffn_embed_dim": 1024, "decoder_ffn_embed_dim": 1024},
    **{"encoder_attention_heads": 8, "decoder_attention_heads": 8},
}

base.register_presets(
    "lanmt_continuous",
    tiny={"dropout": 0.0},
    small={"dropout": 0.1},
    iwslt16_de_en={"dropout": 0.1, **NARROW},
    iwslt14_de_en={"dropout": 0.1},
    wmt14_en_de={"dropout": 0.1, "untie_output": True, **ENCODER},
    wmt16_ro_en={"dropout": 0.1, "untie_output": True, **NARROW},
)
