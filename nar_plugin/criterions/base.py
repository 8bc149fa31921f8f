"""From loss terms to one loss: sums, counts, log keys and their reduction, for every criterion of the plugin."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from ..methods.contract import UsageError
from ..methods.prediction import greatest
from ..methods.quantizers import perplexity
from ..methods.terms import Classes, Nats, Steps, Tokens, Usage

logger = logging.getLogger(__name__)

COLLAPSED = 0.1
"""A codebook has collapsed where its perplexity is below this share of its size."""

Sums = Dict[str, Any]
"""What a batch adds to the log. The host wants one flat dict of the same keys everywhere, so that it can be summed over
batches and workers: a term's sums have the keys «kind/name/quantity», which ``add`` writes and ``totals`` reads."""


@dataclass
class TermsConfig(FairseqDataclass):
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of the token target spread over the whole vocabulary"}
    )
    normalize: ChoiceEnum(["token", "sentence"]) = field(  # type: ignore[valid-type]
        default="token", metadata={"help": "what every summed loss is divided by: scored tokens or sentences"}
    )


def add(sums: Sums, kind: str, name: str, **values: Any) -> None:
    """Add quantities of the term ``name`` of a kind."""
    for quantity, value in values.items():
        key = f"{kind}/{name}/{quantity}"
        sums[key] = sums.get(key, 0) + value


def totals(logging_outputs: List[Sums], kind: str) -> Dict[str, Dict[str, float]]:
    """Of all terms of a kind: the quantities that ``add`` put there, by the term's name, summed over the outputs."""
    found: Dict[str, Dict[str, float]] = {}
    for key in dict.fromkeys(key for log in logging_outputs for key in log):
        if key.startswith(f"{kind}/"):
            name, quantity = key.split("/", 1)[1].rsplit("/", 1)
            found.setdefault(name, {})[quantity] = float(sum(log.get(key, 0) for log in logging_outputs))
    return found


def total(logging_outputs: List[Sums], key: str) -> float:
    return float(sum(log[key] for log in logging_outputs))


