"""What the architectures share: configuration, embeddings, encoder and decoder stacks, presets, checks."""

from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model_architecture
from fairseq.models.transformer import TransformerModelBase
from omegaconf import II
from torch import Tensor, nn

from .. import compat
from ..methods import deduplication, noise, prediction, transformer
from ..methods import lengths as length_classes
from ..methods.contract import NetInput, Pass, Shortlist, UsageError
from ..methods.symbols import Symbols, right_padded
from ..methods.terms import Term
from . import warm_start


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
    freeze: ChoiceEnum(["none", "encoder"]) = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "what --warm-start takes over as it is, and is not trained"}
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
class GlancingConfig(FairseqDataclass):
    """Of models that may be shown part of what they should say (``methods.glancing``)."""

    glance: str = field(
        default="",
        metadata={
            "help": "START:END, as 0.5:0.1: show in training this share of as many positions as are wrong, from the "
            "first update to --max-update (default: none)"
        },
    )
    max_update: int = II("optimization.max_update")


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
    """Base of the architectures that ``generators`` drive (``methods.contract.DecodingModel``).

    A subclass sets ``passes``. They are views: modules that share the model's parts and add no weights, not registered
    as its sub-modules, so that a checkpoint has each weight once, by the name of the part. A weight that is no part's
    own is given to them with each call. They are not told of ``train`` and ``eval`` (their parts are) and never ask.
    """

    criterions: ClassVar[Tuple[str, ...]] = ()
    inputs: ClassVar[Tuple[str, ...]] = ("keys",)
    freezable: ClassVar[Tuple[str, ...]] = ("encoder",)
    loss_terms: Callable[..., List[Term]]
    """(net_input, target, is_token, each of ``inputs`` by name) to loss terms. ``target``: (B, T) right-padded ids that
    end in ``</s>``; ``is_token``: (B, T) where it is no padding."""
    passes: Mapping[str, Pass]
    source_embedding: transformer.TokenEmbedding
    encoder: transformer.Stack

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
        if str(cfg.freeze) not in ("none", *cls.freezable):
            raise UsageError(
                f"--freeze {cfg.freeze}: that of --arch {name} has inputs of its own, which no teacher knows"
            )
        model = cls(cfg, task.symbols, len(task.source_dictionary))
        if model.is_encoder_frozen:
            model.freeze_encoder()
        return model

    @property
    def name(self) -> str:
        return getattr(self.cfg, "_name", None) or type(self).__name__

    def forward(
        self, net_input: Optional[NetInput] = None, target: Optional[Tensor] = None, **columns: Any
    ) -> List[Term]:
        """Loss terms of a batch (``methods.contract``). Raises UsageError for what another criterion gives."""
        if net_input is None or target is None or not set(self.inputs) <= columns.keys():
            raise UsageError(f"this --arch is trained with --criterion {' or '.join(self.criterions)}")
        target, is_token = right_padded(target, self.symbols.pad)
        return self.loss_terms(net_input, target, is_token, **{name: columns[name] for name in self.inputs})

    def run(self, name: str, *tensors: Any) -> Any:
        """Call one of the passes."""
        return self.passes[name].module(*tensors)

    @property
    def output_bias(self) -> Optional[Tensor]:
        """(V,) bias of the vocabulary projection, if it has one."""
        return None

    def project(self, states: Tensor, shortlist: Optional[Shortlist] = None) -> Tensor:
        """Vocabulary logits (…, V) of (…, D) states, or (R, …, U) of (R, …, D) for the words of a shortlist alone."""
        return self.projected("project", states, shortlist)

    def projected(self, name: str, states: Tensor, shortlist: Optional[Shortlist]) -> Tensor:
        """The same by the pass ``name``."""
        bias = self.output_bias
        if shortlist is None:
            return self.run(name, states, bias)
        projection: Any = self.passes[name].module
        chosen = None
        if not shortlist.is_whole:
            rows = states[..., 0].numel()
            chosen = shortlist.once(name, lambda words: projection.chosen(words, rows))
            if bias is not None:
                bias = bias[shortlist.words]
        return shortlist.limited(self.run(name, states, bias, chosen))

    def max_positions(self) -> Tuple[int, int]:
        """Longest source and target, in tokens with the end symbol."""
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    def refine(self, state: Any, step: int, steps: int) -> Any:
        """A model of one pass, whose options have no ``Refinement``, is never asked to refine."""
        return state

    def max_steps(self, asked: int) -> int:
        return asked

    @property
    def banned(self) -> Tuple[int, ...]:
        """Ids that a decode never gives; ``<mask>`` has no output."""
        return self.symbols.pad, self.symbols.bos

    def best(self, logits: Tensor, shortlist: Optional[Shortlist]) -> Tuple[Tensor, Tensor]:
        """(R, T, V) logits, or (R, T, U) of a shortlist's words, to the (R, T) most probable ids and their
        log-probabilities in nats."""
        scores, places = prediction.greatest(self.log_probs(logits, shortlist))
        return self.words_at(places, shortlist), scores

    def chosen(
        self, logits: Tensor, is_token: Tensor, shortlist: Optional[Shortlist], penalty: Optional[float]
    ) -> Tuple[Tensor, Tensor]:
        """As ``best``; where two equal words in a row cost a ``penalty``, the most probable ones together, of the
        positions where (R, T) ``is_token`` is True."""
        if penalty is None:
            return self.best(logits, shortlist)
        scores, places = prediction.greatest_few(self.log_probs(logits, shortlist), deduplication.CHOICES)
        return deduplication.together(self.words_at(places, shortlist), scores, is_token, penalty, self.symbols.eos)

    def log_probs(self, logits: Tensor, shortlist: Optional[Shortlist]) -> Tensor:
        """Log-probabilities in nats of words that may be given, −∞ for others; float32 logits are overwritten."""
        return prediction.log_probs_of(logits, self.banned if shortlist is None else ())

    def words_at(self, places: Tensor, shortlist: Optional[Shortlist]) -> Tensor:
        """Ids by their places in the vocabulary, or among the words of a shortlist."""
        return places if shortlist is None else shortlist.words[places]

    def most_probable(
        self,
        logits: Tensor,
        is_token: Tensor,
        shortlist: Optional[Shortlist] = None,
        penalty: Optional[float] = None,
    ) -> Tuple[Tensor, Tensor]:
        """As ``chosen``, padded where (R, T) ``is_token`` is False."""
        tokens, scores = self.chosen(logits, is_token, shortlist, penalty)
        return tokens.masked_fill(~is_token, self.symbols.pad), scores.masked_fill(~is_token, 0.0)

    def target_log_probs(self, logits: Tensor, target: Tensor, is_token: Tensor) -> Tensor:
        """(B, T) log-probabilities of given tokens in nats, 0 at pads."""
        log_probs = logits.float().log_softmax(-1).gather(2, target[..., None])[..., 0]
        return log_probs.masked_fill(~is_token, 0.0)

    def lengths_around(self, lengths: Tensor, n: int) -> Tensor:
        """(B,) lengths to the (B, n) around each within what the model can write."""
        return length_classes.window(lengths, n, self.cfg.max_target_positions)

    def source_facts(self, source: Tensor, is_token: Tensor) -> Dict[str, Any]:
        """What ``Encoded`` holds of (B, S) right-padded source ids."""
        is_empty = ~(is_token & (source != self.symbols.eos)).any(1)
        return {"keys": noise.source_keys(source, is_token), "is_empty": is_empty}

    def warm_start(self, teacher: TransformerModelBase, parts: Sequence[str]) -> str:
        """Takes over what fits of a trained transformer, all of it or some ``parts``, and says what that was.

        Raises UsageError where nothing fits (``warm_start``).
        """
        account = warm_start.take(self, self.tables(), teacher, parts or warm_start.PARTS)
        if self.is_encoder_frozen:
            warm_start.check_encoder(self.source_embedding, self.encoder, teacher, account)
        share = account.elements / sum(weight.numel() for weight in self.parameters())
        told = f"; {account}" if account else ""
        return f"{len(account.taken)} tensors, {share:.1%} of the weights, are the teacher's{told}"

    def tables(self) -> List[Tuple[str, nn.Embedding]]:
        """The tables of words, each with its use: those of the source, of the outputs, of the target."""
        found = [(use, getattr(self, f"{use}_embedding", None)) for use in ("source", "target")]
        tables = [(use, embedding.tokens) for use, embedding in found if embedding is not None]
        outputs = [one.module.table for one in self.passes.values() if isinstance(one.module, transformer.Projection)]
        return [*tables[:1], *(("output", table) for table in outputs), *tables[1:]]

    @property
    def is_encoder_frozen(self) -> bool:
        return str(getattr(self.cfg, "freeze", "none")) == "encoder"

    def source_table(self, shared: nn.Embedding, size: int) -> nn.Embedding:
        """The table of the source's words: the shared one, or one of their own.

        A frozen encoder always has its own, so that the rest may learn the other: a table that is frozen for one is
        frozen for all, and with it what the student reads and writes.
        """
        is_shared = self.cfg.share_all_embeddings and not self.is_encoder_frozen
        return shared if is_shared else nn.Embedding(size, shared.embedding_dim)

    def freeze_encoder(self) -> None:
        """Makes the encoder one of fairseq's (where its positions begin, how its embeddings are scaled, the epsilon of
        its norms), which has no gradient."""
        embedding, first = self.source_embedding, self.symbols.pad + 1
        longest, dim = embedding.positions.weight.shape
        embedding.positions, embedding.scale = transformer.Sinusoids(longest, dim, first), dim**0.5
        for module in self.encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = warm_start.EPSILON
        for part in (embedding, self.encoder):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "DecodingModel":
        """A frozen encoder has no dropout: its states are the teacher's in training too, and whoever else reads them
        (a drafter, another student) sees the same."""
        super().train(mode)
        if self.is_encoder_frozen:
            self.source_embedding.eval()
            self.encoder.eval()
        return self

    def shares_encoder(self, teacher: Any) -> bool:
        """Whether its encoder is a transformer's, so that the states of the one serve the other (``encode_from``)."""
        is_alike = isinstance(teacher, TransformerModelBase) and self.is_encoder_frozen
        return is_alike and warm_start.is_same_encoder(self.source_embedding, self.encoder, teacher)

    def encode_from(self, net_input: NetInput, states: Tensor) -> Any:
        """As ``encode``, where the (B, S, D) states of the encoder are known, of sources padded on the right."""
        self.encoder.forward = lambda *_, **__: states  # type: ignore[method-assign]
        try:
            return cast(Any, self).encode(net_input)
        finally:
            del self.encoder.forward

    def initialize(self) -> None:
        """Draw all weights as ``--initialization`` says."""
        self.apply(transformer.INITIALIZATIONS[str(self.cfg.initialization)])

    @property
    def is_prenorm(self) -> bool:
        return self.cfg.normalize_before

    def build_embedding(self, table: nn.Embedding, longest: int) -> transformer.TokenEmbedding:
        cfg = self.cfg
        is_scaled, is_learned = str(cfg.initialization) == "xavier", str(cfg.positions) == "learned"
        return transformer.TokenEmbedding(
            table, longest, dropout=cfg.dropout, is_scaled=is_scaled, is_learned=is_learned
        )

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
                "is_prenorm": self.is_prenorm,
                "has_source": side == "decoder" if has_source is None else has_source,
                "activation": str(cfg.activation_fn),
                "dropout": cfg.dropout,
                "attention_dropout": cfg.attention_dropout,
                "activation_dropout": cfg.activation_dropout,
                **others,
            },
        )


