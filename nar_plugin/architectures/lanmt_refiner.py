"""An inference network that moves the latents of a trained model towards better translations, without decoding them.

Lee, Shu & Cho 2020, arXiv 2009.07177, sections 3.2, 3.3. ``--latent-model`` is a trained ``lanmt_continuous``,
frozen; its options and weights are saved with its own, so that a refiner's checkpoint stands alone. The network is
taught the way that delta inference would go: its step s(z) regresses on z̃ − z, z̃ being ``--delta-steps`` delta steps
from z (``--criterion score_matching``). ``--refiner score``: s is what the network says. ``--refiner energy``: s is the
gradient of a number that it says of the whole sentence, the energy's negative.

Decoding: z ← z + α s(z), ``--iter-decode-max-iter`` times, then one decoder pass and one projection on the vocabulary.

Where training starts (``--start-points``): the talk draws z from the prior; the released code, and the default here,
shrinks the noise by a factor from 0 to 1 (one for each sentence; there, one for a batch), which reaches the mean, where
decoding starts. From ``--rollout-start`` updates on a start is, half of the time, moved by the network's own steps.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, List, Optional, Tuple

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model, register_model_architecture
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import compat
from ..methods import gaussian, noise
from ..methods.contract import Ask, Encoded, Finished, Scored, Starts, State, UsageError
from ..methods.symbols import right_padded
from ..methods.terms import Moves, Term
from ..methods.transformer import INITIALIZATIONS, Memory, padding_mask
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
    delta_steps: int = field(default=4, metadata={"help": "delta steps whose way the network learns"})
    start_points: ChoiceEnum(["scaled", "prior"]) = field(  # type: ignore[valid-type]
        default="scaled", metadata={"help": "the prior's noise shrunk by a factor from 0 to 1 (code), or whole (talk)"}
    )
    start_noise: float = field(default=1.0, metadata={"help": "spread of the start points, in the prior's deviations"})
    rollout_start: int = field(default=100000, metadata={"help": "update from which starts are moved by the network"})
    rollout_share: float = field(default=0.5, metadata={"help": "share of sentences whose start is moved"})
    rollout_steps: int = field(default=1, metadata={"help": "steps of such a move"})
    rollout_step_size: float = field(default=1.0, metadata={"help": "their size (released: 1; IWSLT 0.8)"})


@dataclass(frozen=True, kw_only=True)
class RefinerEncoded(Encoded):
    """``latent``: what the latent model knows of the source; ``memory``: the source for the network."""

    latent: Any
    memory: Tuple[Memory, ...]


@dataclass(frozen=True, kw_only=True)
class RefinerStarts(Starts):
    """``latent``: the latent model's; ``inference``: how they are refined; ``step_size``: α of the network's steps."""

    latent: Any
    inference: str
    step_size: float


@dataclass(frozen=True, kw_only=True)
class RefinerState(State):
    """``latent``: the latent model's state; ``tokens`` are its own, None while nothing was said.

    ``step_size``: α of the network's steps, None where steps are the latent model's own.
    """

    latent: Any
    memory: Tuple[Memory, ...]
    step_size: Optional[float]


class StepNetwork(nn.Module):
    """s(z): (B, T, Z) latents to (B, T, Z) steps, 0 at pads. It knows neither positions nor the number of the step."""

    def __init__(self, stack: Any, dim: int, latent_size: int, is_energy: bool) -> None:
        super().__init__()
        self.stack, self.is_energy = stack, is_energy
        self.lift = nn.Linear(latent_size, dim)
        self.output = nn.Linear(dim, 1 if is_energy else latent_size, bias=not is_energy)
        if is_energy:  # what is added last changes no slope: it would never have a gradient
            last = stack.norm if isinstance(stack.norm, nn.LayerNorm) else stack.layers[-1].around_feed.norm
            last.bias.requires_grad_(False)

    def features(self, latents: Tensor, mask: Optional[Tensor], memory: Any, is_source: Optional[Tensor]) -> Tensor:
        return self.stack(self.lift(latents.to(self.lift.weight.dtype)), mask, memory, is_source)

    def height(self, latents: Tensor, mask: Optional[Tensor], memory: Any, is_source: Optional[Tensor]) -> Tensor:
        """(B,) the energy's negative: of the mean over a sentence's positions."""
        states = self.features(latents, mask, memory, is_source)
        if mask is None:
            return self.output(states.mean(1))[:, 0]
        return self.output((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))[:, 0]

    def forward(self, latents: Tensor, mask: Optional[Tensor], memory: Any, is_source: Optional[Tensor]) -> Tensor:
        if self.is_energy:
            return self.slope(latents, mask, memory, is_source)
        step = self.output(self.features(latents, mask, memory, is_source)).float()
        return step if mask is None else step.masked_fill(~mask[..., None], 0.0)

    def slope(self, latents: Tensor, mask: Optional[Tensor], memory: Any, is_source: Optional[Tensor]) -> Tensor:
        """The gradient of ``height``, also under ``no_grad``; elsewhere it has a gradient itself."""
        is_taught = torch.is_grad_enabled()
        # the fused kernels of attention have no second derivative, which training alone asks for
        kernels = sdpa_kernel(SDPBackend.MATH) if is_taught else nullcontext()
        with torch.enable_grad(), kernels:
            place = latents.detach().requires_grad_()
            total = self.height(place, mask, memory, is_source).float().sum()
            return torch.autograd.grad(total, place, create_graph=is_taught)[0]


@register_model("lanmt_refiner", dataclass=LanmtRefinerConfig)
class LanmtRefinerModel(base.DecodingModel):
    """Shapes as in ``methods.contract``. The latent model's weights are this model's, without gradients."""

    criterions = ("score_matching",)
    decode_flags = base.CANDIDATE_FLAGS | base.STOP_FLAGS | base.LATENT_FLAGS | {"latent_step_size"}
    candidate_flags = ("iter_decode_with_beam", "decode_samples")
    silent_iterations = 1
    default_stop_rule = "fixed-point"

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
        self.network = StepNetwork(stack, dim, latent.cfg.latent_size, is_energy)
        self.network.apply(INITIALIZATIONS[str(latent.cfg.initialization)])
        self.update = 0
        self.stands_on = ""

    @classmethod
    def build_model(cls, cfg: LanmtRefinerConfig, task: Any) -> "LanmtRefinerModel":
        if not cfg.latent_options:
            raise UsageError("--arch lanmt_refiner needs --latent-model, a checkpoint of --arch lanmt_continuous")
        latent = compat.build_model(cfg.latent_options, task)
        if not getattr(latent, "is_refinable", False):
            raise UsageError(f"--latent-model {cfg.latent_model} is no --arch lanmt_continuous")
        return cls(cfg, latent)

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """Raises UsageError where a training on top of ``stands_on`` would go on from one on top of another model."""
        own = self.latent.state_dict()
        saved = {name: state_dict[f"latent.{name}"] for name in own if f"latent.{name}" in state_dict}
        if self.stands_on and not all(saved[name].to(own[name]).equal(own[name]) for name in saved):
            raise UsageError(
                f"--latent-model {self.stands_on} is not what the checkpoint stands on; take another --save-dir"
            )
        return super().load_state_dict(state_dict, *args, **options)

    @property
    def inferences(self) -> Tuple[str, ...]:
        return str(self.cfg.refiner), "delta", "mean"

    @property
    def sample_noise(self) -> float:
        return self.latent.sample_noise

    @property
    def counted(self) -> Any:
        return {**self.latent.counted, "refiner": self.network}

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

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        target: Optional[Tensor] = None,
        keys: Optional[Tensor] = None,
        **unknown: Any,
    ) -> List[Term]:
        """One term: the network's step, and the way of delta inference, at each position (section 3.2).

        Lengths are the reference's. ``target``: (B, T) ids ending in ``</s>``; ``keys``: (B,) noise keys. Validation
        starts at the prior's mean.
        """
        keys, latent = self.required(keys), self.latent
        target, is_token = right_padded(self.required(target), self.symbols.pad)
        mask = padding_mask(is_token)
        with torch.no_grad():
            encoded = latent.encode(src_tokens, src_lengths)
            mean, std = latent.expect(encoded, target.size(1), mask)
        memory = self.network.stack.project(encoded.states)
        with torch.no_grad():
            start = self.start_points(keys, mean, std, mask, memory, encoded.mask) if self.training else mean
            way = latent.delta(encoded, start, is_token, mask, self.cfg.delta_steps) - start
        return [Moves("step", self.network(start, mask, memory, encoded.mask), way, is_token)]

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
            moved = moved + cfg.rollout_step_size * self.network(moved, mask, memory, is_source)
        return torch.where(noise.uniform(parts[2], 1)[..., None] < cfg.rollout_share, moved, start)

    def encode(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None) -> RefinerEncoded:
        latent = self.latent.encode(src_tokens, src_lengths)
        return RefinerEncoded(source=latent.source, latent=latent, memory=self.network.stack.project(latent.states))

    def propose(self, encoded: RefinerEncoded, ask: Ask) -> RefinerStarts:
        latent = self.latent.propose(encoded.latent, ask)
        return RefinerStarts(
            lengths=latent.lengths,
            latent=latent,
            inference=ask.options["latent_inference"],
            step_size=ask.options["latent_step_size"],
        )

    def start(self, encoded: RefinerEncoded, starts: RefinerStarts) -> RefinerState:
        """Where the network begins, undecoded; or what the latent model says first."""
        latent = self.latent.begin(encoded.latent, starts.latent)
        if starts.inference == str(self.cfg.refiner):
            return RefinerState(latent=latent, memory=encoded.memory, step_size=starts.step_size)
        latent = self.latent.said(latent)
        return RefinerState(tokens=latent.tokens, latent=latent, memory=encoded.memory, step_size=None)

    def refine(self, state: RefinerState, step: int, steps: int) -> RefinerState:
        """One step of the network (or of the latent model)."""
        latent = state.latent
        if state.step_size is None:
            latent = self.latent.refine(latent, step, steps)
            return replace(state, tokens=latent.tokens, latent=latent)
        move = self.network(latent.latents, latent.mask, state.memory, latent.encoded.mask)
        return replace(state, latent=replace(latent, latents=latent.latents + state.step_size * move))

    def max_steps(self, asked: int) -> int:
        return asked

    def finish(self, state: RefinerState) -> Finished:
        """One decoder pass where the network refined."""
        return self.latent.finish(state.latent)

    def score(self, encoded: RefinerEncoded, target: Tensor) -> Scored:
        """What the latent model says of a target."""
        return self.latent.score(encoded.latent, target)


LAYERS = {"tiny": 1, "small": 4, "iwslt16_de_en": 4}
for _size in base.SIZES:
    register_model_architecture("lanmt_refiner", f"lanmt_refiner_{_size}")(
        base.preset({"refiner_layers": LAYERS.get(_size, 6)})
    )
