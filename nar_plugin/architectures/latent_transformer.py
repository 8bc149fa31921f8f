"""The latent transformer: a few codes, predicted one after the other, and everything decoded from them in one pass.

Kaiser et al. 2018 (arXiv 1803.03382), Roy et al. 2018 (arXiv 1805.11063); networks in ``methods.latent_transformer``,
ways to make a latent discrete in ``methods.quantizers``. ``--arch latent_transformer --latent {semhash,gumbel,vq,dvq,
fsq}``; with ``--latent gaussian``, the default, that name builds LaNMT (``architectures.lanmt``).

Differs from the released code: each row has a canvas of its own, and what lies beyond it is hidden, so that no output
depends on the batch; positions are those of ``--positions``; attention to the source, where asked for, hides its
padding; the predictor's logits are not normalised by their size in training; under ``--latent-length predicted`` there
is a canvas of the target's own length.

Where the sources disagree: compressor and decompressor do not attend to the source, as in Roy et al.
(``--attend-compress``, ``--attend-decompress``: as in Kaiser et al.); the decoder is causal, as in both, reading the
decompressed sequence one position late (``--latent-decoder-self-attn full``: each position sees all); at first the
decoder reads the target in place of what was decompressed, as both papers say (``--latent-curriculum bypass``: it reads
what was decompressed from latents that are no codes yet, the other way in the released code); the predictor's loss does
not reach the compressor (``--lp-grad-to-ae``: it does, as in one of the released versions). A code is predicted by one
softmax (``--predictor-parts``: in digits, as the released code can); there is one codebook, of moving averages
(``--residual-codebooks``: several, as there; ``--codebook gradient``: van den Oord et al. 2017, equation 3).

Roy et al.'s learning rate falls exponentially after its warm-up: fairseq's ``--lr-scheduler step --warmup-updates W
--lr-decay λ --lr-deacy-period 1`` (so spelt), λ to the power of the updates since.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from omegaconf import II
from torch import Tensor, nn

from ..methods import autoregressive, noise, options, quantizers, schedules
from ..methods import latent_transformer as method
from ..methods import lengths as length_classes
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
from ..methods.terms import Classes, Nats, Term, Tokens, Usage
from ..methods.transformer import Memory, Projection, padding_mask
from . import base
from .lanmt import LanmtConfig, LanmtModel

KINDS = ("gaussian", "semhash", "gumbel", "vq", "dvq", "fsq")
ENDS: Dict[str, Dict[str, float]] = {
    "papers": {"target_feeding": 50000, "bypass": 10000, "hash": 20000, "gumbel_noise": 30000, "gumbel": 150000},
    "run": {"target_feeding": 0.2, "bypass": 0.05, "hash": 0.1, "gumbel_noise": 0.15, "gumbel": 0.6},
}
"""When schedules end: after so many updates, as in the released code, or after that share of ``--max-update``."""


@dataclass
class LatentTransformerConfig(LanmtConfig):
    """LaNMT's options, then those of discrete latents; 0 of a schedule's end: as ``--schedules`` says."""

    latent: ChoiceEnum(list(KINDS)) = field(  # type: ignore[valid-type]
        default="gaussian", metadata={"help": "what a latent is: gaussian (LaNMT), or a code made in one of five ways"}
    )
    compression: int = field(default=8, metadata={"help": "target tokens to one code: a power of two"})
    codebook_size: int = field(
        default=4096, metadata={"help": "codes that there are (fsq: about so many; --fsq-levels decides)"}
    )
    latent_length: ChoiceEnum(["canvas", "predicted"]) = field(  # type: ignore[valid-type]
        default="canvas",
        metadata={"help": "canvas: twice the source, cut at </s>; predicted: a length head, fewer codes"},
    )
    latent_decoder_self_attn: ChoiceEnum(["causal", "full"]) = field(  # type: ignore[valid-type]
        default="causal", metadata={"help": "what a position of the parallel decoder sees"}
    )
    attend_compress: bool = field(default=False, metadata={"help": "the compressor attends to the source"})
    attend_decompress: bool = field(default=False, metadata={"help": "the decompressor attends to the source"})
    predictor_layers: int = field(default=0, metadata={"help": "of the codes' predictor; 0: as many as the decoder's"})
    predictor_parts: int = field(
        default=1,
        metadata={"help": "digits of a code that are predicted each by a softmax; 1: one softmax of all codes"},
    )
    lp_grad_to_ae: bool = field(default=False, metadata={"help": "the predictor's loss reaches the compressor"})
    word_dropout: float = field(default=0.0, metadata={"help": "share of words hidden from the compressor in training"})
    word_shuffle: float = field(
        default=0.0, metadata={"help": "how far words are shuffled for the compressor in training"}
    )
    latent_curriculum: ChoiceEnum(["targets", "bypass", "none"]) = field(  # type: ignore[valid-type]
        default="targets",
        metadata={"help": "what the decoder reads at first: the target; latents that are no codes yet; neither"},
    )
    schedules: ChoiceEnum(["papers", "run"]) = field(  # type: ignore[valid-type]
        default="papers", metadata={"help": "ends of schedules: updates as published, or shares of --max-update"}
    )
    target_feeding: float = field(
        default=0.0, metadata={"help": "update (below 1: share) at which targets are read no more, and codes predicted"}
    )
    bypass: float = field(default=0.0, metadata={"help": "update (or share) from which all latents are codes"})
    hash_noise: float = field(default=1.0, metadata={"help": "semhash: standard deviation of the noise"})
    hash_ramp: float = field(default=0.0, metadata={"help": "semhash: update (or share) at which half are bits"})
    gumbel_noise_ramp: float = field(default=0.0, metadata={"help": "gumbel: update (or share) of the full noise"})
    gumbel_ramp: float = field(default=0.0, metadata={"help": "gumbel: update (or share) of the last temperature"})
    gumbel_usage: float = field(
        default=0.0, metadata={"help": "gumbel: weight of terms that keep codes in use (released code: 1)"}
    )
    dvq: ChoiceEnum(["sliced", "projected"]) = field(  # type: ignore[valid-type]
        default="sliced", metadata={"help": "dvq: parts are slices of a vector, or fixed random projections"}
    )
    dvq_parts: int = field(default=2, metadata={"help": "dvq: parts of a vector, each with a codebook"})
    residual_codebooks: int = field(
        default=1, metadata={"help": "vq, dvq: codebooks one after the other, each for what those before it left"}
    )
    codebook: ChoiceEnum(["averages", "gradient"]) = field(  # type: ignore[valid-type]
        default="averages", metadata={"help": "vq, dvq: what moves codes: averages of what they stand for, or a loss"}
    )
    vq_em: ChoiceEnum(["hard", "soft"]) = field(  # type: ignore[valid-type]
        default="hard", metadata={"help": "vq: the nearest code, or samples of near ones"}
    )
    vq_em_samples: int = field(default=10, metadata={"help": "vq: codes drawn a latent under --vq-em soft"})
    codebook_decay: float = field(default=0.999, metadata={"help": "vq, dvq: decay of the moving averages, an update"})
    commitment: float = field(default=0.25, metadata={"help": "vq, dvq: weight of the squared distance to a code"})
    fsq_levels: str = field(default="", metadata={"help": "fsq: levels of each dimension, as 8,5,5,5"})
    max_update: int = II("optimization.max_update")


OF_GAUSSIAN = ("latent_size", "posterior_layers", "length_kernel")
OF_CODEBOOKS = ("residual_codebooks", "codebook", "codebook_decay", "commitment")
OF_KIND = {
    "semhash": ("hash_noise", "hash_ramp"),
    "gumbel": ("gumbel_noise_ramp", "gumbel_ramp", "gumbel_usage"),
    "vq": ("vq_em", "vq_em_samples", *OF_CODEBOOKS),
    "dvq": ("dvq", "dvq_parts", *OF_CODEBOOKS),
    "fsq": ("fsq_levels",),
}
ALWAYS = ("latent", "schedules", "max_update")


def idle_options(cfg: LatentTransformerConfig) -> Dict[str, str]:
    """Options that were given and change nothing, with the reason."""
    kind = str(cfg.latent)
    inherited = {f.name for f in fields(LanmtConfig)}
    discrete = [f.name for f in fields(LatentTransformerConfig) if f.name not in inherited and f.name not in ALWAYS]
    idle = set(discrete) if kind == "gaussian" else set(OF_GAUSSIAN)
    reasons = dict.fromkeys(idle, f"with --latent {kind}")
    if kind != "gaussian":
        own = set(OF_KIND[kind])
        reasons |= {name: f"with --latent {kind}" for names in OF_KIND.values() for name in names if name not in own}
        if str(cfg.vq_em) == "hard":
            reasons["vq_em_samples"] = "without --vq-em soft"
        if str(cfg.codebook) == "gradient":
            reasons["codebook_decay"] = "with --codebook gradient"
        if cfg.fsq_levels:
            reasons["codebook_size"] = "beside --fsq-levels"
        if str(cfg.latent_curriculum) != "bypass":
            reasons["bypass"] = f"with --latent-curriculum {cfg.latent_curriculum}"
    defaults = {f.name: f.default for f in fields(LatentTransformerConfig)}
    return {name: why for name, why in reasons.items() if str(getattr(cfg, name)) != str(defaults[name])}


@dataclass(frozen=True, kw_only=True)
class LatentTransformerOptions(options.Candidates, options.Vocabulary, options.Deduplication, options.Codes):
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")


@dataclass(frozen=True, kw_only=True)
class LatentTransformerEncoded(Encoded):
    """``sizes``: (B,) source lengths; ``memories``: of the decoder, the predictor, and whatever attends beside them."""

    sizes: Tensor
    mask: Optional[Tensor]
    memories: Tuple[Tuple[Memory, ...], ...]
    length_log_probs: Optional[Tensor]


@dataclass(frozen=True, kw_only=True)
class LatentTransformerProposals(LengthProposals):
    """``codes``: (R, M); ``code_scores``: (R,) their log-probability in nats; ``is_cut``: a target ends at its first
    ``</s>``, as nobody told its length."""

    codes: Tensor
    code_scores: Tensor
    is_cut: bool


@dataclass(frozen=True, kw_only=True)
class LatentTransformerState(State):
    """``tokens``, ``scores``: (R, T); ``codes``: (R, M) that they were decoded from, ``code_scores`` as proposed."""

    tokens: Tensor
    scores: Tensor
    codes: Tensor
    code_scores: Tensor
    lengths: Tensor
    is_cut: bool
    encoded: LatentTransformerEncoded


@dataclass(frozen=True, kw_only=True)
class Reading(State):
    """What the predictor has read of a row: keys and values of each layer, and the encoded source."""

    layers: Tuple[Memory, ...]
    memory: Tuple[Memory, ...]
    mask: Optional[Tensor]


@register_model("latent_transformer", dataclass=LatentTransformerConfig)
class LatentTransformerModel(base.DecodingModel):
    """Shapes as in ``methods.contract``; M codes for L positions of a canvas, a multiple of ``--compression``.

    A canvas is ``--latent-length``'s: of the greater of the target's length and twice the source's in training, twice
    the source's in decoding, and all of it takes part in losses and statistics but what the batch adds; or of the
    target's length, and of the predicted one.
    """

    cfg: LatentTransformerConfig
    criterions = ("elbo_length",)
    decode_options = LatentTransformerOptions

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> base.DecodingModel:
        """LaNMT where latents are Gaussian. Raises UsageError for an option that has no effect on what was chosen."""
        for name, why in idle_options(cfg).items():
            raise UsageError(f"--{name.replace('_', '-')} has no effect {why}")
        if str(cfg.latent) == "gaussian":
            return LanmtModel.build_model(cfg, task)
        return super().build_model(cfg, task)

    def __init__(self, cfg: LatentTransformerConfig, symbols: Symbols, source_size: int) -> None:
        super().__init__(cfg, symbols, source_size)
        base.check_least(cfg, compression=2, codebook_size=2, vq_em_samples=1, dvq_parts=1, predictor_layers=0)
        base.check_least(cfg, predictor_parts=1, residual_codebooks=1, gumbel_usage=0)
        if cfg.compression & (cfg.compression - 1):
            raise UsageError(f"--compression {cfg.compression}: it takes a power of two")
        self.is_causal, self.is_predicted = (
            str(cfg.latent_decoder_self_attn) == "causal",
            str(cfg.latent_length) == "predicted",
        )
        if not self.is_causal and str(cfg.latent_curriculum) == "targets":
            raise UsageError(
                "--latent-decoder-self-attn full sees what it predicts: not with --latent-curriculum targets"
            )
        if str(cfg.schedules) == "run" and not cfg.max_update:
            raise UsageError("--schedules run needs --max-update, of which they are shares")
        self.update = 0
        dim, steps = cfg.encoder_embed_dim, cfg.compression.bit_length() - 1
        longest = -(-cfg.max_target_positions // cfg.compression) * cfg.compression
        table = nn.Embedding(symbols.size, dim)
        self.source_embedding = self.build_embedding(self.source_table(table, source_size), cfg.max_source_positions)
        self.target_embedding = self.build_embedding(table, longest)
        self.encoder, self.decoder = self.build_stack("encoder"), self.build_stack("decoder")
        self.predictor_stack = self.build_stack("decoder", cfg.predictor_layers)
        compressing = self.build_stack("decoder", 1) if cfg.attend_compress else None
        decompressing = [self.build_stack("decoder", 1) for _ in range(steps if cfg.attend_decompress else 0)]
        self.compressor = method.Compressor(dim, steps, cfg.dropout, compressing)
        self.decompressor = method.Decompressor(dim, steps, cfg.dropout, decompressing)
        self.quantiser = self.build_quantiser(dim)
        self.places = self.build_embedding(nn.Embedding(1, dim), longest // cfg.compression).positions
        digits = cfg.predictor_parts
        rows = self.quantiser.size if digits == 1 else digits * method.base_of(self.quantiser.size, digits)
        self.code_output = nn.Embedding(rows, dim)
        self.length_head = length_classes.predictor(dim, length_classes.OFFSETS) if self.is_predicted else None
        self.output = table if cfg.share_all_embeddings else nn.Embedding(symbols.size, dim)
        self.initialize()
        readers = [self.decoder, self.predictor_stack, *([compressing] if compressing else []), *decompressing]
        self.predictor = method.Predictor(self.places, cfg.dropout, self.predictor_stack)
        decoder = method.Decoder(self.places, self.target_embedding, self.decompressor, self.decoder, self.is_causal)
        encoder = method.Encoder(self.source_embedding, self.encoder, readers, self.length_head)
        project_codes = Projection(self.code_output, rows) if digits == 1 else method.Digits(self.code_output, digits)
        self.passes = {
            "encode": Pass(encoder, "encoder"),
            "embed": Pass(method.Embed(self.quantiser)),
            "step": Pass(method.PredictorStep(self.predictor), "latent"),
            "project_codes": Pass(project_codes),
            "decode": Pass(decoder, "decoder"),
            "project": Pass(Projection(self.output, symbols.size)),
            "compress": Pass(method.Autoencoder(self.target_embedding, self.compressor), "posterior"),
        }

    def build_quantiser(self, dim: int) -> quantizers.Quantiser:
        """What ``--latent`` names."""
        cfg, size = self.cfg, self.cfg.codebook_size
        kind = str(cfg.latent)
        if kind == "semhash":
            hidden = cfg.decoder_ffn_embed_dim
            ramp = self.end("hash", cfg.hash_ramp)
            return quantizers.SemanticHashing(dim, size, hidden=hidden, noise_dev=cfg.hash_noise, ramp=ramp)
        if kind == "gumbel":
            ends = self.end("gumbel_noise", cfg.gumbel_noise_ramp), self.end("gumbel", cfg.gumbel_ramp)
            return quantizers.Gumbel(dim, size, noise_ramp=ends[0], temperature_ramp=ends[1], usage=cfg.gumbel_usage)
        if kind == "fsq":
            return quantizers.FiniteScalar(dim, quantizers.levels_of(cfg.fsq_levels, size))
        return quantizers.VectorQuantiser(
            dim,
            size,
            parts=cfg.dvq_parts if kind == "dvq" else 1,
            residuals=cfg.residual_codebooks,
            is_projected=kind == "dvq" and str(cfg.dvq) == "projected",
            is_learnt=str(cfg.codebook) == "gradient",
            samples=cfg.vq_em_samples if kind == "vq" and str(cfg.vq_em) == "soft" else 0,
            decay=cfg.codebook_decay,
            beta=cfg.commitment,
        )

    def end(self, name: str, given: float) -> float:
        """Of a schedule: as given, or as ``--schedules`` says."""
        return given or ENDS[str(self.cfg.schedules)][name]

    @property
    def is_prenorm(self) -> bool:
        return not self.cfg.post_norm

    def tables(self) -> List[Tuple[str, nn.Embedding]]:
        """Those of words: codes are none."""
        return [(use, table) for use, table in super().tables() if table is not self.code_output]

    @property
    def progress(self) -> quantizers.Progress:
        return quantizers.Progress(self.update, self.cfg.max_update)

    def set_num_updates(self, num_updates: int) -> None:
        """The task says how far the training is, after a resume too."""
        super().set_num_updates(num_updates)
        self.update = num_updates

    def commit(self) -> None:
        """An optimiser step was made: codebooks move."""
        self.quantiser.commit()

    def discard(self) -> None:
        """The last batch was a dummy: it moves no codebook."""
        self.quantiser.discard()

    @property
    def share_of_latents(self) -> float:
        """Probability that a position reads what was decompressed, not the target: m(s)."""
        end = self.progress.until(self.end("target_feeding", self.cfg.target_feeding))
        return schedules.climbing(self.update, end) * schedules.rising(self.update, end / 4)

    @property
    def share_of_codes(self) -> float:
        """Probability that a sentence's latents are codes, not what becomes them: pc(s)."""
        return schedules.rising(self.update, self.progress.until(self.end("bypass", self.cfg.bypass)))

    @property
    def predictor_weight(self) -> float:
        """The predictor is taught once the curriculum is over."""
        if str(self.cfg.latent_curriculum) != "targets":
            return 1.0
        return float(self.update > self.progress.until(self.end("target_feeding", self.cfg.target_feeding)))

    def encode(self, net_input: NetInput) -> LatentTransformerEncoded:
        source, is_source = right_padded(net_input["src_tokens"], self.symbols.pad)
        mask = padding_mask(is_source)
        memories, log_probs = self.run("encode", source, is_source, mask)
        facts = self.source_facts(source, is_source)
        return LatentTransformerEncoded(
            **facts, sizes=is_source.sum(1), mask=mask, memories=memories, length_log_probs=log_probs
        )

    def canvas_of(self, lengths: Tensor) -> Tensor:
        """(R,) lengths to those of their canvases."""
        return method.canvas_lengths(lengths, self.cfg.compression)

    def source_canvas(self, encoded: LatentTransformerEncoded) -> Tensor:
        """(B,) twice the source, as far as the model can write."""
        return (2 * encoded.sizes).clamp(max=self.cfg.max_target_positions)

    def compress(
        self, encoded: LatentTransformerEncoded, target: Tensor, canvas: Tensor, keys: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """(R, T) right-padded targets on (R,) canvases to (R, M, D), and where there are latents, (R, M).

        ``keys``: of what is hidden and shuffled in training.
        """
        width = int(canvas.max())
        target = F.pad(target[:, :width], (0, max(0, width - target.size(1))), value=self.symbols.pad)
        is_token, is_canvas = target != self.symbols.pad, length_classes.is_within(canvas, width)
        is_kept = None
        if keys is not None and self.cfg.word_shuffle:
            target = target.gather(1, method.word_order(keys, is_token, self.cfg.word_shuffle))
        if keys is not None and self.cfg.word_dropout:
            is_kept = noise.uniform(noise.fold(keys, 12), width) >= self.cfg.word_dropout
        memory = encoded.memories[2] if self.cfg.attend_compress else None
        found = self.run("compress", target, is_token, padding_mask(is_canvas), memory, encoded.mask, is_kept)
        return found, is_canvas[:, :: self.cfg.compression]

    def quantised(self, h: Tensor, is_latent: Tensor, keys: Tensor) -> quantizers.Quantised:
        found: quantizers.Quantised = self.quantiser(h, is_latent, noise.fold(keys, 21), self.progress)
        return found

    def codes_of(self, encoded: LatentTransformerEncoded, target: Tensor, canvas: Tensor) -> Tuple[Tensor, Tensor]:
        """(R, M) codes of (R, T) targets on (R,) canvases, and where there are any."""
        h, is_latent = self.compress(encoded, target, canvas)
        return self.quantised(h, is_latent, encoded.keys).codes.masked_fill(~is_latent, 0), is_latent

    def decode(
        self,
        encoded: LatentTransformerEncoded,
        vectors: Tensor,
        is_latent: Tensor,
        width: int,
        target: Optional[Tensor] = None,
        is_latents: Optional[Tensor] = None,
    ) -> Tensor:
        """The parallel pass: (R, M, D) vectors of codes to (R, ``width``, D) states."""
        first = 2 + int(self.cfg.attend_compress)
        memories = encoded.memories[:1] + encoded.memories[first:]
        seen = None
        if not self.is_causal:
            seen = is_latent.repeat_interleave(self.cfg.compression, 1)
            width = seen.size(1)
        hidden = padding_mask(is_latent)
        return self.run("decode", vectors, hidden, seen, width, memories, encoded.mask, target, is_latents)

    def code_logits(self, encoded: LatentTransformerEncoded, embedded: Tensor) -> Tensor:
        """(R, M, D) embedded codes to (R, M, K) logits of each given those before."""
        return self.run("project_codes", self.predictor(embedded, encoded.memories[1], encoded.mask))

    def code_log_probs(self, encoded: LatentTransformerEncoded, codes: Tensor) -> Tensor:
        """(R, M, K) log-probabilities of each code given those before it."""
        return self.code_logits(encoded, self.run("embed", codes)).float().log_softmax(-1)

    def word_log_probs(self, encoded: LatentTransformerEncoded, codes: Tensor, is_code: Tensor, width: int) -> Tensor:
        """(R, ``width``, V) log-probabilities of words given codes."""
        states = self.decode(encoded, self.run("embed", codes), is_code, width)
        return self.project(states[:, :width]).float().log_softmax(-1)

    def predicted_codes(self, encoded: LatentTransformerEncoded, counts: Tensor) -> Tensor:
        """(B,) numbers of codes to the (B, M) most probable ones, one after the other."""
        rows = torch.arange(len(counts), device=counts.device)
        return autoregressive.drawn(self.read, self.reading(encoded, rows), counts, None, 1.0).codes

    def whole_canvas(self, encoded: LatentTransformerEncoded, lengths: Tensor) -> Tensor:
        """(B,) lengths of given targets to those of the canvases that they are encoded on."""
        return self.canvas_of(lengths if self.is_predicted else torch.maximum(lengths, self.source_canvas(encoded)))

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """``token``; ``code``, minus the log-probability of the codes, once they are predicted, which counts towards no
        sample size; ``commitment`` a latent, and where there are any ``attraction`` and ``usage``; ``length``. ``keys``
        are those of all noise."""
        encoded, lengths = self.encode(net_input), is_token.sum(1)
        canvas = self.whole_canvas(encoded, lengths)
        h, is_latent = self.compress(encoded, target, canvas, keys if self.training else None)
        quantised = self.quantised(h, is_latent, keys)
        vectors, is_coded = quantised.vectors, is_latent
        if self.training and str(self.cfg.latent_curriculum) == "bypass":
            is_code_row = noise.uniform(noise.fold(keys, 22), 1) < self.share_of_codes
            vectors = torch.where(is_code_row[..., None], vectors, h)
            is_coded = is_latent & is_code_row
        fed, is_latents = None, None
        if self.training and str(self.cfg.latent_curriculum) == "targets" and self.share_of_latents < 1:
            fed = target
            is_latents = noise.uniform(noise.fold(keys, 23), target.size(1)) < self.share_of_latents
        states = self.decode(encoded, vectors, is_latent, target.size(1), fed, is_latents)[:, : target.size(1)]
        read = quantised.vectors if self.cfg.lp_grad_to_ae else self.embedded(quantised)
        code_logits = self.code_logits(encoded, read)[is_coded]
        wanted = quantised.codes if quantised.shares is None else quantised.shares
        weight = self.predictor_weight if self.training else 1.0
        terms: List[Term] = [
            Tokens("token", self.project(states[is_token]), target[is_token]),
            Tokens("code", code_logits, wanted[is_coded], weight, is_counted=False, is_reported=False),
            Usage("codes", quantised.codes[is_latent], self.quantiser.size),
        ]
        for name in ("commitment", "attraction", "usage"):
            if (values := getattr(quantised, name)) is not None:
                terms.append(Nats(name, values, is_coded))
        if encoded.length_log_probs is not None:
            classes = length_classes.offset_classes(encoded.sizes, lengths)
            terms.append(Classes("length", encoded.length_log_probs, classes))
        return terms

    def embedded(self, quantised: quantizers.Quantised) -> Tensor:
        """What the predictor reads: codes alone, so that its loss does not reach the compressor."""
        if quantised.shares is None:
            return self.quantiser.embed(quantised.codes).to(quantised.vectors.dtype)
        return self.quantiser.embed_shares(quantised.shares).to(quantised.vectors.dtype)

    def propose(
        self, encoded: LatentTransformerEncoded, request: Request[LatentTransformerOptions]
    ) -> LatentTransformerProposals:
        """Every length with every sequence of codes: the most probable, the best of a beam, or samples beside it."""
        asked = request.options
        lengths = self.lengths_of(encoded, request).flatten()
        row = torch.arange(len(encoded.keys), device=lengths.device).repeat_interleave(asked.latent_lengths)
        counts = self.canvas_of(lengths).div(self.cfg.compression, rounding_mode="floor")
        n = asked.codes
        if asked.lengths > 1:
            state = self.reading(encoded, row)
            found = autoregressive.beam(self.read, Reading.select, state, counts, n)
        else:
            keys = None
            if n > 1:
                keys = noise.candidate_keys(noise.candidate_keys(request.keys(), asked.latent_lengths), n)
                keys = keys.masked_fill(torch.arange(len(keys), device=keys.device) % n == 0, 0)
            state = self.reading(encoded, row.repeat_interleave(n))
            found = autoregressive.drawn(self.read, state, counts.repeat_interleave(n), keys, asked.latent_temperature)
        return LatentTransformerProposals(
            lengths=lengths.repeat_interleave(n),
            codes=found.codes,
            code_scores=found.scores,
            is_cut=not self.is_predicted and request.lengths is None,
        )

    def lengths_of(self, encoded: LatentTransformerEncoded, request: Request[LatentTransformerOptions]) -> Tensor:
        """(B, N) lengths that are tried. Raises UsageError where there is but one to try."""
        n, longest = request.options.latent_lengths, self.cfg.max_target_positions
        if request.lengths is not None:
            return self.lengths_around(request.lengths, n)
        if encoded.length_log_probs is None:
            if n > 1:
                raise UsageError(f"--latent-lengths {n}: this model was trained with --latent-length canvas")
            return self.source_canvas(encoded)[:, None]
        classes = length_classes.top_classes(encoded.length_log_probs, n)
        return length_classes.of_offsets(classes, encoded.sizes[:, None], length_classes.SHORTEST, longest)

    def reading(self, encoded: LatentTransformerEncoded, row: Tensor) -> Reading:
        """A predictor that has read nothing, for each of (R,) rows."""
        weight = self.code_output.weight
        shapes = self.predictor_stack.cache_shapes
        layers = tuple((weight.new_empty(len(row), *s), weight.new_empty(len(row), *s)) for s in shapes)
        chosen = encoded.select(row)
        return Reading(layers=layers, memory=chosen.memories[1], mask=chosen.mask)

    def read(self, state: Reading, codes: Optional[Tensor], step: int) -> Tuple[Tensor, Reading]:
        """The codes chosen last to (R, K) logits of the next."""
        rows = len(state.layers[0][0])
        if codes is None:
            embedded = state.layers[0][0].new_zeros(rows, self.cfg.encoder_embed_dim)
        else:
            embedded = self.run("embed", codes).to(state.layers[0][0].dtype)
        place = self.places.weight[step : step + 1]
        states, layers = self.run("step", embedded, place, state.layers, state.memory, state.mask)
        return self.run("project_codes", states), replace(state, layers=layers)

    def start(self, encoded: LatentTransformerEncoded, proposals: LatentTransformerProposals) -> LatentTransformerState:
        """The codes, decoded."""
        return self.decoded(encoded, proposals.codes, proposals.code_scores, proposals.lengths, proposals.is_cut)

    def refine(self, state: LatentTransformerState, step: int, steps: int) -> LatentTransformerState:
        """What was decoded, encoded again, and decoded from these codes."""
        codes, _ = self.codes_of(state.encoded, state.tokens, self.canvas_of(state.lengths))
        return self.decoded(state.encoded, codes, state.code_scores, state.lengths, state.is_cut)

    def decoded(
        self, encoded: LatentTransformerEncoded, codes: Tensor, code_scores: Tensor, lengths: Tensor, is_cut: bool
    ) -> LatentTransformerState:
        """The parallel pass, and the most probable token at each position."""
        counts = self.canvas_of(lengths).div(self.cfg.compression, rounding_mode="floor")
        is_latent = length_classes.is_within(counts, int(counts.max()))
        codes = codes[:, : is_latent.size(1)]
        is_token, _ = length_classes.canvas(lengths)
        states = self.decode(encoded, self.run("embed", codes), is_latent, is_token.size(1))
        logits = self.project(states[:, : is_token.size(1)], encoded.shortlist)
        if is_cut and encoded.penalty is not None:  # what will be cut off has no say in what stands before it
            is_token = is_token & ~self.is_after_end(self.best(logits.clone(), encoded.shortlist)[0])
        tokens, scores = self.most_probable(logits, is_token, encoded.shortlist, encoded.penalty)
        if is_cut:
            is_after = self.is_after_end(tokens)
            tokens, scores = tokens.masked_fill(is_after, self.symbols.pad), scores.masked_fill(is_after, 0.0)
        return LatentTransformerState(
            tokens=tokens,
            scores=scores,
            codes=codes,
            code_scores=code_scores,
            lengths=lengths,
            is_cut=is_cut,
            encoded=encoded,
        )

    def is_after_end(self, tokens: Tensor) -> Tensor:
        """(R, T) True behind the first ``</s>``."""
        is_end = tokens == self.symbols.eos
        return (is_end.cumsum(1) - is_end.long()) > 0

    def finish(self, state: LatentTransformerState) -> Finished:
        """``extra`` is the log-probability of the codes that were proposed."""
        return Finished(state.tokens, state.scores, state.code_scores)

    def score(self, encoded: LatentTransformerEncoded, target: Tensor) -> Scored:
        """Log-probability of a target and of its codes, and of its length where that is predicted: a bound, as other
        codes may say the same."""
        target, is_token = right_padded(target, self.symbols.pad)
        lengths = is_token.sum(1)
        codes, is_code = self.codes_of(encoded, target, self.whole_canvas(encoded, lengths))
        of_codes = self.code_log_probs(encoded, codes).gather(2, codes[..., None])[..., 0]
        extra = of_codes.masked_fill(~is_code, 0.0).sum(1)
        if encoded.length_log_probs is not None:
            classes = length_classes.offset_classes(encoded.sizes, lengths)
            extra = extra + encoded.length_log_probs.gather(1, classes[:, None])[:, 0]
        log_probs = self.word_log_probs(encoded, codes, is_code, target.size(1))
        tokens = log_probs.gather(2, target[..., None])[..., 0].masked_fill(~is_token, 0.0)
        return Scored(tokens, extra, "bound")


base.register_presets(
    "latent_transformer",
    "lanmt",
    tiny={"dropout": 0.0, "schedules": "run"},
    small={"dropout": 0.1, "schedules": "run"},
    iwslt16_de_en={"dropout": 0.1},
    iwslt14_de_en={"dropout": 0.3},
    wmt14_en_de={"dropout": 0.1},
    wmt16_ro_en={"dropout": 0.1},
)
