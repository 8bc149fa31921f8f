"""The objective of models whose canvas is longer than the target: −log p(y | x), summed over all alignments.

Graves et al. 2006, section 4; divided by target tokens. A target that does not fit on its canvas has no alignment, and
its loss would be infinite: it teaches nothing, but it is counted, and a longer canvas is suggested once an epoch.
"""

import logging
from typing import Any, Dict, List

from fairseq.criterions import register_criterion
from fairseq.logging import metrics

from ..methods.contract import UsageError
from ..methods.terms import Alignments, Nats
from . import base

logger = logging.getLogger(__name__)

FACTORS = tuple(range(1, 17))
"""Of a canvas, that are told apart; what needs more counts as the last."""
SHARE = 0.999
"""Of sentences, that the suggested canvas fits."""


@register_criterion("alignment", dataclass=base.TermsConfig)
class AlignmentCriterion(base.TermsCriterion):
    """Raises UsageError for label smoothing, which a sum over alignments does not have."""

    name = "alignment"

    def __init__(self, task: Any, label_smoothing: float, normalize: str) -> None:
        super().__init__(task, label_smoothing, normalize)
        if label_smoothing:
            raise UsageError(f"--label-smoothing {label_smoothing}: --criterion alignment has none; leave it out")

    def sample_size(self, terms: List[Any], sums: base.Sums) -> int:
        return sums["ntokens"] if self.normalize == "token" else sums["nsentences"]

    def nats_loss(self, term: Nats, sums: base.Sums) -> Any:
        if isinstance(term, Alignments) and term.is_counted is not None:
            least = term.least_factor.clamp(max=FACTORS[-1])
            base.add(sums, "canvas", "misfit", sentences=(~term.is_counted).sum(), factor=term.factor * len(least))
            for factor in FACTORS:
                base.add(sums, "canvas", str(factor), sentences=(least == factor).sum())
        return super().nats_loss(term, sums)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[base.Sums]) -> None:
        """``misfits``: sentences that are longer than their canvas, summed up; ``alignment``, ``layer1`` …: nats a
        sentence."""
        super().reduce_metrics(logging_outputs)
        found = base.totals(logging_outputs, "canvas")
        misfit = found.pop("misfit")
        metrics.log_scalar_sum("misfits", misfit["sentences"], round=0)
        metrics.log_scalar("_upsample", misfit["factor"] / max(1, sum(one["sentences"] for one in found.values())))
        for factor, one in found.items():
            metrics.log_scalar_sum(f"_fitting{factor}", one["sentences"])

    def end_epoch(self, meters: Dict[str, Any]) -> None:
        """One line about the epoch's sentences that did not fit."""
        counts = {factor: meters[f"_fitting{factor}"].sum for factor in FACTORS}
        if meters["misfits"].sum:
            logger.info(told(int(meters["misfits"].sum), counts, round(meters["_upsample"].avg)))


def told(misfits: int, counts: Dict[int, float], factor: int) -> str:
    """What is to be known of targets that do not fit. ``counts``: by the least factor of a canvas, how many need it."""
    total = sum(counts.values())
    fitting = next(one for one in FACTORS if sum(counts[f] for f in FACTORS if f <= one) >= SHARE * total)
    return (
        f"{misfits:,} of {int(total):,} targets do not fit on --upsample {factor} and taught nothing; "
        f"--upsample {fitting} is enough for {SHARE:.1%} of them"
    )
