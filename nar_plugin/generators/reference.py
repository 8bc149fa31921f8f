"""``--score-reference``: the given targets with the model's log-probabilities instead of a decode."""

import logging
from typing import Any

import torch

from ..methods.contract import AnyModel, UsageError
from ..methods.options import Candidates, Options
from ..methods.symbols import Symbols, right_padded
from .candidates import normalised
from .counters import Counters
from .hypotheses import Hypothesis, hypothesis

logger = logging.getLogger(__name__)
KINDS = {
    "exact": "exact log-probabilities (where passes may follow the first: of that one)",
    "bound": "bound (log-probabilities are no less)",
    "proxy": "proxy (comparable between targets of one source)",
}
"""What is said of scores."""


class ReferenceScorer:
    """fairseq's generator interface around ``DecodingModel.score``."""

    kind = ""
    """What the scores so far were."""

    def __init__(self, model: AnyModel, symbols: Symbols, options: Options) -> None:
        self.model, self.symbols, self.options, self.eos = model, symbols, options.part(Candidates), symbols.eos
        self.counters = Counters()

    @torch.no_grad()
    def generate(
        self, models: list[Any], sample: dict[str, Any], prefix_tokens: Any = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """One hypothesis a sentence, its reference.

        ``score`` is Σ token log p + extra (the length, a prior), in nats, normalised by ``--rescore-norm``; ``kind``
        says what it is: exact, bound or proxy. Raises UsageError without references.
        """
        if sample.get("target") is None:
            raise UsageError("--score-reference needs references")
        pad = self.symbols.pad
        target, is_token = right_padded(sample["target"], pad)
        with self.counters.running(self.model):
            scored = self.model.score(self.model.encode(sample["net_input"]), target)
        if scored.kind != self.kind:
            self.kind = scored.kind
            logger.info(f"--score-reference: {KINDS[scored.kind]}")
        total, lengths = scored.tokens.float().sum(1) + scored.extra, is_token.sum(1)
        score = normalised(total, lengths, self.options.norm(), self.options.lenpen).cpu()
        self.counters.sentences += len(target)
        self.counters.tokens += int(lengths.sum())
        rows = zip(target.cpu(), scored.tokens.float().cpu(), score, strict=True)
        return [[{**hypothesis(row, scores, value, pad), "kind": scored.kind}] for row, scores, value in rows]
