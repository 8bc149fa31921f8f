"""How latents are refined, step by step: their paths, bounds and scores, and pictures of them."""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import ToolError
from ..progress import progress
from ..text.subwords import detokenizer
from . import figures
from .scores import scores
from .system import System

GRID = 15
"""Arrows of the field on a side."""


class Paths(NamedTuple):
    """Latents of a sentence, (T, Z) each: ``steps`` by the kind of inference, from the prior's mean on."""

    steps: Dict[str, List[Tensor]]
    posterior: Tensor


class Refined(System):
    """A model with latents, or a refiner and the model it stands on, step by step."""

    def __init__(self, argv: Sequence[str]) -> None:
        from nar_plugin.compat import decode_flags
        from nar_plugin.generators.factory import given
        from nar_plugin.methods.options import LatentSearch, about_of

        super().__init__(argv)
        self.model = self.models[0]
        if not self.options_are(LatentSearch):
            raise ToolError(f"{self.paths[0]} has no latents to refine; lanmt_refiner has, and what it stands on")
        abouts = about_of(self.model.decode_options)
        self.kinds = tuple(kind for kind in abouts["latent_inference"].choices if kind != "mean")
        flags = given(self.cfg.generation, self.task.cfg, decode_flags())
        idle = sorted(flag for name, flag in flags.items() if name != "latent_step_size")
        if idle:
            raise ToolError(f"{', '.join(idle)}: no effect here; --steps are those that are made")
        self.options = {name: self.task.cfg.latent_step_size for name in abouts if name == "latent_step_size"}

    @property
    def has_field(self) -> bool:
        return "latent_step_size" in self.options

    def states(self, sample: Any, kind: str, steps: int, has_gold_length: bool = False) -> Tuple[Any, List[Any]]:
        """The encoded sources, and the states after 0 … ``steps`` steps of one kind."""
        from nar_plugin.methods.contract import Request

        encoded = self.model.encode(sample["net_input"])
        lengths = (sample["target"] != self.model.symbols.pad).sum(1) if has_gold_length else None
        options = self.model.decode_options(latent_inference=kind, **self.options)
        request = Request(options=options, keys=lambda: encoded.keys, lengths=lengths)
        found = [self.model.start(encoded, self.model.propose(encoded, request))]
        for step in range(steps):
            found.append(self.model.refine(found[-1], step + 1, steps))
        return encoded, found

    @torch.no_grad()
    def trajectories(self, sentence: int, steps: int) -> Tuple[Paths, Any]:
        """The trajectories of one sentence, and its first state, for the field."""
        sample = self.on_device(self.dataset.collater([self.dataset[sentence]]))
        states = {kind: self.states(sample, kind, steps, has_gold_length=True)[1] for kind in self.kinds}
        first = states[self.kinds[0]][0]
        posterior = self.model.posterior_latents(first, sample["target"])
        found = {kind: [self.model.latents(state)[0].float().cpu() for state in row] for kind, row in states.items()}
        return Paths(found, posterior[0].float().cpu()), first

    @torch.no_grad()
    def field(self, first: Any, places: Tensor) -> Tensor:
        """The network's steps at (N, T, Z) latents of the sentence."""
        return self.model.latent_steps(first, places.to(self.model.latents(first))).float().cpu()

    @torch.no_grad()
    def by_steps(self, steps: int, references: Sequence[str]) -> Dict[str, List[Tuple[float, float]]]:
        """By kind: (mean bound's proxy, BLEU) after 0 … ``steps`` steps; BLEU is NaN without references."""
        model, task = self.model, self.task
        detokenize = detokenizer(task.cfg.target_lang)
        found = {}
        for kind in self.kinds:
            totals, texts = [0.0] * (steps + 1), [dict[int, str]() for _ in range(steps + 1)]
            for sample in map(self.on_device, progress(self.batches(), f"{kind} steps", "batches")):
                encoded, states = self.states(sample, kind, steps)
                for step, state in enumerate(states):
                    tokens = model.finish(state).tokens
                    scored = model.score(encoded, tokens)
                    totals[step] += float((scored.tokens.sum(1) + scored.extra).sum())
                    lines = [task.target_dictionary.string(row[row != model.symbols.pad]) for row in tokens]
                    texts[step].update(zip(sample["id"].tolist(), map(detokenize, lines)))
            count = len(self.dataset)
            outputs = [[row[i] for i in range(count)] for row in texts]
            bleus = [scores(lines, references)["bleu"] if references else float("nan") for lines in outputs]
            found[kind] = [(total / count, bleu) for total, bleu in zip(totals, bleus)]
        return found