class TermsCriterion(FairseqCriterion):
    """Sums the terms that a model's forward returns; subclasses say how a kind of term becomes a loss.

    Every sum is divided by one sample size (counted tokens or sentences of the whole update), so that to split a batch,
    by ``--update-freq`` or over processes, changes nothing. Losses are logged in bits per reported token (``loss``,
    ``nll_loss``) or per thing classified (``<term>_loss``), as fairseq's own criterions log theirs.
    """

    name = ""

    def __init__(self, task: Any, label_smoothing: float, normalize: str) -> None:
        super().__init__(task)
        self.label_smoothing, self.normalize = label_smoothing, str(normalize)

    def forward(self, model: torch.nn.Module, sample: Dict[str, Any]) -> Tuple[Tensor, int, Sums]:
        """Summed loss (nats), sample size and sums to log. Raises UsageError for a batch without side columns."""
        if "columns" not in sample:
            raise UsageError(f"--criterion {self.name} needs --task translation_nar")
        terms = model(sample["net_input"], sample["target"], **sample["columns"])
        sums: Sums = {"nsentences": sample["nsentences"], "ntokens": sample["ntokens"]}
        loss = self.summed(terms, sample, sums)
        sample_size = self.sample_size(terms, sums)
        sums.update(loss=loss.detach(), sample_size=sample_size)
        return loss, sample_size, sums

    def summed(self, terms: List[Any], sample: Dict[str, Any], sums: Sums) -> Tensor:
        """The summed loss of a batch, in nats."""
        total: Any = sum(term.weight * self.loss_of(term, sums) for term in terms)
        return total

    def sample_size(self, terms: List[Any], sums: Sums) -> int:
        """What all sums of the batch are divided by."""
        counted = [term.target.size(0) for term in terms if isinstance(term, Tokens) and term.is_counted]
        return sum(counted) if counted and self.normalize == "token" else sums["nsentences"]

    def loss_of(self, term: Any, sums: Sums) -> Tensor:
        """The term's summed loss in nats, float32; adds what is to be logged to ``sums``."""
        if isinstance(term, Tokens):
            return self.token_loss(term, sums)
        if isinstance(term, Classes):
            return self.class_loss(term, sums)
        if isinstance(term, Nats):
            return self.nats_loss(term, sums)
        if isinstance(term, Steps):
            return self.step_loss(term, sums)
        if isinstance(term, Usage):
            return self.usage(term, sums)
        raise TypeError(f"{type(term).__name__} is no term of a loss")

    def token_loss(self, term: Tokens, sums: Sums) -> Tensor:
        """(1 − ε) Σ −log p(y) + ε / |V| Σ Σ_v −log p(v) over the scored positions; −log p(y) of soft targets is
        Σ_v −q(v) log p(v)."""
        log_probs = term.logits.float().log_softmax(-1)
        if term.target.is_floating_point():
            target = term.target.detach()  # 0 log 0 is 0
            nll, best = -(target * log_probs.masked_fill(target == 0, 0.0)).sum(), target.argmax(-1)
        else:
            nll, best = F.nll_loss(log_probs, term.target, reduction="sum"), term.target
        found = {
            "nats": nll.detach(),
            "count": best.numel(),
            "correct": (greatest(log_probs.detach())[1] == best).sum(),
        }
        if term.is_reported:
            add(sums, "words", "all", **found)
        if term.name != "token":  # one of several: logged on its own as well
            add(sums, "classes", term.name, **found)
        if not self.label_smoothing:  # 0 times what an impossible word costs is no number
            return nll
        return (1 - self.label_smoothing) * nll - self.label_smoothing * log_probs.mean(-1).sum()

    def class_loss(self, term: Classes, sums: Sums) -> Tensor:
        """Σ −log p(class), never smoothed, each as many times as the term says."""
        nll = F.cross_entropy(term.logits.float(), term.target, reduction="none")
        correct = (term.logits.detach().argmax(-1) == term.target).sum()
        add(sums, "classes", term.name, nats=nll.sum().detach(), count=term.target.numel(), correct=correct)
        return nll.sum() if term.weights is None else (term.weights * nll).sum()

    def nats_loss(self, term: Nats, sums: Sums) -> Tensor:
        """Σ over what counts."""
        values = term.values.float()
        if term.is_counted is not None:
            values = values.masked_fill(~term.is_counted, 0.0)
        add(sums, "nats", term.name, nats=values.sum().detach())
        if values.dim() > 1 or term.has_free_bits:
            count = values.numel() if term.is_counted is None else term.is_counted.sum()
            add(sums, "nats", term.name, positions=count)
        return values.sum()

    def step_loss(self, term: Steps, sums: Sums) -> Tensor:
        raise UsageError(f"--criterion {self.name} has no use for the term {term.name!r} of this --arch")

    def usage(self, term: Usage, sums: Sums) -> Tensor:
        """No loss: how often each code was used."""
        add(sums, "usage", term.name, counts=torch.bincount(term.codes.flatten(), minlength=term.size).float())
        return torch.zeros((), device=term.codes.device)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Sums]) -> None:
        """Means over the whole update, from sums of every worker."""
        size, sentences = (total(logging_outputs, key) for key in ("sample_size", "nsentences"))
        metrics.log_scalar("loss", total(logging_outputs, "loss") / size / math.log(2), size, round=3)
        for words in totals(logging_outputs, "words").values():
            count = words["count"]
            metrics.log_scalar("nll_loss", words["nats"] / count / math.log(2), count, round=3)
            metrics.log_derived("ppl", _perplexity)
            metrics.log_scalar("accuracy", 100 * words["correct"] / count, count, round=2)
        for name, found in totals(logging_outputs, "classes").items():
            count = found["count"]  # 0 where no sentence is long enough to have any
            metrics.log_scalar(f"{name}_loss", found["nats"] / max(1, count) / math.log(2), count, round=3)
            metrics.log_scalar(f"{name}_accuracy", 100 * found["correct"] / max(1, count), count, round=2)
        for name, found in totals(logging_outputs, "nats").items():
            metrics.log_scalar(name, found["nats"] / sentences, sentences, round=3)
            if "positions" in found:
                count = found["positions"]
                metrics.log_scalar(f"{name}_position", found["nats"] / count, count, round=4)

        for key in dict.fromkeys(key for log in logging_outputs for key in log if key.startswith("usage/")):
            name = key.split("/")[1]
            counts = sum(log[key] for log in logging_outputs if key in log).cpu()
            metrics.log_scalar_sum(f"_{name}", counts)
            metrics.log_derived(f"used_{name}", lambda meters, name=name: int((meters[f"_{name}"].sum > 0).sum()))
            metrics.log_derived(f"{name}_ppl", lambda meters, name=name: perplexity(meters[f"_{name}"].sum))

    def end_epoch(self, meters: Dict[str, Any]) -> None:
        """What an objective says at the end of an epoch of training; ``meters``: what it logged, by name. Warns of
        codes that collapsed."""
        for name, meter in meters.items():
            counts = getattr(meter, "sum", None)
            if not name.startswith("_") or not isinstance(counts, Tensor) or counts.dim() != 1:
                continue
            used, found = int((counts > 0).sum()), perplexity(counts)
            told = f"{used:,} of {len(counts):,} {name[1:]} were used in this epoch, {len(counts) - used:,} never"
            if found < COLLAPSED * len(counts):
                logger.warning(f"{told}; their perplexity is {found:.1f}: the codebook has collapsed")
            else:
                logger.info(f"{told}; their perplexity is {found:.1f}")

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _perplexity(meters: Any) -> float:
    return round(2 ** min(meters["nll_loss"].avg, 100.0), 2)
