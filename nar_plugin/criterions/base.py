"""From loss terms to one loss: sums, counts, log keys and their reduction, for every criterion of the plugin."""

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
from ..methods.terms import Classes, Tokens


@dataclass
class TermsConfig(FairseqDataclass):
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of the token target spread over the whole vocabulary"}
    )
    normalize: ChoiceEnum(["token", "sentence"]) = field(  # type: ignore[valid-type]
        default="token", metadata={"help": "what every summed loss is divided by: scored tokens or sentences"}
    )


class TermsCriterion(FairseqCriterion):
    """Sums the terms that a model's forward returns; subclasses say how a kind of term becomes a loss.

    Every sum is divided by one sample size (scored tokens or sentences of the whole update), so that splitting a batch,
    by ``--update-freq`` or over processes, changes nothing. Losses are logged in bits per scored token (``loss``,
    ``nll_loss``) or per thing classified (``<term>_loss``), as fairseq's own criterions log theirs.
    """

    name = ""

    def __init__(self, task: Any, label_smoothing: float, normalize: str) -> None:
        super().__init__(task)
        self.label_smoothing, self.normalize = label_smoothing, str(normalize)

    def forward(self, model: torch.nn.Module, sample: Dict[str, Any]) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Summed loss (nats), sample size and sums to log. Raises UsageError for a batch without noise keys."""
        if "keys" not in sample:
            raise UsageError(f"--criterion {self.name} needs --task translation_nar")
        net_input = sample["net_input"]
        terms = model(net_input["src_tokens"], net_input["src_lengths"], target=sample["target"], keys=sample["keys"])
        sums: Dict[str, Any] = {"nsentences": sample["nsentences"], "ntokens": sample["ntokens"]}
        loss = sum(term.weight * self.loss_of(term, sums) for term in terms)
        sample_size = sums.get("scored", sums["nsentences"]) if self.normalize == "token" else sums["nsentences"]
        sums.update(loss=loss.detach(), sample_size=sample_size)
        return loss, sample_size, sums

    def loss_of(self, term: Any, sums: Dict[str, Any]) -> Tensor:
        """The term's summed loss in nats, float32; adds what is to be logged to ``sums``."""
        if isinstance(term, Tokens):
            return self.token_loss(term, sums)
        if isinstance(term, Classes):
            return self.class_loss(term, sums)
        raise UsageError(f"--criterion {self.name} has no use for the term {term.name!r} of this --arch")

    def token_loss(self, term: Tokens, sums: Dict[str, Any]) -> Tensor:
        """(1 − ε) Σ −log p(y) + ε / |V| Σ Σ_v −log p(v) over the scored positions."""
        log_probs = term.logits.float().log_softmax(-1)
        nll = F.nll_loss(log_probs, term.target, reduction="sum")
        correct = (greatest(log_probs.detach())[1] == term.target).sum()
        add(sums, nll_loss=nll.detach(), scored=term.target.numel(), correct=correct)
        if term.name != "token":  # one of several: logged on its own as well
            _add_named(sums, term.name, nll.detach(), term.target.numel(), correct)
        return (1 - self.label_smoothing) * nll - self.label_smoothing * log_probs.mean(-1).sum()

    def class_loss(self, term: Classes, sums: Dict[str, Any]) -> Tensor:
        """Σ −log p(class), never smoothed."""
        nll = F.cross_entropy(term.logits.float(), term.target, reduction="sum")
        correct = (term.logits.detach().argmax(-1) == term.target).sum()
        _add_named(sums, term.name, nll.detach(), term.target.numel(), correct)
        return nll

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Means over the whole update, from sums of every worker."""
        totals = {key: sum(log[key] for log in logging_outputs) for key in logging_outputs[0] if key[0] != "_"}
        size = float(totals["sample_size"])
        metrics.log_scalar("loss", float(totals["loss"]) / size / math.log(2), size, round=3)
        if "scored" in totals:
            scored = float(totals["scored"])
            metrics.log_scalar("nll_loss", float(totals["nll_loss"]) / scored / math.log(2), scored, round=3)
            metrics.log_derived("ppl", _perplexity)
            metrics.log_scalar("accuracy", 100 * float(totals["correct"]) / scored, scored, round=2)
        for name in (key[: -len("_count")] for key in totals if key.endswith("_count")):
            count = float(totals[f"{name}_count"])
            metrics.log_scalar(f"{name}_loss", float(totals[f"{name}_loss"]) / count / math.log(2), count, round=3)
            metrics.log_scalar(f"{name}_accuracy", 100 * float(totals[f"{name}_correct"]) / count, count, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def add(sums: Dict[str, Any], **values: Any) -> None:
    for key, value in values.items():
        sums[key] = sums.get(key, 0) + value


def _add_named(sums: Dict[str, Any], name: str, loss: Tensor, count: int, correct: Tensor) -> None:
    add(sums, **{f"{name}_loss": loss, f"{name}_count": count, f"{name}_correct": correct})


def _perplexity(meters: Any) -> float:
    return round(2 ** min(meters["nll_loss"].avg, 100.0), 2)
