"""The objective of latent-variable models: reconstruction, divergence from the prior, whatever binds a code, length.

Shu et al. 2020, section 3.4: J = Σ smoothed CE + Σ_positions max(KL, b) + CE of the length, for a sentence; b is a
budget of nats that a position may spend for nothing (free bits), which keeps the posterior from collapsing. It is held,
then falls in a line to 0 between two updates, and is 0 in the phase that fine-tunes (``--budget 0``). Outside a
training, under ``fairseq-validate``, nobody says how far it fell: it is whole. The mass of ``--label-smoothing`` (0
unless asked for; 0.1 in the paper) is spread over the whole vocabulary, as by fairseq's own criterion.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from torch import Tensor

from ..methods import schedules
from ..methods.contract import UsageError
from ..methods.terms import Scalar, Values
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

    def loss_of(self, term: Any, sums: Dict[str, Any]) -> Tensor:
        if isinstance(term, Values):
            return self.divergence_loss(term, sums)
        if isinstance(term, Scalar):
            base.add(sums, **{f"{term.name}_scalar": term.value.detach()})
            return term.value.float()
        return super().loss_of(term, sums)

    def divergence_loss(self, term: Values, sums: Dict[str, Any]) -> Tensor:
        """Σ max(KL, b) over the positions that count; below the budget there is no gradient."""
        values = term.values.float().masked_fill(~term.is_counted, 0.0)
        hinged = torch.where(term.is_counted, values.clamp(min=self.budget), values)
        base.add(
            sums,
            **{
                f"{term.name}_nats": values.sum().detach(),
                f"{term.name}_hinged": hinged.sum().detach(),
                f"{term.name}_positions": term.is_counted.sum(),
                "budget": self.budget * len(values),
                "budget_rows": len(values),
            },
        )
        return hinged.sum()

    def class_loss(self, term: Any, sums: Dict[str, Any]) -> Tensor:
        return self.length_loss_factor * super().class_loss(term, sums)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """``kl``: nats a sentence; ``kl_position`` and ``kl_hinged``: nats a position before and after the hinge."""
        super().reduce_metrics(logging_outputs)
        totals = {key: sum(log.get(key, 0) for log in logging_outputs) for key in logging_outputs[0] if key[0] != "_"}
        sentences = float(totals["nsentences"])
        for name in (key[: -len("_positions")] for key in totals if key.endswith("_positions")):
            count = float(totals[f"{name}_positions"])
            metrics.log_scalar(name, float(totals[f"{name}_nats"]) / sentences, sentences, round=3)
            metrics.log_scalar(f"{name}_position", float(totals[f"{name}_nats"]) / count, count, round=4)
            metrics.log_scalar(f"{name}_hinged", float(totals[f"{name}_hinged"]) / count, count, round=4)
            metrics.log_scalar("budget", float(totals["budget"]) / float(totals["budget_rows"]), sentences, round=4)
        for name in (key[: -len("_scalar")] for key in totals if key.endswith("_scalar")):
            metrics.log_scalar(name, float(totals[f"{name}_scalar"]) / sentences, sentences, round=4)
