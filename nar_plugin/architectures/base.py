"""What the architectures share: configuration, embeddings, encoder and decoder stacks, presets, checks."""

from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Dict, FrozenSet, Optional, Tuple

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model_architecture
from omegaconf import II
from torch import Tensor, nn

from ..methods import transformer
from ..methods.contract import UsageError
from ..methods.symbols import Symbols

CANDIDATE_FLAGS = frozenset(
    {
        "iter_decode_with_beam",
        "iter_decode_with_external_reranker",
        "nbest",
        "lenpen",
        "rescore_norm",
        "max_candidate_tokens",
        "retain_iter_history",
        "print_step",
        "score_reference",
        "collapse_repeats",
    }
)
"""Decode flags that every architecture with candidates heeds."""
STOP_FLAGS = frozenset({"stop_rule", "stop_window", "stop_distance", "iter_decode_force_max_iter"})
"""Those of an architecture whose sentences may end before the last pass."""

LATENT_FLAGS = frozenset(
    {"iter_decode_max_iter", "gold_target_len", "decode_samples", "decode_sample_noise", "latent_inference"}
)
"""Those of an architecture with Gaussian latents."""


@dataclass
class TransformerConfig(FairseqDataclass):
    """Options of the encoder and decoder stacks, under fairseq's own names."""

    encoder_layers: int = field(default=6, metadata={"help": "encoder layers"})
    encoder_embed_dim: int = field(default=512, metadata={"help": "width of the model"})
    encoder_ffn_embed_dim: int = field(default=2048, metadata={"help": "encoder feed-forward width"})
    encoder_attention_heads: int = field(default=8, metadata={"help": "encoder attention heads"})
    decoder_layers: int = field(default=6, metadata={"help": "decoder layers"})
    decoder_ffn_embed_dim: int = field(default=2048, metadata={"help": "decoder feed-forward width"})
    decoder_attention_heads: int = field(default=8, metadata={"help": "decoder attention heads"})
    dropout: float = field(default=0.1, metadata={"help": "dropout probability"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout of attention weights"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout inside the feed-forward layers"})
    activation_fn: ChoiceEnum(["gelu", "relu"]) = field(  # type: ignore[valid-type]
        default="gelu", metadata={"help": "feed-forward activation"}
    )
    positions: ChoiceEnum(["learned", "sinusoidal"]) = field(  # type: ignore[valid-type]
        default="learned", metadata={"help": "position embeddings"}
    )
    initialization: ChoiceEnum(["bert", "xavier"]) = field(  # type: ignore[valid-type]
        default="bert",
        metadata={
            "help": "bert: N(0, 0.02) everywhere; xavier: as fairseq's transformer, embeddings scaled by sqrt(d)"
        },
    )
    normalize_before: bool = field(default=False, metadata={"help": "layer norm before each block, not after"})
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one table for source, target and output (needs a joint dictionary)"}
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@dataclass
class VaswaniConfig(TransformerConfig):
    """The blocks of Vaswani et al. 2017: sinusoids, ReLU, Glorot's initialisation, embeddings scaled by √d."""

    positions: ChoiceEnum(["learned", "sinusoidal"]) = field(  # type: ignore[valid-type]
        default="sinusoidal", metadata={"help": "position embeddings"}
    )
    initialization: ChoiceEnum(["bert", "xavier"]) = field(  # type: ignore[valid-type]
        default="xavier", metadata={"help": "bert: N(0, 0.02); xavier: Glorot, embeddings scaled by sqrt(d)"}
    )
    activation_fn: ChoiceEnum(["gelu", "relu"]) = field(  # type: ignore[valid-type]
        default="relu", metadata={"help": "feed-forward activation"}
    )


@dataclass
class GaussianConfig(VaswaniConfig):
    """Models with Gaussian latents: those blocks, with norm before each."""

    post_norm: bool = field(default=False, metadata={"help": "layer norm after each block, not before"})
    latent_size: int = field(default=8, metadata={"help": "dimensions of a Gaussian latent"})
    posterior_layers: int = field(
        default=0, metadata={"help": "layers of a stack of the posterior; 0: as many as the decoder's"}
    )


SIZES: Dict[str, Dict[str, Any]] = {
    "tiny": {"layers": 1, "dim": 32, "hidden": 64, "heads": 2},
    "small": {"layers": 4, "dim": 128, "hidden": 256, "heads": 4},
    "iwslt16_de_en": {"layers": 5, "dim": 278, "hidden": 507, "heads": 2},
    "iwslt14_de_en": {"layers": 5, "dim": 256, "hidden": 1024, "heads": 4},
    "wmt14_en_de": {"layers": 6, "dim": 512, "hidden": 2048, "heads": 8},
    "wmt16_ro_en": {"layers": 6, "dim": 512, "hidden": 2048, "heads": 8},
}
"""Preset sizes. iwslt16_de_en is that of Lee et al. 2018 (released code), iwslt14_de_en that of Sun & Yang 2020."""


def preset(options: Dict[str, Any]) -> Callable[[Namespace], None]:
    """What fills in whatever of these options the user left out."""

    def fill(args: Namespace) -> None:
        for name, value in options.items():
            setattr(args, name, getattr(args, name, value))

    return fill


