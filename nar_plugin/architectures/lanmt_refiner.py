"""An inference network that moves the latents of a trained model towards better translations, without decoding them.

Lee, Shu & Cho 2020, arXiv 2009.07177, sections 3.2, 3.3. ``--latent-model`` is a trained ``lanmt_continuous``,
frozen; its options and weights are saved with its own, so that a refiner's checkpoint stands alone. The network is
taught where delta inference would go: its step s(z) regresses on z̃ − z, z̃ being ``--delta-steps`` delta steps
from z (``--criterion score_matching``). ``--refiner score``: s is what the network gives. ``--refiner energy``: s is
the gradient of a number that it gives for the whole sentence, the negative energy.

Decoding: z ← z + α s(z), ``--iter-decode-max-iter`` times, then one decoder pass and one projection on the vocabulary.

Where training starts (``--start-points``): the talk draws z from the prior; the released code, and the default here,
shrinks the noise by a factor from 0 to 1 (one for each sentence; there, one for a batch), which reaches the mean, where
decoding starts. From ``--rollout-start`` updates on a start is, half of the time, moved by the network's own steps.
"""

from dataclasses import dataclass, field, replace
from typing import Any, List, Optional, Tuple, Type

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model, register_model_architecture
from torch import Tensor

from .. import compat
from ..methods import gaussian, noise, options
from ..methods import lanmt_refiner as method
from ..methods.contract import Encoded, Finished, NetInput, Pass, Proposals, Request, Scored, State, UsageError
from ..methods.terms import Steps, Term
from ..methods.transformer import INITIALIZATIONS, Memory, SourceMemory, padding_mask
from . import base


@dataclass
class LanmtRefinerConfig(FairseqDataclass):
    latent_model: str = field(default="", metadata={"help": "checkpoint of the trained lanmt_continuous to refine"})
    latent_options: str = field(
        default="", metadata={"help": "its options, as JSON: written by the program that trains, never by hand"}
    )
    refiner: ChoiceEnum(["score", "energy"]) = field(  # type: ignore[valid-type]
        default="score", metadata={"help": "what is learnt: the step, or a number of which it is the gradient"}
    )
    refiner_layers: int = field(default=6, metadata={"help": "layers; their width is that of the latent model"})
    dropout: float = field(default=0.1, metadata={"help": "dropout probability"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout of attention weights"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout inside the feed-forward layers"})
    delta_steps: int = field(default=4, metadata={"help": "delta steps that the network learns to make at once"})
    start_points: ChoiceEnum(["scaled", "prior"]) = field(  # type: ignore[valid-type]
        default="scaled", metadata={"help": "the prior's noise shrunk by a factor from 0 to 1 (code), or whole (talk)"}
    )
    start_noise: float = field(default=1.0, metadata={"help": "spread of the start points, in the prior's deviations"})
    rollout_start: int = field(default=100000, metadata={"help": "update from which starts are moved by the network"})
    rollout_share: float = field(default=0.5, metadata={"help": "share of sentences whose start is moved"})
    rollout_steps: int = field(default=1, metadata={"help": "steps of such a move"})
    rollout_step_size: float = field(default=1.0, metadata={"help": "their size (released: 1; IWSLT 0.8)"})


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(options.Candidates, options.Vocabulary, options.Deduplication, options.Lengths, options.LatentSteps):
    iterations: int = options.own(options.Refinement, "iterations", 1)
    stop_rule: str = options.own(options.Stopping, "stop_rule", "fixed-point")
    latent_inference: str = options.own(options.LatentSearch, "latent_inference", "score", ("score", "delta", "mean"))


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(ScoreOptions):
    latent_inference: str = options.own(options.LatentSearch, "latent_inference", "energy", ("energy", "delta", "mean"))


@dataclass(frozen=True, kw_only=True)
class RefinerEncoded(Encoded):
    """``latent``: what the latent model knows of the source; ``memory``: the source for the network."""

    latent: Any
    memory: Tuple[Memory, ...]


