"""The objective of an inference network: to step where delta inference would go.

Lee, Shu & Cho 2020, section 3.2: L = Σ_positions ‖s‖² − 2 s · (z̃ − z) for a sentence, which is ‖s − (z̃ − z)‖² less a
constant, normally negative, and least, −‖z̃ − z‖², where s = z̃ − z.
"""

from dataclasses import dataclass
from typing import Any, Dict, List

import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from ..methods.contract import UsageError
from ..methods.terms import Moves
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

    def loss_of(self, term: Any, sums: Dict[str, Any]) -> Tensor:
        if not isinstance(term, Moves):
            raise UsageError("--criterion score_matching trains an --arch lanmt_refiner")
        move, way = term.move.float(), term.way.detach().float()
        loss = (move * (move - 2 * way)).sum(-1).masked_fill(~term.is_counted, 0.0).sum()
        cosine = F.cosine_similarity(move.detach(), way, dim=-1).masked_fill(~term.is_counted, 0.0).sum()
        squared = way.square().sum(-1).masked_fill(~term.is_counted, 0.0).sum()
        base.add(sums, cosine=cosine, squared_way=squared, positions=term.is_counted.sum())
        return loss

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """``loss``: a sentence, in squared units of the latents; ``cosine`` of a step and the way, a position;
        ``unexplained``: ‖s − way‖² / ‖way‖²."""
        totals = {key: sum(log[key] for log in logging_outputs) for key in logging_outputs[0] if key[0] != "_"}
        size, positions, squared = (float(totals[key]) for key in ("sample_size", "positions", "squared_way"))
        metrics.log_scalar("loss", float(totals["loss"]) / size, size, round=4)
        metrics.log_scalar("cosine", float(totals["cosine"]) / positions, positions, round=4)
        metrics.log_scalar("way", squared / positions, positions, round=4)
        metrics.log_scalar("unexplained", 1 + float(totals["loss"]) / max(squared, 1e-12), positions, round=4)