class GaussianModel(DecodingModel):
    """Base of the models with Gaussian latents, whose vocabulary projection has a bias."""

    cfg: GaussianConfig
    bias: nn.Parameter

    @property
    def gaussian_heads(self) -> Tuple[nn.Linear, ...]:
        """The maps from states to means and spreads, of prior and posterior."""
        raise NotImplementedError

    def warm_start(self, teacher: TransformerModelBase, parts: Sequence[str]) -> str:
        """As in the base; prior and posterior begin equal. Their heads are new, and a teacher's states are so large
        that under random heads the two would be thousands of nats apart."""
        told = super().warm_start(teacher, parts)
        for head in self.gaussian_heads:
            nn.init.zeros_(head.weight)
        return told

    @property
    def output_bias(self) -> Tensor:
        return self.bias

    @property
    def is_prenorm(self) -> bool:
        return not self.cfg.post_norm


class BuiltOn:
    """For an architecture that stands on the trained model of another checkpoint, which is read in training alone.

    The task puts its options among the model's and its weights into it, so that the checkpoints to come stand alone.
    ``base_path``: the option that names the checkpoint; ``base_options``: the one in which its options are kept, as
    JSON; ``base_module``: the attribute in which the model holds it.
    """

    base_path: ClassVar[str]
    base_options: ClassVar[str]
    base_module: ClassVar[str]
    stands_on = ""

    @property
    def is_base_fixed(self) -> bool:
        """Whether its weights stay as they were."""
        return True

    @staticmethod
    def options_of_base(state: Dict[str, Any], path: str) -> str:
        """As JSON, those of the checkpoint loaded from ``path``. Raises UsageError where it is none of ours."""
        return compat.model_options(state, path)

    @classmethod
    def read_base(cls, cfg: Any) -> Optional[Dict[str, Any]]:
        """The checkpoint that the options name, its options now among them; None where they name none.

        Raises UsageError where it cannot be read or is none of ours, or where its options were given by hand.
        """
        path = getattr(cfg, cls.base_path)
        if getattr(cfg, cls.base_options) and not path:
            written, named = (f"--{name.replace('_', '-')}" for name in (cls.base_options, cls.base_path))
            raise UsageError(f"{written} is for the program to write; {named} names the checkpoint")
        if not path:
            return None
        state = compat.load_checkpoint(path)
        setattr(cfg, cls.base_options, cls.options_of_base(state, path))
        return state

    def load_base(self, state: Dict[str, Any]) -> None:
        """Takes over the weights of the checkpoint that ``read_base`` gave."""
        self.stands_on = getattr(self.cfg, self.base_path)  # type: ignore[attr-defined]
        compat.load_weights(getattr(self, self.base_module), state, self.stands_on)

    def warm_start(self, teacher: TransformerModelBase, parts: Sequence[str]) -> str:
        """Raises UsageError: what can take over weights is the model that it stands on, in a training of its own."""
        flag = f"--{self.base_path.replace('_', '-')}"
        raise UsageError(f"--warm-start: this --arch stands on {flag}; start the training of that model so")

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """Raises UsageError where a training would go on from one on top of another model than ``stands_on``."""
        base = getattr(self, self.base_module).state_dict()
        saved = {key: state_dict.get(f"{self.base_module}.{key}", value) for key, value in base.items()}
        if (
            self.stands_on
            and self.is_base_fixed
            and not all(saved[key].to(value).equal(value) for key, value in base.items())
        ):
            flag = f"--{self.base_path.replace('_', '-')}"
            raise UsageError(f"{flag} {self.stands_on} is not what the checkpoint stands on; take another --save-dir")
        return super().load_state_dict(state_dict, *args, **options)  # type: ignore[misc]