def register_presets(model: str, alias: str = "", **changes: Dict[str, Any]) -> None:
    """Register ``<model>_<size>`` for every size; ``changes[size]`` are further options that a preset sets.

    With ``alias`` the model has a second name, and its presets too.
    """

    for name, size in SIZES.items():
        options = {
            "encoder_layers": size["layers"],
            "decoder_layers": size["layers"],
            "encoder_embed_dim": size["dim"],
            "encoder_ffn_embed_dim": size["hidden"],
            "decoder_ffn_embed_dim": size["hidden"],
            "encoder_attention_heads": size["heads"],
            "decoder_attention_heads": size["heads"],
            **changes.get(name, {}),
        }
        for arch in filter(None, (model, alias)):
            register_model_architecture(model, f"{arch}_{name}")(preset(options))
    if alias:
        register_model_architecture(model, alias)(preset({}))


def check_least(cfg: Any, **least: float) -> None:
    """Raises UsageError for an option that is below its least value, or no finite number."""
    for name, value in least.items():
        if not value <= getattr(cfg, name) < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} {getattr(cfg, name)}: it takes {value} or more")


class DecodingModel(BaseFairseqModel):
    """Base of the architectures that ``generators`` drive (``methods.contract.DecodingModel``)."""

    generator: ClassVar[str] = "refinement"
    criterions: ClassVar[Tuple[str, ...]] = ()
    decode_flags: ClassVar[FrozenSet[str]] = CANDIDATE_FLAGS
    candidate_flags: ClassVar[Tuple[str, ...]] = ("iter_decode_with_beam",)
    silent_iterations: ClassVar[int] = 0

    def __init__(self, cfg: TransformerConfig, symbols: Symbols, source_size: int) -> None:
        """``source_size``: types in the source dictionary; the target's is ``symbols.size``."""
        super().__init__()
        self.cfg, self.symbols = cfg, symbols

    @classmethod
    def build_model(cls, cfg: TransformerConfig, task: Any) -> "DecodingModel":
        """Raises UsageError under any task but ours: no other batches and decodes this model rightly."""
        name = getattr(cfg, "_name", None) or cls.__name__
        if not hasattr(task, "symbols"):
            raise UsageError(f"--arch {name} needs --task translation_nar (given again when decoding)")
        if cfg.share_all_embeddings and task.source_dictionary != task.target_dictionary:
            raise UsageError("--share-all-embeddings needs a joint dictionary (fairseq-preprocess --joined-dictionary)")
        if cfg.encoder_embed_dim % cfg.encoder_attention_heads or cfg.encoder_embed_dim % cfg.decoder_attention_heads:
            raise UsageError(f"--encoder-embed-dim {cfg.encoder_embed_dim} is no multiple of the attention heads")
        return cls(cfg, task.symbols, len(task.source_dictionary))

    def required(self, given: Optional[Tensor]) -> Tensor:
        """What a criterion must give ``forward``. Raises UsageError where it did not."""
        if given is None:
            raise UsageError(f"this --arch is trained with --criterion {' or '.join(self.criterions)}")
        return given

    def max_positions(self) -> Tuple[int, int]:
        """Longest source and target, in tokens with the end symbol."""
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    @property
    def counted(self) -> Dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def initialize(self) -> None:
        """Draw all weights as ``--initialization`` says."""
        self.apply(transformer.INITIALIZATIONS[str(self.cfg.initialization)])

    def build_stack(
        self, side: str, layers: int = 0, has_source: Optional[bool] = None, **others: Any
    ) -> transformer.Stack:
        """The ``encoder`` or ``decoder`` stack that the configuration asks for.

        ``layers`` and ``has_source``: others than that side's (a posterior is neither); ``others``: blocks that only
        some models have, and what differs from the configuration.
        """
        cfg = self.cfg
        return transformer.Stack(
            layers or getattr(cfg, f"{side}_layers"),
            cfg.encoder_embed_dim,
            getattr(cfg, f"{side}_ffn_embed_dim"),
            getattr(cfg, f"{side}_attention_heads"),
            **{
                "is_prenorm": cfg.normalize_before,
                "has_source": side == "decoder" if has_source is None else has_source,
                "activation": str(cfg.activation_fn),
                "dropout": cfg.dropout,
                "attention_dropout": cfg.attention_dropout,
                "activation_dropout": cfg.activation_dropout,
                **others,
            },
        )


class TokenEmbedding(nn.Module):
    """Token embedding + position embedding, then dropout; batches are right-padded.

    Under ``xavier`` tokens are scaled by √d (Vaswani et al. 2017, section 3.4), under ``bert`` they are not.
    """

    def __init__(self, table: nn.Embedding, longest: int, cfg: TransformerConfig) -> None:
        super().__init__()
        self.tokens, self.dropout = table, nn.Dropout(cfg.dropout)
        self.scale = table.embedding_dim**0.5 if str(cfg.initialization) == "xavier" else 1.0
        kind = nn.Embedding if str(cfg.positions) == "learned" else transformer.Sinusoids
        self.positions = kind(longest, table.embedding_dim)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) ids to (B, T, D), before dropout."""
        return self.scale * self.tokens(tokens) + self.positions.weight[: tokens.size(1)]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.embed(tokens))
