"""``--score-reference``: the given targets with the model's log-probabilities instead of a decode."""

from typing import Any

from ..methods.contract import DecodingModel, UsageError
from ..methods.symbols import Symbols, right_padded
from .candidates import normalised
from .counters import Counters
from .hypotheses import Hypothesis, hypothesis
from .loop import DecodeOptions


class ReferenceScorer:
    """fairseq's generator interface around ``DecodingModel.score``."""

    def __init__(self, model: DecodingModel, symbols: Symbols, options: DecodeOptions) -> None:
        self.model, self.symbols, self.options, self.eos = model, symbols, options, symbols.eos
        self.counters = Counters()

    def generate(
        self, models: list[Any], sample: dict[str, Any], prefix_tokens: Any = None, constraints: Any = None
    ) -> list[list[Hypothesis]]:
        """One hypothesis a sentence, its reference.

        ``score`` is Σ token log p + extra (the length, a prior), in nats, normalised by ``--rescore-norm``; ``kind``
        says what it is: exact, bound or proxy. Raises UsageError without references.
        """
        if sample.get("target") is None:
            raise UsageError("--score-reference needs references")
        net_input, pad = sample["net_input"], self.symbols.pad
        target, is_token = right_padded(sample["target"], pad)
        with self.counters.running(self.model):
            scored = self.model.score(self.model.encode(net_input["src_tokens"], net_input["src_lengths"]), target)
        total, lengths = scored.tokens.float().sum(1) + scored.extra, is_token.sum(1)
        score = normalised(total, lengths, self.options.norm, self.options.lenpen).cpu()
        self.counters.sentences += len(target)
        self.counters.tokens += int(lengths.sum())
        rows = zip(target.cpu(), scored.tokens.float().cpu(), score, strict=True)
        return [[{**hypothesis(row, scores, value, pad), "kind": scored.kind}] for row, scores, value in rows]
