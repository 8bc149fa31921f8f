"""The objective of an inference network: to step where delta inference would go.

Lee, Shu & Cho 2020, section 3.2: L = Σ_positions ‖s‖² − 2 s · (z̃ − z) for a sentence, which is ‖s − (z̃ − z)‖² less a
constant, normally negative, and least, −‖z̃ − z‖², where s = z̃ − z.
"""

from dataclasses import dataclass
from typing import Any, List

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from ..methods.contract import UsageError
from ..methods.terms import Steps
from . import base


@dataclass
class ScoreMatchingConfig(FairseqDataclass):
    """It has no options."""


@register_criterion("score_matching", dataclass=ScoreMatchingConfig)
class ScoreMatchingCriterion(base.TermsCriterion):
    """Sums over positions, means over sentences."""

    name = "score_matching"

    def __init__(self, task: Any) -> None:
        super().__init__(task, 0.0, "sentence")

    def loss_of(self, term: Any, sums: base.Sums) -> Tensor:
        if not isinstance(term, Steps):
            raise UsageError("--criterion score_matching trains an --arch lanmt_refiner")
        return super().loss_of(term, sums)

    def step_loss(self, term: Steps, sums: base.Sums) -> Tensor:
        step, target = term.step.float(), term.step_target.detach().float()
        loss = (step * (step - 2 * target)).sum(-1).masked_fill(~term.is_counted, 0.0).sum()
        cosine = F.cosine_similarity(step.detach(), target, dim=-1).masked_fill(~term.is_counted, 0.0).sum()
        squared = target.square().sum(-1).masked_fill(~term.is_counted, 0.0).sum()
        base.add(sums, "steps", term.name, cosine=cosine, squared=squared, count=term.is_counted.sum())
        return loss

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[base.Sums]) -> None:
        """``loss``: a sentence, in squared units of the latents; ``cosine`` of a step and its target, a position;
        ``way``: ‖target‖², a position; ``unexplained``: ‖s − target‖² / ‖target‖²."""
        size, loss = (base.total(logging_outputs, key) for key in ("sample_size", "loss"))
        metrics.log_scalar("loss", loss / size, size, round=4)
        for found in base.totals(logging_outputs, "steps").values():
            count, squared = found["count"], found["squared"]
            metrics.log_scalar("cosine", found["cosine"] / count, count, round=4)
            metrics.log_scalar("way", squared / count, count, round=4)
            metrics.log_scalar("unexplained", 1 + loss / max(squared, 1e-12), count, round=4)