class Plane:
    """The two principal components of latents about the first of them."""

    def __init__(self, points: Sequence[Tensor]) -> None:
        self.origin = points[0].flatten()
        around = torch.stack([point.flatten() - self.origin for point in points])
        self.axes = torch.linalg.svd(around - around.mean(0), full_matrices=False).Vh[:2]

    def flat(self, latents: Tensor) -> Tuple[float, float]:
        x, y = (self.axes @ (latents.flatten() - self.origin)).tolist()
        return x, y

    def lifted(self, places: Tensor) -> Tensor:
        """(N, 2) places to (N, T · Z) latents."""
        return self.origin + places @ self.axes


def grid(points: Tensor) -> Tensor:
    """(GRID², 2) places around (N, 2) points."""
    low, high = points.amin(0), points.amax(0)
    margin = 0.15 * (high - low).clamp(min=1e-3)
    return torch.cartesian_prod(
        *(torch.linspace(float(a), float(b), GRID) for a, b in zip(low - margin, high + margin))
    )


def draw_plane(refined: Refined, sentence: int, steps: int) -> Any:
    """The picture of one sentence, as a figure of matplotlib."""
    from matplotlib.figure import Figure

    paths, first = refined.trajectories(sentence, steps)
    plane = Plane([*(point for row in paths.steps.values() for point in row), paths.posterior])
    lines = {kind: [plane.flat(point) for point in row] for kind, row in paths.steps.items()}
    aim = plane.flat(paths.posterior)
    figure = Figure((figures.WIDTH, figures.HEIGHT))
    axes: Any = figure.add_subplot(xlabel="first principal component", ylabel="second principal component")
    about = f"{len(paths.posterior)} positions, one point."
    if refined.has_field:
        places = grid(torch.tensor([aim, *(point for row in lines.values() for point in row)]))
        moves = refined.field(first, plane.lifted(places).view(len(places), *paths.posterior.shape)).flatten(1)
        arrows = moves @ plane.axes.T
        axes.quiver(*places.T.tolist(), *arrows.T.tolist(), color="#BBBBBB", angles="xy", width=0.0025)
        about = f"Arrows: the {refined.kinds[0]} network's steps in this plane. {about}"
    for (kind, points), look in zip(lines.items(), figures.looks(list(lines))):
        axes.plot(*zip(*points), label=f"{kind} steps", **look)
    axes.plot(*lines[refined.kinds[0]][0], "s", color=figures.DARK, label="the prior's mean")
    axes.plot(*aim, "*", color=figures.DARK, markersize=9, label="the posterior's mean, given the reference")
    axes.set_title(f"Latents of sentence {sentence}, {steps} steps", loc="left", fontsize=11, fontweight="bold")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    figure.supxlabel(about, x=0.01, ha="left", fontsize=7, color="#444444")
    return figure


def chart(values: Dict[str, List[float]], name: str, note: str) -> figures.Chart:
    """One quantity over steps, a line a kind."""
    series = [figures.Series(kind, tuple(enumerate(row))) for kind, row in values.items()]
    return figures.Chart(f"{name} by refinement steps", "steps", name, series, [note], log_x=False)


def charts(found: Dict[str, List[Tuple[float, float]]], count: int, has_bleu: bool) -> Dict[str, figures.Chart]:
    """What ``by_steps`` found of ``count`` sentences, as figures by their names."""
    note = f"Means of {count} sentences; a proxy: z is the mean of q(z | x, y), y the output."
    bounds = {kind: [bound for bound, _ in row] for kind, row in found.items()}
    made = {"bound": chart(bounds, "log p(y | z, x) - KL + log p(length), nats", note)}
    if has_bleu:
        bleus = {kind: [bleu for _, bleu in row] for kind, row in found.items()}
        made["bleu"] = chart(bleus, "BLEU", "Detokenised sacreBLEU.")
    return made