@dataclass(frozen=True, kw_only=True)
class RefinerProposals(Proposals):
    """``latent``: the latent model's; ``inference``: how they are refined; ``step_size``: α of the network's steps."""

    latent: Any
    inference: str
    step_size: float


@dataclass(frozen=True, kw_only=True)
class RefinerState(State):
    """``latent``: the latent model's state; ``tokens`` are its own, None while nothing was decoded.

    ``step_size``: α of the network's steps, None where steps are the latent model's own.
    """

    latent: Any
    memory: Tuple[Memory, ...]
    step_size: Optional[float]


@register_model("lanmt_refiner", dataclass=LanmtRefinerConfig)
class LanmtRefinerModel(base.BuiltOn, base.DecodingModel):
    """Shapes as in ``methods.contract``. The latent model's weights are this model's, without gradients."""

    criterions = ("score_matching",)
    base_path, base_options, base_module = "latent_model", "latent_options", "latent"

    def __init__(self, cfg: LanmtRefinerConfig, latent: Any) -> None:
        super().__init__(latent.cfg, latent.symbols, 0)
        base.check_least(cfg, refiner_layers=1, delta_steps=1, start_noise=0, rollout_start=0, rollout_steps=1)
        base.check_least(cfg, rollout_share=0, rollout_step_size=0)
        if cfg.rollout_share > 1:
            raise UsageError(f"--rollout-share {cfg.rollout_share}: it takes a number from 0 to 1")
        self.cfg, self.latent = cfg, latent.requires_grad_(False).eval()
        dim, is_energy = latent.cfg.encoder_embed_dim, str(cfg.refiner) == "energy"
        drops = {name: getattr(cfg, name) for name in ("dropout", "attention_dropout", "activation_dropout")}
        stack = latent.build_stack("decoder", cfg.refiner_layers, **drops)
        self.network = method.StepNetwork(stack, dim, latent.cfg.latent_size, is_energy)
        self.network.apply(INITIALIZATIONS[str(latent.cfg.initialization)])
        self.update = 0
        ours = {"remember_step": Pass(SourceMemory(self.network.stack)), "step": Pass(self.network, "refiner")}
        latent.passes = self.passes = {**latent.passes, **ours}  # one mapping: what is put into it serves both

    @classmethod
    def build_model(cls, cfg: LanmtRefinerConfig, task: Any) -> "LanmtRefinerModel":
        if not cfg.latent_options:
            raise UsageError("--arch lanmt_refiner needs --latent-model, a checkpoint of --arch lanmt_continuous")
        latent = compat.build_model(cfg.latent_options, task)
        if not getattr(latent, "is_refinable", False):
            raise UsageError(f"--latent-model {cfg.latent_model} is no --arch lanmt_continuous")
        return cls(cfg, latent)

    @property
    def decode_options(self) -> Type[ScoreOptions]:
        return EnergyOptions if str(self.cfg.refiner) == "energy" else ScoreOptions

    def max_positions(self) -> Tuple[int, int]:
        return self.latent.max_positions()

    def train(self, mode: bool = True) -> "LanmtRefinerModel":
        """The latent model stays as in decoding."""
        super().train(mode)
        self.latent.eval()
        return self

    def set_num_updates(self, update: int) -> None:
        """The task says how far the training is, after a resume too."""
        super().set_num_updates(update)
        self.update = update

    def loss_terms(self, net_input: NetInput, target: Tensor, is_token: Tensor, keys: Tensor) -> List[Term]:
        """The network's step, and its target, where delta inference goes, at each position (section 3.2).

        Lengths are the reference's. Validation starts at the prior's mean.
        """
        latent, mask = self.latent, padding_mask(is_token)
        with torch.no_grad():
            encoded = latent.encode(net_input)
            mean, std = latent.expect(encoded, is_token, mask)
        memory = self.run("remember_step", encoded.states)
        with torch.no_grad():
            start = self.start_points(keys, mean, std, mask, memory, encoded.mask) if self.training else mean
            step_target = latent.delta(encoded, start, is_token, mask, self.cfg.delta_steps) - start
        return [Steps("step", self.run("step", start, mask, memory, encoded.mask), step_target, is_token)]

    def start_points(
        self, keys: Tensor, mean: Tensor, std: Tensor, mask: Optional[Tensor], memory: Any, is_source: Optional[Tensor]
    ) -> Tensor:
        """(B, T, Z) latents to step from, each sentence's a function of its key and of the weights."""
        cfg, parts = self.cfg, [noise.fold(keys, part) for part in range(3)]
        spread = cfg.start_noise * std
        if str(cfg.start_points) == "scaled":
            spread = spread * noise.uniform(parts[0], 1)[..., None]
        start = gaussian.sample(mean, spread, parts[1])
        if self.update < cfg.rollout_start or not cfg.rollout_share:
            return start
        moved = start
        for _ in range(cfg.rollout_steps):
            moved = moved + cfg.rollout_step_size * self.run("step", moved, mask, memory, is_source)
        return torch.where(noise.uniform(parts[2], 1)[..., None] < cfg.rollout_share, moved, start)

    def encode(self, net_input: NetInput) -> RefinerEncoded:
        latent = self.latent.encode(net_input)
        memory = self.run("remember_step", latent.states)
        return RefinerEncoded(keys=latent.keys, is_empty=latent.is_empty, latent=latent, memory=memory)

    def propose(self, encoded: RefinerEncoded, request: Request[ScoreOptions]) -> RefinerProposals:
        latent = self.latent.propose(encoded.latent, request)
        return RefinerProposals(
            lengths=latent.lengths,
            latent=latent,
            inference=request.options.latent_inference,
            step_size=request.options.latent_step_size,
        )

    def start(self, encoded: RefinerEncoded, proposals: RefinerProposals) -> RefinerState:
        """Where the network begins, not decoded; or what the latent model decodes first."""
        known = replace(encoded.latent, shortlist=encoded.shortlist, penalty=encoded.penalty)
        latent = self.latent.proposed(known, proposals.latent)
        if proposals.inference == str(self.cfg.refiner):
            return RefinerState(latent=latent, memory=encoded.memory, step_size=proposals.step_size)
        latent = self.latent.decoded(latent)
        return RefinerState(tokens=latent.tokens, latent=latent, memory=encoded.memory, step_size=None)

    def refine(self, state: RefinerState, step: int, steps: int) -> RefinerState:
        """One step of the network (or of the latent model)."""
        latent = state.latent
        if state.step_size is None:
            latent = self.latent.refine(latent, step, steps)
            return replace(state, tokens=latent.tokens, latent=latent)
        move = self.run("step", latent.latents, latent.mask, state.memory, latent.encoded.mask)
        return replace(state, latent=replace(latent, latents=latent.latents + state.step_size * move))

    def latents(self, state: RefinerState) -> Tensor:
        return state.latent.latents

    def posterior_latents(self, state: RefinerState, target: Tensor) -> Tensor:
        return self.latent.posterior_latents(state.latent, target)

    def latent_steps(self, state: RefinerState, latents: Tensor) -> Tensor:
        rows = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        encoded = state.latent.encoded.select(rows)
        return self.run("step", latents, None, self.run("remember_step", encoded.states), encoded.mask)

    def finish(self, state: RefinerState) -> Finished:
        """One decoder pass where the network refined."""
        return self.latent.finish(state.latent)

    def score(self, encoded: RefinerEncoded, target: Tensor) -> Scored:
        """The latent model's score of a target."""
        return self.latent.score(encoded.latent, target)


LAYERS = {"tiny": 1, "small": 4, "iwslt16_de_en": 4}
for _size in base.SIZES:
    register_model_architecture("lanmt_refiner", f"lanmt_refiner_{_size}")(
        base.preset({"refiner_layers": LAYERS.get(_size, 6)})
    )
