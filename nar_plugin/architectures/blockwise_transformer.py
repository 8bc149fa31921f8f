"""Blockwise parallel decoding: heads on a trained autoregressive transformer, which draft for it.

Stern, Shazeer & Uszkoreit 2018, arXiv 1811.03115 (``methods.blockwise_transformer``, ``methods.speculative``).
``--base-checkpoint`` is a trained ``transformer`` of fairseq's own, whose options and weights become part of this
model, so that its checkpoints stand alone. The base is trained further with the heads, or stays as it is (``--freeze
base``); then it has no dropout, and head 1 is the base's own prediction unless told otherwise (``--identity-head-1``),
so that the output is that of the base, token by token. Validation is about all heads; words are reported of head 1.

Decoding verifies and predicts in one call: the verifier is head 1, what heads 2 … K said at the last accepted token are
the drafts. These heads are projected there alone.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model, register_model_architecture
from omegaconf import II
from torch import Tensor

from .. import compat
from ..methods import blockwise_transformer as method
from ..methods import noise, options, verification
from ..methods.contract import Finished, NetInput, Pass, Request, Scored, UsageError
from ..methods.speculative import (
    DRAW_DRAFTS,
    Draft,
    Drafting,
    Plan,
    Planned,
    Reading,
    SourceEncoded,
    Speculation,
    best_of,
    draws_of,
    log_probs_of,
    probs_of,
)
from ..methods.symbols import Symbols, shifted
from ..methods.terms import Term, Tokens
from ..methods.transformer import xavier_init
from . import base


@dataclass
class BlockwiseTransformerConfig(FairseqDataclass):
    base_checkpoint: str = field(default="", metadata={"help": "checkpoint of the trained transformer to stand on"})
    base_options: str = field(
        default="", metadata={"help": "its options, as JSON: written by the program that trains, never by hand"}
    )
    block_heads: int = field(default=4, metadata={"help": "K: heads, the next word's among them"})
    block_head: ChoiceEnum(["dense", "block"]) = field(  # type: ignore[valid-type]
        default="dense", metadata={"help": "one feed-forward block for all heads (the paper's), or one a head"}
    )
    identity_head_1: ChoiceEnum(["auto", "yes", "no"]) = field(  # type: ignore[valid-type]
        default="auto", metadata={"help": "head 1 is the base's own prediction (auto: with --freeze base)"}
    )
    freeze: ChoiceEnum(["none", "base"]) = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "base: train the heads alone"}
    )
    block_loss: ChoiceEnum(["mean", "random"]) = field(  # type: ignore[valid-type]
        default="mean",
        metadata={"help": "the mean over heads, or one head a minibatch, drawn, which needs less memory"},
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout of what a head adds to the decoder's state"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout inside the heads' block"})
    seed: int = II("common.seed")


class HeadsDrafter:
    """``speculative.Drafter``: heads 2 … k at the token that was accepted last and read."""

    def __init__(self, model: "BlockwiseTransformerModel") -> None:
        self.model = model

    def begin(self, encoded: SourceEncoded, plan: Plan, keys: Optional[Tensor]) -> None:
        return None

    def draft(self, state: Drafting) -> Draft:
        """None before the first call, which has nothing to read but the begin symbol."""
        plan, symbols, width = state.plan, self.model.symbols, state.plan.drafts
        if state.states is None or not width:
            nothing = state.tokens[:, :0]
            return Draft(nothing, nothing != symbols.pad, None)
        logits = self.model.head_logits(state.states, 1, width + 1)
        steps = state.count[:, None] + torch.arange(width, device=logits.device)
        log_probs = log_probs_of(logits, steps, plan, symbols)
        is_draft = torch.ones_like(steps, dtype=torch.bool)
        if not plan.is_sampled:
            return Draft(best_of(log_probs, steps, plan, symbols), is_draft, None)
        probs = probs_of(log_probs, steps, plan, symbols)
        return Draft(verification.drawn(probs, draws_of(state, DRAW_DRAFTS, width)), is_draft, None, probs)


@register_model("blockwise_transformer", dataclass=BlockwiseTransformerConfig)
class BlockwiseTransformerModel(base.BuiltOn, base.DecodingModel):
    """Shapes as in ``methods.contract``. The base's weights are this model's."""

    criterions = ("blockwise_cross_entropy",)
    inputs = ()
    freezable = ()
    decode_options = options.Heads
    base_path, base_options, base_module = "base_checkpoint", "base_options", "base"

    def __init__(self, cfg: BlockwiseTransformerConfig, transformer: Any, symbols: Symbols) -> None:
        super().__init__(cfg, symbols, 0)
        base.check_least(cfg, block_heads=1, dropout=0, activation_dropout=0)
        self.base, self.update = transformer, 0
        self.is_frozen = str(cfg.freeze) == "base"
        self.is_identity = str(cfg.identity_head_1) == "yes" or str(cfg.identity_head_1) == "auto" and self.is_frozen
        if self.is_frozen and self.is_identity and cfg.block_heads < 2:
            raise UsageError(f"--block-heads {cfg.block_heads}: with --freeze base no head is left that would learn")
        decoder = transformer.decoder
        self.heads = method.Heads(
            *(decoder.output_embed_dim, decoder.layers[0].fc1.out_features, cfg.block_heads),
            kind=str(cfg.block_head),
            dropout=cfg.dropout,
            activation_dropout=cfg.activation_dropout,
            is_identity=self.is_identity,
        )
        self.heads.apply(xavier_init)
        if self.is_frozen:
            self.base.requires_grad_(False)
            self.base.eval()
        self.cached = compat.CachedTransformer(transformer, symbols)
        # one mapping: what an engine puts into it serves both
        self.passes = self.cached.passes = {**self.cached.passes, "heads": Pass(self.heads)}
        self.speculation = Speculation(self, HeadsDrafter(self), symbols)

    @classmethod
    def build_model(cls, cfg: BlockwiseTransformerConfig, task: Any) -> "BlockwiseTransformerModel":
        if not hasattr(task, "symbols"):
            raise UsageError("--arch blockwise_transformer needs --task translation_nar (given again when decoding)")
        if not cfg.base_options:
            raise UsageError(
                "--arch blockwise_transformer needs --base-checkpoint, a checkpoint of fairseq's transformer"
            )
        return cls(cfg, compat.build_transformer(cfg.base_options, task), task.symbols)

    @staticmethod
    def options_of_base(state: Dict[str, Any], path: str) -> str:
        return compat.transformer_options(state, path)

    @property
    def is_base_fixed(self) -> bool:
        return self.is_frozen

    def max_positions(self) -> Tuple[int, int]:
        source, target = self.base.max_positions()
        return source, target

    def train(self, mode: bool = True) -> "BlockwiseTransformerModel":
        """A frozen base has no dropout."""
        super().train(mode)
        if self.is_frozen:
            self.base.eval()
        return self

    def set_num_updates(self, update: int) -> None:
        """The task says how far the training is, after a resume too."""
        super().set_num_updates(update)
        self.update = update

    # --- training

    @property
    def first_head(self) -> int:
        """The first of the heads that learn."""
        return int(self.is_frozen and self.is_identity)

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor) -> List[Term]:
        """``head1`` … of all heads, with equal weights, or in training ``head`` of one that is drawn (section 6). Head
        i is taught the token i − 1 places further on; where there is none, nothing."""
        states = self.decoder_states(net_input, target)
        heads = range(self.cfg.block_heads)
        if self.training and str(self.cfg.block_loss) == "random":
            return [self.head_term("head", self.touched(states), target, is_token, self.drawn_head(), 1.0)]
        weights = [1 / (len(heads) - self.first_head) * (i >= self.first_head) for i in heads]
        return [self.head_term(f"head{i + 1}", states, target, is_token, i, weights[i]) for i in heads]

    def decoder_states(self, net_input: NetInput, target: Tensor) -> Tensor:
        """(B, T, D) of the base, which reads the target before each token."""
        source = {name: x for name, x in net_input.items() if name != "prev_output_tokens"}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            encoded = self.base.encoder(**source)
            states, _ = self.base.decoder(shifted(target, self.symbols), encoder_out=encoded, features_only=True)
        return states

    def head_term(
        self, name: str, states: Tensor, target: Tensor, is_token: Tensor, head: int, weight: float
    ) -> Tokens:
        wanted, is_wanted = method.ahead(target, is_token, head)
        outputs = self.heads(states[:, : wanted.size(1)][is_wanted], head, head + 1)[:, 0]
        return Tokens(name, self.cached.logits(outputs), wanted[is_wanted], weight, is_reported=name == "head1")

    def drawn_head(self) -> int:
        """By the seed and the number of the update, the same in every process."""
        key = noise.training_keys(self.cfg.seed, self.update, torch.zeros(1, dtype=torch.int64))
        return self.first_head + int(noise.uniform(key, 1) * (self.cfg.block_heads - self.first_head))

    def touched(self, states: Tensor) -> Tensor:
        """The states, of which every head's weights are a part, if with no weight: processes that train together wait
        for a gradient of each."""
        unused = sum(weight.sum() for weight in self.heads.parameters())
        return states + 0.0 * unused

    # --- decoding

    def encode(self, net_input: NetInput) -> SourceEncoded:
        return self.cached.encode(net_input)

    def propose(self, encoded: SourceEncoded, request: Request[options.Heads]) -> Planned:
        """Raises UsageError for more heads than there are."""
        asked, heads = request.options.block_size, self.cfg.block_heads
        if asked > heads:
            raise UsageError(f"--block-size {asked}: this model has {heads} heads")
        return self.speculation.propose(encoded, request, self.cached.positions, (asked or heads) - 1)

    def start(self, encoded: SourceEncoded, proposals: Planned) -> Drafting:
        return self.speculation.start(encoded, proposals)

    def refine(self, state: Drafting, step: int, steps: int) -> Drafting:
        return self.speculation.refine(state)

    def max_steps(self, asked: int) -> int:
        """As many calls as an output may have tokens: each call gives one at least."""
        return self.cached.positions

    def finish(self, state: Drafting) -> Finished:
        return self.speculation.finish(state)

    def score(self, encoded: SourceEncoded, target: Tensor) -> Scored:
        return self.speculation.score(encoded, target)

    # --- as a verifier

    def reading(self, encoded: SourceEncoded) -> Reading:
        return self.cached.reading(encoded)

    def extend(self, reading: Reading, tokens: Tensor, is_token: Tensor, places: Tensor) -> Tuple[Tensor, Reading]:
        return self.cached.extend(reading, tokens, is_token, places)

    def logits(self, states: Tensor) -> Tensor:
        return self.head_logits(states, 0, 1)[..., 0, :]

    def head_logits(self, states: Tensor, first: int, end: int) -> Tensor:
        """(…, N, V) logits of the heads ``first`` … ``end`` − 1, from 0, at (…, D) states."""
        return self.cached.logits(self.run("heads", states, first, end))


for _size in base.SIZES:
    register_model_architecture("blockwise_transformer", f"blockwise_transformer_{_size}")(
        base.preset({"block_heads": 8 if _size not in ("tiny",) else 4})
    )
