"""A latent-variable model whose latents stand on target positions, to be refined without decoding.

Lee, Shu & Cho 2020, "Iterative Refinement in the Continuous Space for Non-Autoregressive Neural Machine Translation",
arXiv 2009.07177, section 3. It is not LaNMT (``latent_transformer``): the length is predicted once, from the source;
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
import torch.nn.functional as F
from fairseq.models import register_model
from torch import Tensor, nn

from ..methods import gaussian, noise, prediction
from ..methods import lanmt as method
from ..methods import lengths as length_classes
from ..methods.contract import Ask, Encoded, Finished, LengthStarts, Scored, State
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Classes, Term, Tokens, Values
from ..methods.transformer import Memory, Stack, padding_mask
from . import base

LENGTH_WIDTH = 200
"""Hidden width of the length predictor (released code)."""


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
class ContinuousEncoded(Encoded):
    """``states``: (B, S, D) of the source; ``length_log_probs``: (B, 100); memories for prior and decoder."""

    states: Tensor
    sizes: Tensor
    mask: Optional[Tensor]
    length_log_probs: Tensor
    prior_memory: Tuple[Memory, ...]
    memory: Tuple[Memory, ...]


@dataclass(frozen=True, kw_only=True)
class ContinuousStarts(LengthStarts):
    """``keys``: (R,) noise keys, None where no latents are drawn; ``is_drawn``: (R,) which are; ``spread``: how far."""

    keys: Optional[Tensor]
    is_drawn: Optional[Tensor]
    spread: float


@dataclass(frozen=True, kw_only=True)
class ContinuousState(State):
    """``latents``: (R, T, Z); ``tokens``, ``scores``: (R, T) what they say, None as long as nobody asked.

    ``mask`` is ``is_token``, or None where no row has padding; ``posterior_memory``: the source for the posterior, once
    it was needed.
    """

    latents: Tensor
    scores: Optional[Tensor] = None
    encoded: ContinuousEncoded
    is_token: Tensor
    mask: Optional[Tensor]
    posterior_memory: Optional[Tuple[Memory, ...]] = None


class GaussianStack(nn.Module):
    """A stack over a source, and at each position a mean and a standard deviation."""

    def __init__(self, stack: Stack, dim: int, latent_size: int) -> None:
        super().__init__()
        self.stack, self.output = stack, nn.Linear(dim, 2 * latent_size)

    def forward(
        self, x: Tensor, mask: Optional[Tensor], memory: Tuple[Memory, ...], is_source: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """(B, T, D) to (B, T, Z) twice."""
        return gaussian.split(self.output(self.stack(x, mask, memory, is_source)))


@register_model("lanmt_continuous", dataclass=LanmtContinuousConfig)
class LanmtContinuousModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; T counts ``</s>``."""

    criterions = ("elbo_length",)
    decode_flags = base.CANDIDATE_FLAGS | base.STOP_FLAGS | base.LATENT_FLAGS
    candidate_flags = ("iter_decode_with_beam", "decode_samples")
    inferences = ("delta", "mean")
    sample_noise = 1.0
    silent_iterations = 1
    default_stop_rule = "fixed-point"
    is_refinable = True

    def __init__(self, cfg: LanmtContinuousConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, latent_size=1, posterior_layers=0, prior_layers=0, length_bonus=0)
        cfg.normalize_before = not cfg.post_norm
        dim, size = cfg.encoder_embed_dim, cfg.latent_size
        table = nn.Embedding(symbols.size, dim)
        source_table = table if cfg.share_all_embeddings else nn.Embedding(source_size, dim)
        self.source_embedding = base.TokenEmbedding(source_table, cfg.max_source_positions, cfg)
        self.target_embedding = base.TokenEmbedding(table, cfg.max_target_positions, cfg)
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder", has_input_skip=True)
        self.prior, self.posterior = (
            GaussianStack(self.build_stack("decoder", layers or cfg.decoder_layers), dim, size)
            for layers in (cfg.prior_layers, cfg.posterior_layers)
        )
        self.lift = nn.Linear(size, dim)
        self.length_head = nn.Sequential(
            *(nn.Linear(dim, LENGTH_WIDTH), nn.ELU(), nn.Linear(LENGTH_WIDTH, LENGTH_WIDTH), nn.ELU()),
            nn.Linear(LENGTH_WIDTH, method.OFFSETS),
        )
        self.bias = nn.Parameter(torch.zeros(symbols.size))
        is_tied = cfg.share_all_embeddings and not cfg.untie_output
        self.output = table if is_tied else nn.Embedding(symbols.size, dim)
        self.initialize()

    @property
    def counted(self) -> Any:
        return {name: getattr(self, name) for name in ("encoder", "prior", "posterior", "decoder")}

    def encode(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None) -> ContinuousEncoded:
        source, is_source = right_padded(src_tokens, self.symbols.pad)
        mask, sizes = padding_mask(is_source), is_source.sum(1)
        states = self.encoder(self.source_embedding(source), mask)
        mean = (states * is_source[..., None]).sum(1) / sizes[:, None].clamp(min=1)
        return ContinuousEncoded(
            source=source,
            states=states,
            sizes=sizes,
            mask=mask,
            length_log_probs=self.length_head(mean).float().log_softmax(1),
            prior_memory=self.prior.stack.project(states),
            memory=self.decoder.project(states),
        )

    def expect(self, encoded: ContinuousEncoded, width: int, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """The prior p(z | x, T), whose queries are positions alone: mean and standard deviation, (B, width, Z)."""
        places = self.target_embedding.positions.weight[:width].expand(len(encoded.states), -1, -1)
        return self.prior(self.target_embedding.dropout(places), mask, encoded.prior_memory, encoded.mask)

    def infer(
        self, encoded: ContinuousEncoded, target: Tensor, mask: Optional[Tensor], memory: Tuple[Memory, ...]
    ) -> Tuple[Tensor, Tensor]:
        """The posterior q(z | x, y); ``memory``: ``self.posterior.stack.project(encoded.states)``."""
        return self.posterior(self.target_embedding(target), mask, memory, encoded.mask)

    def decode(self, encoded: ContinuousEncoded, latents: Tensor, mask: Optional[Tensor]) -> Tensor:
        """One decoder pass: (B, T, Z) latents to (B, T, D) states. No positions are added."""
        lifted = self.lift(latents.to(self.lift.weight.dtype))
        return self.decoder(lifted, mask, encoded.memory, encoded.mask)

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
        """Loss terms (section 3.1): ``token`` from one posterior sample, ``kl`` a target position, ``length``.

        ``target``: (B, T) ids ending in ``</s>``; ``keys``: (B,) noise keys. Validation takes the posterior's mean.
        """
        keys = self.required(keys)
        target, is_token = right_padded(self.required(target), self.symbols.pad)
        encoded, mask = self.encode(src_tokens, src_lengths), padding_mask(is_token)
        expected = self.expect(encoded, target.size(1), mask)
        mean, std = self.infer(encoded, target, mask, self.posterior.stack.project(encoded.states))
        latents = gaussian.sample(mean, std, keys) if self.training else mean
        logits = self.project(self.decode(encoded, latents, mask)[is_token])
        classes = method.length_classes(encoded.sizes, is_token.sum(1))
        return [
            Tokens("token", logits, target[is_token]),
            Values("kl", gaussian.divergence(mean, std, *expected), is_token),
            Classes("length", encoded.length_log_probs, classes),
        ]

    def propose(self, encoded: ContinuousEncoded, ask: Ask) -> ContinuousStarts:
        """Every length with every sample; the first of each length is the prior's mean (section 3.3, latent search)."""
        samples = max(1, int(ask.options.get("decode_samples", 0)))
        n = ask.n // samples
        if ask.lengths is None:
            classes = length_classes.top_classes(encoded.length_log_probs, n)
            sizes = encoded.sizes + (self.cfg.length_bonus * encoded.sizes).long()
            longest = self.cfg.max_target_positions
            lengths = method.lengths_of(classes, sizes[:, None], length_classes.SHORTEST, longest)
        else:
            lengths = length_classes.window(ask.lengths, n, self.cfg.max_target_positions)
        keys = is_drawn = None
        if samples > 1:
            sample = torch.arange(samples, device=lengths.device).repeat(lengths.numel())
            keys = noise.fold(ask.seeds().repeat_interleave(ask.n), sample)
            is_drawn = sample > 0
        return ContinuousStarts(
            lengths=lengths.flatten().repeat_interleave(samples),
            keys=keys,
            is_drawn=is_drawn,
            spread=ask.options.get("decode_sample_noise", self.sample_noise),
        )

    def begin(self, encoded: ContinuousEncoded, starts: ContinuousStarts) -> ContinuousState:
        """The prior's mean, or a sample around it; nothing is said yet."""
        is_token, mask = length_classes.canvas(starts.lengths)
        latents, std = self.expect(encoded, is_token.size(1), mask)
        if starts.keys is not None and starts.is_drawn is not None:
            drawn = gaussian.sample(latents, starts.spread * std, starts.keys)
            latents = torch.where(starts.is_drawn[:, None, None], drawn, latents)
        return ContinuousState(latents=latents, encoded=encoded, is_token=is_token, mask=mask)

    def said(self, state: ContinuousState) -> ContinuousState:
        """The state with the most probable token at each position: one decoder pass, one projection."""
        logits = self.project(self.decode(state.encoded, state.latents, state.mask))
        tokens, scores = prediction.most_probable(logits, (self.symbols.pad, self.symbols.bos))
        return replace(
            state,
            tokens=tokens.masked_fill(~state.is_token, self.symbols.pad),
            scores=scores.masked_fill(~state.is_token, 0.0),
        )

    def start(self, encoded: ContinuousEncoded, starts: ContinuousStarts) -> ContinuousState:
        """What the proposed latents say."""
        return self.said(self.begin(encoded, starts))

    def inferred(self, state: ContinuousState) -> ContinuousState:
        """The posterior's mean given what a state says, and nothing said from there yet."""
        memory = state.posterior_memory or self.posterior.stack.project(state.encoded.states)
        assert state.tokens is not None
        latents, _ = self.infer(state.encoded, state.tokens, state.mask, memory)
        return replace(state, latents=latents, posterior_memory=memory, tokens=None, scores=None)

    def refine(self, state: ContinuousState, step: int, steps: int) -> ContinuousState:
        """A delta step: latents inferred from the tokens, then new tokens; the length stays."""
        return self.said(self.inferred(state))

    def delta(
        self, encoded: ContinuousEncoded, latents: Tensor, is_token: Tensor, mask: Optional[Tensor], steps: int
    ) -> Tensor:
        """Where (B, T, Z) latents are after delta steps; what they say there is left open."""
        state = ContinuousState(latents=latents, encoded=encoded, is_token=is_token, mask=mask)
        for _ in range(steps):
            state = self.inferred(self.said(state))
        return state.latents

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: ContinuousState) -> Finished:
        """A state that holds latents alone is decoded here."""
        said = self.said(state) if state.tokens is None else state
        assert said.tokens is not None and said.scores is not None
        return Finished(said.tokens, said.scores)

    def score(self, encoded: ContinuousEncoded, target: Tensor) -> Scored:
        """Log-probability of a target from its posterior's mean, less the divergence, and of its length: a proxy, as
        in LaNMT."""
        target, is_token = right_padded(target, self.symbols.pad)
        mask = padding_mask(is_token)
        mean, std = self.infer(encoded, target, mask, self.posterior.stack.project(encoded.states))
        log_probs = self.project(self.decode(encoded, mean, mask)).float().log_softmax(-1)
        tokens = log_probs.gather(2, target[..., None])[..., 0].masked_fill(~is_token, 0.0)
        kl = gaussian.divergence(mean, std, *self.expect(encoded, target.size(1), mask))
        classes = method.length_classes(encoded.sizes, is_token.sum(1))
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
