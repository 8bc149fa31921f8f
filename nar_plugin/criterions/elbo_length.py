"""The objective of latent-variable models: reconstruction, divergence from the prior, whatever binds a code, length.

Shu et al. 2020, section 3.4: J = Σ smoothed CE + Σ_positions max(KL, b) + CE of the length, for a sentence; b is a
budget of nats that a position may spend for nothing (free bits), which keeps the posterior from collapsing. It is held,
then falls in a line to 0 between two updates, and is 0 in the phase that fine-tunes (``--budget 0``). Outside a
training, under ``fairseq-validate``, nobody says how far it fell: it is whole. The mass of ``--label-smoothing`` (0
unless asked for; 0.1 in the paper) is spread over the whole vocabulary, as by fairseq's own criterion.
"""

from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from torch import Tensor

from ..methods import schedules
from ..methods.contract import UsageError
from ..methods.terms import Nats
from . import base


@dataclass
class ElboLengthConfig(base.TermsConfig):
    """``normalize`` is by the sentence, as released: sums of positions have no common count of tokens."""

    normalize: ChoiceEnum(["token", "sentence"]) = field(  # type: ignore[valid-type]
        default="sentence", metadata={"help": "what every summed loss is divided by: scored tokens or sentences"}
    )
    length_loss_factor: float = field(default=1.0, metadata={"help": "weight of the length term, once a sentence"})
    budget: float = field(default=1.0, metadata={"help": "nats of divergence that a position has for nothing"})
    budget_anneal_start: int = field(default=0, metadata={"help": "update from which the budget falls"})
    budget_anneal_end: int = field(
        default=0, metadata={"help": "update at which it is 0; 0: it never falls (as released: half and all updates)"}
    )


@register_criterion("elbo_length", dataclass=ElboLengthConfig)
class ElboLengthCriterion(base.TermsCriterion):
    """Raises UsageError for a budget below 0, or one that would rise."""

    name = "elbo_length"

    def __init__(
        self,
        task: Any,
        label_smoothing: float,
        normalize: str,
        length_loss_factor: float,
        budget: float,
        budget_anneal_start: int,
        budget_anneal_end: int,
    ) -> None:
        super().__init__(task, label_smoothing, normalize)
        falls = budget_anneal_start, budget_anneal_end
        if not 0 <= budget < float("inf") or any(falls) and not 0 <= budget_anneal_start < budget_anneal_end:
            raise UsageError("--budget needs 0 or more, --budget-anneal-start an update before --budget-anneal-end")
        self.length_loss_factor, self.full_budget = length_loss_factor, budget
        self.falls = falls
        self.update = 0

    @property
    def budget(self) -> float:
        """Nats a position, at the present update."""
        return schedules.falling(self.update, self.full_budget, *self.falls)

    def set_num_updates(self, update: int) -> None:
        """The task says how far the training is, after a resume too."""
        self.update = update

    def nats_loss(self, term: Nats, sums: base.Sums) -> Tensor:
        """Of a divergence, Σ max(KL, b) over the positions that count; below the budget there is no gradient."""
        plain = super().nats_loss(term, sums)
        if not term.has_free_bits:
            return plain
        values, is_counted = term.values.float(), term.is_counted
        is_counted = torch.ones_like(values, dtype=torch.bool) if is_counted is None else is_counted
        hinged = values.clamp(min=self.budget).masked_fill(~is_counted, 0.0).sum()
        rows = len(values)
        base.add(sums, "free", term.name, nats=hinged.detach(), budget=self.budget * rows, rows=rows)
        return hinged

    def class_loss(self, term: Any, sums: base.Sums) -> Tensor:
        return self.length_loss_factor * super().class_loss(term, sums)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[base.Sums]) -> None:
        """``kl``: nats a sentence; ``kl_position`` and ``kl_hinged``: nats a position before and after the hinge."""
        super().reduce_metrics(logging_outputs)
        plain = base.totals(logging_outputs, "nats")
        for name, free in base.totals(logging_outputs, "free").items():
            count = plain[name]["positions"]
            metrics.log_scalar(f"{name}_hinged", free["nats"] / count, count, round=4)
            metrics.log_scalar("budget", free["budget"] / free["rows"], free["rows"], round=4)
